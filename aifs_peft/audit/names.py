"""Words for the shortcut: which texts of a CLIP tell examples with one inferred attribute value from the others.

A word's score for a value is the difference of the word's product with the latents, between examples that carry the
value and examples of the same class that do not, in standard deviations within those cells. Every direction that is not
orthogonal to the attribute differs, so the null is not "no difference": it is what as many random texts would score at
best, drawn as mixtures of the vocabulary's own embeddings. A word that exceeds it stands out of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from aifs_peft.discovery import embed_prompts
from aifs_peft.discovery.arrays import row_chunks
from aifs_peft.discovery.streaming.source import LatentSource
from aifs_peft.errors import InvalidInputError

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

# What shortcuts of photographs and scans are made of: colour, light, places, materials, patterns, marks, style.
DEFAULT_WORDS: tuple[str, ...] = tuple((files("aifs_peft.audit") / "words.txt").read_text(encoding="utf-8").split())
TEMPLATE = "a photo of {}"
REPEATS = 200
LEVEL = 0.05
# Cells of class and value with fewer examples say too little about a word.
MIN_CELL = 5


def embed_words(
    model: Any, tokenizer: Any, words: Sequence[str] = DEFAULT_WORDS, template: str = TEMPLATE
) -> dict[str, NDArray[np.float32]]:
    """A vocabulary for `audit(..., vocabulary=...)`: unit text embeddings of words by a CLIP model.

    Args:
        model: a CLIP model of transformers or open_clip, the one whose *projected* image embeddings are the latents.
        tokenizer: its tokenizer or processor.
        words: the words; the default ones are neutral.
        template: sentence that a word is put into, with `{}` in its place.

    Returns:
        Each word's embedding, `(d,)`.

    Raises:
        InvalidInputError: For no word, a template without `{}`, or a model that embeds no text.

    Example:
        >>> from importlib.resources import files
        >>> from transformers import AutoProcessor, CLIPModel
        >>> folder = str(files("aifs_peft") / "assets" / "tiny_clip")
        >>> model, processor = CLIPModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        >>> {word: vector.shape for word, vector in embed_words(model, processor, ["red", "blue"]).items()}
        {'red': (128,), 'blue': (128,)}
    """
    if "{}" not in template:
        raise InvalidInputError(f"template={template!r} was given; it needs {{}} where the word goes, as {TEMPLATE!r}.")
    distinct = list(dict.fromkeys(words))
    embedded = embed_prompts(model, tokenizer, [template.format(word) for word in distinct])
    return dict(zip(distinct, embedded, strict=True))


def score_words(
    Z: Array | LatentSource,
    y: IntArray,
    inferred: IntArray,
    vocabulary: Mapping[str, ArrayLike],
    value_names: Sequence[Any],
    *,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Words by how well they tell the examples of an inferred attribute value from others of their class.

    Args:
        Z: latents in the space of the words, `(n, d)`; a source is read in blocks of rows.
        y: class of each example, `(n,)`.
        inferred: attribute value of each, `(n,)`.
        vocabulary: words and their embeddings, `(d,)` each; at least two.
        value_names: of the attribute's values.
        rng: source of the random texts.

    Returns:
        One row per word, strongest first: `word`, `value` (the inferred value that it goes with most), `score` in
        standard deviations, `null_high` (what the best of as many random texts stays below with probability 0.95) and
        `significant`.

    Raises:
        InvalidInputError: For fewer than two words, or embeddings of another width.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(600) % 2; a = np.where(np.arange(600) < 60, 1 - y, y)
        >>> Z = rng.normal(size=(600, 40)); Z[:, 0] += 5 * a
        >>> words = dict(zip("abcdefgh", np.eye(40)[:8]))
        >>> score_words(Z, y, a, words, ["cat", "dog"], rng=rng).loc[0, ["word", "value"]].tolist()
        ['a', 'dog']
    """
    words, embedded = list(vocabulary), [np.asarray(vector, dtype=np.float64) for vector in vocabulary.values()]
    wrong = {word: v.shape for word, v in zip(words, embedded, strict=True) if v.shape != (Z.shape[1],)}
    if len(words) < 2 or wrong:
        raise InvalidInputError(
            f"vocabulary has {len(words)} words"
            + (f", of which {next(iter(wrong))!r} has shape {next(iter(wrong.values()))}" if wrong else "")
            + f"; needed are at least two, each an embedding of shape ({Z.shape[1]},), the width of the latents. Make "
            "it with embed_words and a CLIP model, and take its projected image embeddings as latents."
        )
    # What all texts have in common is no word: only differences between words count.
    W = np.stack(embedded)
    W = W - W.mean(axis=0)
    values, delta, spread = contrasts(Z, y, inferred, W)
    if not len(values):
        return pd.DataFrame({"word": [], "value": [], "score": [], "null_high": [], "significant": []})
    best, score, high = best_scores(delta, spread, rng)
    table = pd.DataFrame(
        {
            "word": words,
            "value": [value_names[a] for a in values[best]],
            "score": score,
            "null_high": high,
            "significant": score > high,
        }
    )
    return table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)


