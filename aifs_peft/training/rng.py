"""Randomness that leaves everybody else's alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from aifs_peft.latent import sample_noise

_MASK = (1 << 64) - 1


def mix(*parts: int) -> int:
    """One well-spread seed from several small numbers (splitmix64 over each in turn).

    Args:
        *parts: integers; negative ones are taken modulo 2^64.

    Returns:
        An integer in [0, 2^63).

    Example:
        >>> mix(0, 1, 2) != mix(0, 2, 1), mix(1, 2) == mix(1, 2)
        (True, True)
    """
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def private_generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded by `mix(*parts)`.

    Example:
        >>> torch.equal(torch.rand(2, generator=private_generator(3)), torch.rand(2, generator=private_generator(3)))
        True
    """
    generator = torch.Generator()
    generator.manual_seed(mix(*parts))
    return generator


class ExampleNoise:
    """Noise that depends on (seed, step, example) alone, not on how examples were put into batches.

    So gradient accumulation and several processes see the noise that one large batch would see.

    Args:
        seed: of the run.
        step: optimizer steps so far.
        index: `(batch,)` positions in the training set.

    Example:
        >>> whole = ExampleNoise(0, 5, torch.tensor([4, 7]))(3, "gaussian")
        >>> torch.equal(whole[1:], ExampleNoise(0, 5, torch.tensor([7]))(3, "gaussian"))
        True
    """

    def __init__(self, seed: int, step: int, index: Tensor) -> None:
        self.seed, self.step, self.index = seed, step, index

    def __call__(self, width: int, kind: str) -> Tensor:
        """Noise `(batch, width)` float32 on the CPU of the kind that `sample_noise` knows."""
        generator = torch.Generator()
        rows = []
        for example in self.index.tolist():
            generator.manual_seed(mix(self.seed, self.step, example))
            rows.append(sample_noise((1, width), kind, generator=generator))
        return torch.cat(rows)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Run a block under its own seed and put the generators of python, numpy and torch back afterwards.

    An extra pass over data draws from the global generators (a `DataLoader` iterator does at its creation), which
    would shift dropout and shuffling of the training that goes on after it.

    Args:
        seed: for the block, at least 0.

    Example:
        >>> before = torch.random.get_rng_state()
        >>> with isolated_rng(0):
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.random.get_rng_state())
        True
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is saved
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - what datasets and collators draw from
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
