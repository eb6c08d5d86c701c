"""Buffers that no training makes are refused, on update and on loading, and a stated size takes no memory."""

import tracemalloc

import pytest
import torch

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError, InvalidInputError
from aifs_peft.latent.state import AIFSState
from aifs_peft.tuner import AIFSConfig


def good() -> AIFSState:
    state = AIFSState(3)
    state.update(
        mask=torch.ones(1),
        basis=torch.eye(3)[:, :1],
        displacements=torch.tensor([[-1.0, 0, 0], [1, 0, 0]]),
        class_displacements=torch.tensor([[0.0, -1, 0], [0, 1, 0]]),
        groups=torch.tensor([0, 1, 1]),
        weights=torch.ones(3),
        evidence=torch.tensor(5.0),
    )
    return state


DAMAGE = {
    "nan basis": ("basis", lambda v: v * float("nan"), "basis holds NaN"),
    "infinite displacement": ("displacements", lambda v: v / 0, "displacements holds NaN or infinite"),
    "nan evidence": ("evidence", lambda v: v * float("nan"), "evidence holds NaN"),
    "nan weight": ("weights", lambda v: v * float("nan"), "weights holds NaN"),
    "mask above one": ("mask", lambda v: v + 1, "mask must lie in"),
    "mask below zero": ("mask", lambda v: v - 2, "mask must lie in"),
    "basis of another length": ("basis", lambda v: 3 * v, "orthonormal"),
    "basis of zeros": ("basis", lambda v: 0 * v, "orthonormal"),
    "group -1": ("groups", lambda v: v - 2, r"groups must lie in 0\.\.1"),
    "group 2^62": ("groups", lambda v: v + 2**62, r"groups must lie in 0\.\.1"),
    "a group without a row": ("groups", lambda v: v + 1, r"groups must lie in 0\.\.1"),
    "three displacements of two classes": ("displacements", lambda v: torch.cat([v, v[:1]]), "power of 2 rows"),
    "negative updates": ("num_updates", lambda v: v - 5, "num_updates must be at least 0"),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE.values(), ids=list(DAMAGE))
def test_damaged_buffers_are_refused(name, damage, message):
    saved = good().state_dict()
    saved[name] = damage(saved[name])
    fresh = AIFSState(3)
    with pytest.raises(CheckpointMismatchError, match=message):
        fresh.load_state_dict(saved)
    assert not fresh.has_basis  # nothing of it was taken
    state = good()
    with pytest.raises(InvalidInputError, match=message):
        state.update(**{name: saved[name]})
    assert torch.equal(getattr(state, name), getattr(good(), name))


def test_what_was_saved_loads():
    fresh = AIFSState(3)
    fresh.load_state_dict(good().state_dict())
    for name, value in good().state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


def test_groups_without_displacements_are_codes_of_any_number():
    state = AIFSState(3)
    state.update(groups=torch.tensor([0, 700]))
    with pytest.raises(InvalidInputError, match="groups must lie in"):
        state.update(groups=torch.tensor([0, 2**62]))


def test_a_stated_size_takes_no_memory_before_it_is_loaded():
    tracemalloc.start()
    state = AIFSState(3, {"groups": [10**15], "basis": [3, 1], "mask": [1]})
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert state.groups.shape == (10**15,)  # of a tensor of that size, 8 petabytes
    state.load_state_dict(good().state_dict())
    assert torch.equal(state.groups, good().groups)
    state = AIFSState(3, good().shapes)  # sizes as saved: each buffer has memory of its own once it is loaded
    state.load_state_dict(good().state_dict())
    assert torch.equal(state.displacements, good().displacements)


@pytest.mark.parametrize(
    "shapes",
    [
        {"groups": [-1]},
        {"groups": "3"},
        {"groups": [1.5]},
        {"groups": None},
        [1],
        {"groups": [True]},
        {"mask": [2**70]},
    ],
)
def test_sizes_that_are_none_are_refused(shapes):
    with pytest.raises(InvalidConfigError, match="state_shapes must be"):
        AIFSConfig(state_shapes=shapes)


@pytest.mark.parametrize("field", ["num_labels", "top_k", "head_hidden"])
def test_absurd_sizes_are_refused(field):
    with pytest.raises(InvalidConfigError, match=f"{field} must be an integer from 1 to"):
        AIFSConfig(**{field: 10**18})