def contrasts(Z: Array | LatentSource, y: IntArray, inferred: IntArray, W: Array) -> tuple[IntArray, Array, Array]:
    """Values that can be compared `(v,)`, differences of the words' products `(v, words)`, their covariance in cells.

    For each value, within each class that has examples with and without it; classes count by how precise they are.
    """
    cells, code = np.unique(np.stack([y, inferred]), axis=1, return_inverse=True)
    counts = np.bincount(code)
    means, squares = _moments_of_products(Z, W, code, counts)
    spread = squares / max(len(y) - len(counts), 1)
    values, delta = [], []
    for a in np.unique(cells[1]):
        total, weights = np.zeros(len(W)), 0.0
        for c in np.unique(cells[0]):
            own = np.flatnonzero((cells[0] == c) & (cells[1] == a))
            rest = np.flatnonzero((cells[0] == c) & (cells[1] != a))
            n_own, n_rest = int(counts[own].sum()), int(counts[rest].sum())
            if min(n_own, n_rest) < MIN_CELL:
                continue
            weight = n_own * n_rest / (n_own + n_rest)
            total += weight * (means[own[0]] - counts[rest] @ means[rest] / n_rest)
            weights += weight
        if weights:
            values.append(int(a))
            delta.append(total / weights)
    return np.array(values, dtype=np.int64), np.array(delta).reshape(-1, len(W)), spread


def _moments_of_products(Z: Array | LatentSource, W: Array, code: IntArray, counts: IntArray) -> tuple[Array, Array]:
    """Means in each cell, `(cells, words)`, of the words' products with latents; their products around those means."""
    if not isinstance(Z, LatentSource):
        products = np.asarray(Z @ W.T, dtype=np.float64)
        means = np.stack([products[code == i].mean(axis=0) for i in range(len(counts))])
        for part in row_chunks(len(products)):  # in place: a second array of this size is not needed
            products[part] -= means[code[part]]
        return means, products.T @ products
    sums, squares = np.zeros((len(counts), len(W))), np.zeros((len(W), len(W)))
    for part, block in Z.blocks():
        products = np.asarray(block, dtype=np.float32) @ W.T
        np.add.at(sums, code[part], products)
        squares += products.T @ products
    means = sums / counts[:, None]
    return means, squares - (means * counts[:, None]).T @ means


def best_scores(delta: Array, spread: Array, rng: np.random.Generator) -> tuple[IntArray, Array, float]:
    """For each text the value it goes with most and its score `(texts,)`, and what the best of random texts reaches."""
    scores = delta / np.sqrt(np.maximum(np.diag(spread), 1e-24))
    best = scores.argmax(axis=0)
    high = float(np.quantile(best_of_random(delta, spread, rng), 1.0 - LEVEL))
    return best, scores[best, np.arange(scores.shape[1])], high


def best_of_random(delta: Array, spread: Array, rng: np.random.Generator) -> Array:
    """Best score among as many random texts as there are words, `(REPEATS,)`: texts are random sums of the words'."""
    m = delta.shape[1]
    # With the root of the covariance a text's own standard deviation is the length of a product.
    sizes, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(sizes, 0.0))
    out = np.empty(REPEATS)
    for i in range(REPEATS):
        texts = rng.normal(size=(m, m))
        scores = (texts @ delta.T) / np.maximum(np.linalg.norm(texts @ root, axis=1), 1e-12)[:, None]
        out[i] = scores.max()
    return out
