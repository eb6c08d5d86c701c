"""AIFSState: sizes, precision, refusal of what does not fit."""

import copy

import pytest
import torch

from aifs_peft.errors import CheckpointMismatchError, InvalidInputError
from aifs_peft.latent.state import AIFSState

DTYPES = {
    "mask": torch.float32,
    "basis": torch.float32,
    "displacements": torch.float32,
    "class_displacements": torch.float32,
    "centre": torch.float32,
    "reader": torch.float32,
    "ema": torch.float64,
    "evidence": torch.float64,
    "groups": torch.int64,
    "weights": torch.float64,
    "memory": torch.float64,
    "num_updates": torch.int64,
}


def filled(d=5, r=2, n=7):
    state = AIFSState(d)
    state.update(
        mask=torch.linspace(0.1, 1 / 3, r),
        basis=torch.eye(d)[:, :r],
        displacements=torch.full((3, d), 1 / 3),
        class_displacements=torch.full((3, d), 0.7),
        centre=torch.full((d,), 0.1),
        reader=torch.full((3, d + 1), 0.9),
        ema=torch.full((d,), 1e-30, dtype=torch.float64),
        groups=torch.arange(n) % 3,
        evidence=1 / 3,
    )
    return state


def same(a, b):
    return all(torch.equal(getattr(a, k), getattr(b, k)) and getattr(b, k).dtype == d for k, d in DTYPES.items())


def test_a_new_state_intervenes_nowhere_and_is_all_persistent():
    state = AIFSState(4)
    assert set(state.state_dict()) == set(DTYPES)
    assert not state.mask.any()
    assert not state.has_basis
    assert int(state.num_updates) == 0


@pytest.mark.parametrize(
    "move",
    [
        lambda s: s.half(),
        lambda s: s.to(torch.bfloat16),
        lambda s: s.double(),
        lambda s: torch.nn.Sequential(s).half()[0],
        copy.deepcopy,
    ],
)
def test_precision_survives(move):
    assert same(filled(), move(filled()))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("cast", [None, torch.float16])
def test_loading_takes_any_saved_size_and_keeps_precision(assign, cast):
    saved = filled().state_dict()
    if cast is not None:
        saved["mask"] = saved["mask"].to(cast)
    state = AIFSState(5)
    state.load_state_dict(saved, assign=assign)
    expected = filled()
    expected.mask = expected.mask.to(cast or torch.float32).float()
    assert same(expected, state)
    assert state.shapes["basis"] == [5, 2]
    state.load_state_dict(AIFSState(5).state_dict(), assign=assign)
    assert same(AIFSState(5), state)


def test_meta_device_and_back():
    state = filled().to("meta")
    assert state.mask.is_meta
    assert state.ema.dtype == torch.float64
    state = state.to_empty(device="cpu")
    state.load_state_dict(filled().state_dict())
    assert same(filled(), state)


def test_sizes_are_shared_with_the_configuration():
    shapes = {}
    state = AIFSState(5, shapes)
    state.update(displacements=torch.zeros(4, 5))
    assert shapes["displacements"] == [4, 5]
    assert AIFSState(5, shapes).displacements.shape == (4, 5)
    assert AIFSState(6, shapes).displacements.shape == (0, 6)  # of another latent: ignored


def test_updates_are_counted_and_copied():
    mask = torch.ones(5)
    state = AIFSState(5)
    state.update(mask=mask)
    mask.zero_()
    assert state.mask.all()
    state.update(count=False, ema=torch.zeros(5))
    assert int(state.num_updates) == 1
    state.update(num_updates=7)
    assert int(state.num_updates) == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"maks": [1.0]}, r"unknown state \['maks'\]; known: \['basis'"),
        ({"mask": torch.ones(4)}, r"mask must have shape \(5,\)"),
        ({"mask": torch.full((5,), 1.5)}, r"mask must lie in \[0, 1\], got \[1.5, 1.5\]"),
        ({"mask": torch.full((5,), float("nan"))}, "mask holds NaN or infinite"),
        ({"basis": torch.ones(4, 2)}, r"basis must have shape \(5, r\), got \(4, 2\)"),
        ({"displacements": torch.ones(5)}, r"displacements must have shape \(values, 5\)"),
        ({"centre": torch.ones(4)}, r"centre must have shape \(5,\) or \(0,\), got \(4,\)"),
        ({"reader": torch.ones(2, 5)}, r"reader must have shape \(values, 6\), got \(2, 5\)"),
        ({"ema": torch.ones(3)}, r"ema must have shape \(5,\)"),
        ({"groups": torch.ones(2, 2)}, r"groups must have shape \(n,\)"),
        ({"num_updates": torch.ones(2)}, "num_updates must be a scalar"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(values, message):
    state = AIFSState(5)
    with pytest.raises(InvalidInputError, match=message):
        state.update(evidence=[3.0], **values)
    assert same(AIFSState(5), state)


def test_a_checkpoint_of_another_latent_is_refused():
    with pytest.raises(CheckpointMismatchError, match=r"belongs to another head: basis must have shape \(6, r\)"):
        AIFSState(6).load_state_dict(filled(5).state_dict())


def test_a_state_that_has_learnt_nothing_is_saved_by_safetensors(tmp_path):
    from safetensors.torch import load_model, save_model

    state = AIFSState(5)
    save_model(state, str(tmp_path / "state.safetensors"))
    other = AIFSState(5)
    other.update(mask=torch.ones(5), ema=torch.ones(5))
    load_model(other, str(tmp_path / "state.safetensors"))
    assert not other.mask.any()
    assert not other.ema.any()
    state.update(mask=torch.ones(5))
    assert state.state_dict()["mask"].data_ptr() == state.mask.data_ptr()  # what has memory is not copied
