"""What a run with `--fuse` needs: its columns encoded, its base model, and what of the finding lies in the columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.experiments.columns import TableEncoding
from aifs_peft.experiments.prepare import CACHE_BYTES, PreparedDataset, label_names, make_encoder
from aifs_peft.models import FusedClassifier, load_processor, resolve_model
from aifs_peft.models.encoders import load_transformers
from aifs_peft.models.tabular import ENCODERS

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel

    from aifs_peft.experiments.spec import FinetuneSpec

# Training examples, at most, by which the two kinds of latents are scaled: means and deviations need no more.
SCALED_BY = 512
FUSED_ALREADY = (
    "The model {model!r} is a FusedClassifier, made for the columns of one table: name its encoder of pictures or "
    "texts, and the columns of your table with fuse (--fuse)."
)
NOT_WITH = (
    "fuse reads columns of a table beside each picture or text, and goes with no {names}; leave out one of the two"
)
NO_INPUT = (
    "fuse needs pictures or texts, beside which the columns are read, and this run has features alone; give the "
    "columns as features (--features), or name the column of pictures or texts"
)


def check_fused(spec: FinetuneSpec) -> None:
    """Refuse, before anything is loaded, what a run that reads columns beside its inputs cannot do.

    Args:
        spec: of the run.

    Raises:
        InvalidConfigError: naming the options.
    """
    if spec.fuse is None:
        return
    if not spec.fuse:
        raise InvalidConfigError("fuse names no column; give at least one, or leave it out")
    given = [name for name in ("streaming", "unlabelled", "trust_remote_code") if getattr(spec, name)]
    given += [f"quantization={spec.quantization}"] if spec.quantization != "none" else []
    given += [f"model={spec.model}"] if spec.model in ENCODERS else []
    if given:
        raise InvalidConfigError(NOT_WITH.format(names=" and no ".join(given)))


def fused_columns(spec: FinetuneSpec, train: Dataset, modality: str) -> TableEncoding | None:
    """How the columns that a run reads beside its inputs are encoded; None where it reads none.

    Args:
        spec: of the run.
        train: training split.
        modality: of the inputs.

    Raises:
        InvalidInputError: as `TableEncoding.learn`, or there are no pictures or texts.
    """
    if spec.fuse is None:
        return None
    if modality == "features":
        raise InvalidInputError(NO_INPUT)
    return TableEncoding.learn(train, spec.fuse)


def fused_model(
    name: str, spec: FinetuneSpec, train: Dataset, modality: str, encoding: TableEncoding, processor: Any = None
) -> FusedClassifier:
    """A classifier of pictures or texts with columns of a table, scaled by training examples.

    Args:
        name: of the encoder of pictures or texts.
        spec: of the run.
        train: training split.
        modality: `"image"` or `"text"`.
        encoding: of the columns.
        processor: image processor or tokenizer, in place of the one that belongs to the encoder.

    Raises:
        ModelNotFoundError: there is no such encoder.
        InvalidConfigError: it is a `FusedClassifier` itself.
    """
    encoder = load_transformers(resolve_model(name), revision=spec.revision, kwargs={}).to(torch.float32)
    if isinstance(encoder, FusedClassifier):
        raise InvalidConfigError(FUSED_ALREADY.format(model=name))
    processor = processor or load_processor(name, modality=modality, revision=spec.revision)
    encode = make_encoder(processor, modality, max_length=spec.max_length, model=encoder)
    # Rows of all the split: its beginning may be one class alone.
    rows = train.select(np.unique(np.linspace(0, len(train) - 1, SCALED_BY).round().astype(int)))
    some = PreparedDataset(rows, encode, CACHE_BYTES, modality, split="train", beside=encoding.encode(rows))
    parts = [some.batch(start, min(start + 64, len(some))) for start in range(0, len(some), 64)]
    examples = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return FusedClassifier.for_examples(encoder, examples, label_names(train))  # type: ignore[arg-type] # any module


def describe_fused(encoding: TableEncoding, model: PeftModel, basis: Tensor) -> dict[str, Any]:
    """What a model reads beside its inputs, and how much of what was found lies there, for `summary.json`.

    Args:
        encoding: of the columns.
        model: after training.
        basis: of the spurious directions in the joined latents, `(dim, r)`.

    Returns:
        `columns`, as `TableEncoding.to_dict`; `features`, what each of them is; `in_table`, of each spurious direction
        the share that lies in the latents of the table, None where the head reads further layers.
    """
    base = model.get_base_model()
    assert isinstance(base, FusedClassifier)  # noqa: S101 - `fused_model` made it
    shares = base.blocks.shares(basis.T.cpu())[:, 1].tolist() if len(basis) == base.blocks.dim else None
    return {"columns": encoding.to_dict(), "features": encoding.features, "in_table": shares}
