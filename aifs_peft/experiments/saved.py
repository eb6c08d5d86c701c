"""The folder of a run, read again: its model as it was trained, ready to predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from aifs_peft._checks import check_count
from aifs_peft._plain import plain
from aifs_peft._saved import read_object
from aifs_peft.errors import CheckpointMismatchError, DataNotFoundError, InvalidConfigError, InvalidInputError
from aifs_peft.experiments.columns import TableEncoding
from aifs_peft.experiments.comparison import cells_of_classes, cells_of_groups, cells_of_inferred, compare
from aifs_peft.experiments.evaluation import evaluate_groups
from aifs_peft.experiments.latents import latents_of
from aifs_peft.experiments.prepare import PreparedDataset, label_names, make_encoder
from aifs_peft.experiments.streamed import Prepared, PreparedStream
from aifs_peft.explain import infer_values
from aifs_peft.models.loading import load_model, load_processor
from aifs_peft.models.tabular import ENCODERS
from aifs_peft.tuner import AIFSConfig, find_aifs_layer

if TYPE_CHECKING:
    from datasets import Dataset

SUMMARY = "summary.json"
BASE_FOLDER = "base_model"
NO_RUN = "{folder} holds no {name}: it is no folder of a run. Give the folder that `aifs finetune --output-dir` wrote."
NOT_A_SUMMARY = "{file} is no summary of a run ({reason}); the file is damaged, or of an earlier release."
FUSED_STREAM = (
    "the model reads columns of a table beside its inputs, which a streamed training split does not give; leave "
    "streaming out, or evaluate the part validation or test"
)
OTHER_CLASSES = "the data have the classes {unknown}, which the model was not trained on: it knows {known}."
_NEEDED = ("model", "modality", "label_names", "spec", "method")
# Beyond any text; the tokenizer keeps it in 64 bits.
MOST_TOKENS = 2**31
_TEXT, _OBJECT = (str, NoneType), (dict, NoneType)
_KIND_NAMES = {_TEXT: "text or null", _OBJECT: "an object or null"}
# Of the spec, what is read to load the run and its data.
_SPEC_KINDS = {
    **dict.fromkeys(("revision", "quantization", "dataset", "data_dir"), _TEXT), "dataset_options": _OBJECT
}  # fmt: skip
OTHER_LABELS = "the adapter in {folder} knows the classes {adapter}, its summary.json {summary}; one is damaged."
NOT_AIFS = "the adapter in {folder} is of the kind {kind!r}, not an AIFS adapter; its adapter_config.json is damaged."


@dataclass(frozen=True)
class SavedRun:
    """A run's model, in evaluation mode.

    Args:
        folder: of the run.
        summary: its `summary.json`.
        model: base model and adapter.
        processor: of the base model; None for tables.
    """

    folder: Path
    summary: dict[str, Any]
    model: PeftModel
    processor: Any

    @property
    def fused(self) -> TableEncoding | None:
        """How the columns that the model reads beside its inputs are encoded; None where it reads none."""
        given = self.summary.get("fused")
        return TableEncoding.from_dict(given["columns"]) if given else None

    @property
    def label_names(self) -> list[str]:
        """The classes, in the order of the logits."""
        return [str(name) for name in self.summary["label_names"]]


def read_summary(folder: str | Path) -> dict[str, Any]:
    """The `summary.json` of a run.

    Args:
        folder: of the run.

    Raises:
        DataNotFoundError: there is none.
        InvalidInputError: it is damaged.
    """
    file = Path(folder) / SUMMARY
    if not file.is_file():
        raise DataNotFoundError(NO_RUN.format(folder=folder, name=SUMMARY))
    summary = read_object(file)
    missing = [name for name in _NEEDED if name not in summary]
    if missing:
        raise InvalidInputError(NOT_A_SUMMARY.format(file=file, reason=f"it lacks {', '.join(missing)}"))
    problem = _form_problem(summary)
    if problem:
        raise InvalidInputError(NOT_A_SUMMARY.format(file=file, reason=problem))
    return summary


def _form_problem(summary: dict[str, Any]) -> str | None:
    """The first value that no run writes, in words; None when there is none."""
    for name in ("model", "modality", "method"):
        if not isinstance(summary[name], str):
            return f"{name} must be text; got {summary[name]!r:.100}"
    for name in ("spec", "comparison"):
        if not isinstance(summary.get(name, {}), dict):
            return f"{name} must be an object; got {summary[name]!r:.100}"
    fused = summary.get("fused")
    if fused is not None and (not isinstance(fused, dict) or not isinstance(fused.get("columns"), list)):
        return f"fused must be null, or an object with a list of columns; got {fused!r:.100}"
    names = summary["label_names"]
    if not isinstance(names, list) or not all(isinstance(n, str | int | float) for n in names):
        return f"label_names must be a list of names; got {names!r:.100}"
    if len(names) < 2 or len({str(n) for n in names}) < len(names):
        return f"label_names must be at least two different names; got {names!r:.100}"
    spec = summary["spec"]
    try:
        check_count("max_length", spec.get("max_length", 1), 1, MOST_TOKENS)
        check_count("seed", summary.get("seed", 0), 0, 2**64)
    except InvalidConfigError as error:
        return str(error)
    for name, kinds in _SPEC_KINDS.items():
        if not isinstance(spec.get(name), kinds):
            return f"spec.{name} must be {_KIND_NAMES[kinds]}; got {spec[name]!r:.100}"
    return None


def load_run(folder: str | Path, *, trust_remote_code: bool = False, use_cpu: bool = False) -> SavedRun:
    """The model of a run.

    Args:
        folder: of the run.
        trust_remote_code: run model code from the Hub; never taken from the folder.
        use_cpu: leave an accelerator alone.

    Raises:
        DataNotFoundError: it is no folder of a run.
        InvalidInputError: its summary is damaged.
        ModelNotFoundError: the base model is neither local nor on the Hub.
        CheckpointMismatchError: the adapter is damaged, or belongs to another model.
    """
    path = Path(folder)
    summary = read_summary(path)
    if not (path / "adapter_config.json").is_file():
        raise DataNotFoundError(NO_RUN.format(folder=folder, name="adapter_config.json"))
    name, modality, spec = str(summary["model"]), str(summary["modality"]), summary["spec"]
    own = name in ENCODERS or bool(summary.get("fused"))
    base = load_model(
        str(path) if own else name, modality=modality, label_names=[str(n) for n in summary["label_names"]],
        revision=spec.get("revision"), trust_remote_code=trust_remote_code,
        quantization=spec.get("quantization", "none"), subfolder=BASE_FOLDER if own else "",
    )  # fmt: skip
    try:
        model = PeftModel.from_pretrained(base, str(path))
    except Exception as error:
        # Whatever PEFT, safetensors and torch raise over a damaged file: none of them says which kinds these are.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointMismatchError(f"the adapter in {folder} cannot be loaded onto {name!r}: {reason}") from error
    _check_adapter(model, path, summary)
    if torch.cuda.is_available() and not use_cpu:
        model = model.to("cuda")
    return SavedRun(path, summary, model.eval(), load_processor(name, modality=modality, revision=spec.get("revision")))


def _check_adapter(model: PeftModel, folder: Path, summary: dict[str, Any]) -> None:
    """Refuse an adapter of another kind, or of other classes than the summary says."""
    config = model.peft_config[model.active_adapter]
    if not isinstance(config, AIFSConfig):
        raise CheckpointMismatchError(NOT_AIFS.format(folder=folder, kind=str(config.peft_type)))
    names, layer = [str(name) for name in summary["label_names"]], find_aifs_layer(model)
    count = layer.aifs_spec[layer.adapter].num_labels
    known = [str(name) for name in config.labels or []]
    if known != names if known else count != len(names):
        told = OTHER_LABELS.format(folder=folder, adapter=known or f"({count} without names)", summary=names)
        raise CheckpointMismatchError(told)


def prepared(
    run: SavedRun, rows: Dataset, beside: Tensor | None = None, inputs: Callable[[], Iterator[list[Any]]] | None = None
) -> Prepared:
    """Rows as the model of a run takes them.

    Args:
        run: as loaded.
        rows: with the run's input column, and a label (any) each.
        beside: the columns that the model reads beside its inputs, encoded; None takes them from the rows.
        inputs: of rows that are streamed, see `PreparedStream`; None where the rows have them.

    Raises:
        InvalidInputError: rows that lack a column, or streamed ones for a model that reads columns beside them.
    """
    modality = str(run.summary["modality"])
    length = run.summary["spec"].get("max_length", 128)
    encode = make_encoder(run.processor, modality, max_length=length, model=run.model)
    if inputs is not None:
        if run.fused is not None:
            raise InvalidInputError(FUSED_STREAM)
        return PreparedStream(rows, inputs, encode, modality)
    if beside is None and run.fused is not None:
        beside = run.fused.encode(rows)
    return PreparedDataset(rows, encode, cache_bytes=0, column=modality, beside=beside)


@torch.no_grad()
def predict_logits(run: SavedRun, data: Prepared, batch_size: int = 64) -> NDArray[np.float64]:
    """Logits of every row, `(n, classes)`.

    Args:
        run: as loaded.
        data: see `prepared`.
        batch_size: rows per forward pass.
    """
    device = next(run.model.parameters()).device
    parts = []
    for start in range(0, len(data), batch_size):
        batch = data.batch(start, min(start + batch_size, len(data)))
        logits = run.model(**{name: value.to(device) for name, value in batch.items()}).logits
        parts.append(logits.double().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, len(run.label_names)))


def with_classes_of(run: SavedRun, rows: Dataset) -> Dataset:
    """The rows with labels numbered as in the run, by their names.

    Args:
        run: as loaded.
        rows: with a `label` column.

    Raises:
        InvalidInputError: the rows have a class that the run has not.
    """
    from datasets import ClassLabel

    names, known = label_names(rows), run.label_names
    occurring = sorted({names[label] for label in rows["label"][:]})
    unknown = [name for name in occurring if name not in known]
    if unknown:
        raise InvalidInputError(OTHER_CLASSES.format(unknown=unknown, known=known))
    if names == known:
        return rows
    # The `group` column stays: which attribute value a group number means does not depend on the order of classes.
    features = rows.features.copy()
    features["label"] = ClassLabel(names=known)
    place = {i: known.index(name) for i, name in enumerate(names) if name in known}
    return rows.map(lambda row: {"label": place[row["label"]]}, features=features)


def evaluate_run(
    run: SavedRun,
    rows: Dataset,
    *,
    n_boot: int = 0,
    batch_size: int = 64,
    inputs: Callable[[], Iterator[list[Any]]] | None = None,
) -> dict[str, Any]:
    """A run's model on labelled rows, group by group.

    Args:
        run: as loaded.
        rows: with the run's input column, a `label`, and where there is one a `group`.
        n_boot: bootstrap replicates for the intervals that have no exact form.
        batch_size: rows per forward pass.
        inputs: of rows that are streamed, see `PreparedStream`; None where the rows have them.

    Returns:
        `n`, `metrics` and `comparison`, as in `summary.json`; the latter without a plain side.

    Raises:
        InvalidInputError: the rows have a class that the run has not.
    """
    rows = with_classes_of(run, rows)
    data = prepared(run, rows, inputs=inputs)
    logits = predict_logits(run, data, batch_size)
    labels = data.labels.numpy()
    cells = cells_of_groups(rows, run.summary.get("comparison", {}).get("goes_with", {}))
    state = find_aifs_layer(run.model).state
    if cells is None and len(state.reader):
        z = latents_of(run.model, data, batch_size=batch_size)
        values = infer_values(z, data.labels, state.reader).argmax(dim=1)
        cells = cells_of_inferred(labels, values.numpy(), run.label_names)
    cells = cells or cells_of_classes(labels, run.label_names)
    metrics = evaluate_groups(rows, logits, n_boot, int(run.summary.get("seed", 0)))
    return dict(plain({"n": len(labels), "metrics": metrics, "comparison": compare(labels, logits, None, cells)}))


def predictions(run: SavedRun, inputs: Sequence[str], logits: NDArray[np.float64]) -> list[dict[str, Any]]:
    """One row per input: `input`, `prediction`, and the probability of each class as `p_<class>`.

    Args:
        run: as loaded.
        inputs: names of the inputs.
        logits: see `predict_logits`.
    """
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    shares = shifted / shifted.sum(axis=1, keepdims=True) if len(logits) else shifted
    names = run.label_names
    columns = [f"p_{name}" for name in names]
    return [
        {"input": name, "prediction": names[int(p.argmax())], **dict(zip(columns, p.tolist(), strict=True))}
        for name, p in zip(inputs, shares, strict=True)
    ]
