"""Contexts of one batch for tests of objectives."""

import torch

from aifs_peft.methods import EpochContext, StepContext
from aifs_peft.tuner import AIFSState


def step_context(head, labels, **options):
    """A `StepContext` whose examples are the first ones of the training set."""
    defaults = {
        "head": head,
        "state": AIFSState(3),
        "labels": labels,
        "index": torch.arange(len(labels)),
        "generator": torch.Generator().manual_seed(0),
        "draw": lambda width, kind: torch.ones(len(labels), width),
        "step": 0,
    }
    return StepContext(**{**defaults, **options})


def epoch_context(head, **options):
    """An `EpochContext` of a frozen encoder and two classes."""
    defaults = {"state": AIFSState(3), "num_labels": 2, "encoder_trains": False, "device": torch.device("cpu")}
    return EpochContext(head=head, **{**defaults, **options})
