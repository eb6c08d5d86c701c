"""A name for the shortcut: which of the attributes that shortcuts are made of looks most like what was found.

An attribute is a list of sentences, one per value. Its score is that of its best pair of sentences: how far the pair's
difference tells examples with one inferred value from others of their class, as for words (`names.py`). As many random
pairs are scored as all attributes have together, so that a long list of attributes does not name something by chance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aifs_peft.audit.names import Array, IntArray, best_scores, contrasts
from aifs_peft.discovery import embed_prompts
from aifs_peft.errors import InvalidInputError

# Place, light, texture, medium, sex, age, skin, clothing, device, watermark, language and more: sentences per value.
DEFAULT_ATTRIBUTES: dict[str, list[str]] = json.loads(
    (files("aifs_peft.audit") / "attributes.json").read_text(encoding="utf-8")
)
COLUMNS = ("attribute", "looks_like", "rather_than", "value", "score", "null_high", "significant")


def embed_attributes(
    model: Any, tokenizer: Any, attributes: Mapping[str, Sequence[str]] = DEFAULT_ATTRIBUTES
) -> dict[str, NDArray[np.float32]]:
    """Text embeddings of attributes, one per value.

    Args:
        model: a CLIP model of transformers or open_clip, the one whose *projected* image embeddings are the latents.
        tokenizer: its tokenizer or processor.
        attributes: names, and two or more sentences each, one per value; the default ones are generic.

    Returns:
        For each name unit embeddings, `(values, d)`.

    Raises:
        InvalidInputError: for no attribute, one with fewer than two sentences, or a model that embeds no text.

    Example:
        >>> from importlib.resources import files
        >>> from transformers import AutoProcessor, CLIPModel
        >>> folder = str(files("aifs_peft") / "assets" / "tiny_clip")
        >>> model, processor = CLIPModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        >>> embed_attributes(model, processor, {"size": ["a small sign", "a large sign"]})["size"].shape
        (2, 128)
    """
    few = [name for name, sentences in attributes.items() if isinstance(sentences, str) or len(sentences) < 2]
    if few or not attributes:
        given = f"fewer for {few[0]!r}" if few else "no attribute"
        raise InvalidInputError(f"attributes need two or more sentences each, one per value; got {given}.")
    sentences = [sentence for values in attributes.values() for sentence in values]
    ends = np.cumsum([len(values) for values in attributes.values()])
    parts = np.split(embed_prompts(model, tokenizer, sentences), ends[:-1])
    return dict(zip(attributes, parts, strict=True))


def score_attributes(
    Z: Array,
    y: IntArray,
    inferred: IntArray,
    embedded: Mapping[str, Array],
    sentences: Mapping[str, Sequence[str]],
    value_names: Sequence[Any],
    *,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Attributes by how well they tell the examples of an inferred value from others of their class.

    Args:
        Z: latents in the space of the texts, `(n, d)`.
        y: class of each example, `(n,)`.
        inferred: attribute value of each, `(n,)`.
        embedded: as of `embed_attributes`, `(values, d)` each.
        sentences: the sentences, in the same order.
        value_names: of the inferred values.
        rng: source of the random texts.

    Returns:
        One row per attribute, best first: `attribute`; `looks_like` and `rather_than`, two of its sentences; `value`,
        the inferred value whose examples look like the first; `score` in standard deviations; `null_high`, what the
        best of as many random pairs stays below with probability 0.95; `significant`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(600) % 2; a = np.where(np.arange(600) < 60, 1 - y, y)
        >>> Z = rng.normal(size=(600, 40)); Z[:, 0] += 5 * a
        >>> embedded = {"light": np.eye(40)[:2], "place": np.eye(40)[2:4], "sex": np.eye(40)[4:6]}
        >>> sentences = {"light": ["bright", "dark"], "place": ["in", "out"], "sex": ["man", "woman"]}
        >>> table = score_attributes(Z, y, a, embedded, sentences, ["cat", "dog"], rng=rng)
        >>> table.loc[0, ["attribute", "looks_like", "value"]].tolist(), table["significant"].tolist()
        (['light', 'bright', 'dog'], [True, False, False])
    """
    pairs = [(name, p, q) for name, values in embedded.items() for p, q in permutations(range(len(values)), 2)]
    W = np.stack([np.asarray(embedded[name][p] - embedded[name][q], dtype=np.float64) for name, p, q in pairs])
    values, delta, spread = contrasts(Z, y, inferred, W)
    if not len(values):
        return pd.DataFrame({column: [] for column in COLUMNS})
    best, score, high = best_scores(delta, spread, rng)
    table = pd.DataFrame(
        [
            (name, sentences[name][p], sentences[name][q], value_names[values[b]], s, high, bool(s > high))
            for (name, p, q), b, s in zip(pairs, best, score, strict=True)
        ],
        columns=list(COLUMNS),
    )
    ranked = table.sort_values("score", ascending=False, kind="stable")
    return ranked.drop_duplicates("attribute").reset_index(drop=True)
