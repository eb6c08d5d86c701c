"""The test split of a run after training: inferred attribute values, cells, and predictions with the value toggled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from aifs_peft.experiments.baseline import FROZEN, Plain
from aifs_peft.experiments.comparison import Cells, cells_of_classes, cells_of_groups, cells_of_inferred
from aifs_peft.experiments.highlighting import positions
from aifs_peft.experiments.latents import latents_of
from aifs_peft.experiments.prepare import label_names
from aifs_peft.experiments.streamed import Prepared
from aifs_peft.experiments.toggling import Attribute, LatentModel, toggle, values_of_audit
from aifs_peft.explain import infer_values
from aifs_peft.training.adapter import head_on_latents
from aifs_peft.tuner import initial_encoder

if TYPE_CHECKING:
    from aifs_peft.audit import Audit
    from aifs_peft.experiments.build import Assembled
    from aifs_peft.training import AIFSTrainer


def values_of_test(
    run: Assembled, before: Mapping[str, Tensor], audit: Audit | None, reader: Tensor | None
) -> Tensor | None:
    """Inferred attribute values of the test split, `(n,)`; None where nothing was found.

    What the audit discovered is in latents of the untuned encoder, what the run did in those of its own.

    Args:
        run: after training.
        before: latents of the untuned encoder, by split.
        audit: of the training set.
        reader: of what the audit found.
    """
    trainer, test = run.trainer, run.prepared["test"]
    state, num_labels = trainer.layer.state, len(label_names(run.splits["train"]))
    if audit is not None and reader is not None and len(reader):
        z = before.get("test")
        if z is None:
            with initial_encoder(trainer.adapted):
                z = _encoded(run, "test")
        read = infer_values(z, positions(audit, test.labels), reader).argmax(dim=1)
        values, number = values_of_audit(audit, read, num_labels)
        # Of several attributes the run may have looked for fewer than the audit, or for more.
        if not state.has_basis or number == len(state.displacements):
            return values
    if len(state.reader):
        z = before["test"] if run.encode_once else _encoded(run, "test")
        return infer_values(z, test.labels, state.reader).argmax(dim=1)
    return None


def _encoded(run: Assembled, split: str) -> Tensor:
    return latents_of(run.trainer.adapted, run.prepared[split], accelerator=run.trainer.accelerator)


def cells_of_test(run: Assembled, values: Tensor | None) -> Cells:
    """The cells of the test split: those the data set names, else those of what was inferred, else the classes.

    Args:
        run: after training.
        values: of `values_of_test`.
    """
    given = cells_of_groups(run.splits["test"], run.splits["train"])
    if given is not None:
        return given
    names, labels = label_names(run.splits["train"]), run.prepared["test"].labels.numpy()
    return cells_of_classes(labels, names) if values is None else cells_of_inferred(labels, values.numpy(), names)


def toggled_test(
    run: Assembled, before: Mapping[str, Tensor], plain: Plain, audit: Audit | None, values: Tensor | None
) -> dict[str, Any]:
    """The test predictions of the run, and of its plain counterpart, with the attribute toggled.

    Args:
        run: after training.
        before: latents of the untuned encoder, by split.
        plain: the counterpart.
        audit: of the training set.
        values: of `values_of_test`.
    """
    layer, names = run.trainer.layer, label_names(run.splits["train"])
    models = {"method": latent_model(run.trainer, run.prepared, before if run.encode_once else {})}
    if plain.model is not None:
        models["plain"] = plain.model
    attribute, known = None, {}
    if values is not None and layer.state.has_basis:
        attribute = Attribute(layer.state.groups.cpu(), values, len(layer.state.displacements))
        known = {"method": layer.state, **({"plain": layer.state} if plain.kind == FROZEN else {})}
    elif values is not None and audit is not None:
        train, number = values_of_audit(audit, audit.discovery.groups_, len(names))
        attribute = Attribute(train, values, number)
    labels = {split: part.labels for split, part in run.prepared.items()}
    return toggle(models, labels, attribute, names, run.modality, known=known, looked=audit is not None)


def latent_model(
    trainer: AIFSTrainer, prepared: Mapping[str, Prepared], kept: Mapping[str, Tensor] | None = None
) -> LatentModel:
    """The trained head of a run and the latents it reads.

    Args:
        trainer: of the run, after training.
        prepared: its splits.
        kept: latents that are there already, by split.
    """

    def latents(split: str) -> Tensor:
        if kept and split in kept:
            return kept[split]
        return latents_of(trainer.adapted, prepared[split], accelerator=trainer.accelerator)

    return LatentModel(head_on_latents(trainer.layer), latents)
