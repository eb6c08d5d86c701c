"""Random numbers that leave everybody else's alone: private generators, and noise that belongs to an example."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft.latent.noise import on_sphere

Words = NDArray[np.uint64]

# The constants of SplitMix64 (Steele, Lea and Flood 2014), whose output passes TestU01's BigCrush.
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def mix(*parts: int) -> int:
    """One well-spread seed from several small numbers (SplitMix64 over each in turn).

    Args:
        *parts: integers; negative ones are taken modulo 2^64.

    Returns:
        An integer in [0, 2^63).

    Example:
        >>> mix(0, 1, 2) != mix(0, 2, 1), mix(1, 2) == mix(1, 2)
        (True, True)
    """
    state = _GAMMA
    for part in parts:
        state = (state + part + _GAMMA) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
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
    """Noise that belongs to a draw of an example: a function of (seed, step, example, occurrence) and nothing else.

    A counter-based generator: each number is a hash (SplitMix64) of what it belongs to, so there is no state to keep,
    and a whole batch is one vectorised expression. What is promised, bit for bit on one machine:

    - A row does not depend on the other rows. Gradient accumulation, several processes and another order of the batch
      give the noise that one large batch gives.
    - A resumed run repeats the noise of the uninterrupted one.
    - Two draws of the same example in one epoch get independent noise: they differ in their occurrence. (The copies
      that fill up the last batch of several processes are no draws of the sampler; they repeat the noise of the draw
      that they copy.)
    - "gaussian" noise of width m is the beginning of the same noise at any greater width.

    Args:
        seed: of the run.
        step: optimizer steps so far.
        index: `(batch,)` positions in the training set.
        occurrence: `(batch,)` how often the example was drawn before in this epoch, see `EpochSampler`; None means
            that each example is drawn for the first time.

    Example:
        >>> whole = ExampleNoise(0, 5, torch.tensor([4, 7]))(3, "gaussian")
        >>> torch.equal(whole[1:], ExampleNoise(0, 5, torch.tensor([7]))(3, "gaussian"))
        True
    """

    def __init__(self, seed: int, step: int, index: Tensor, occurrence: Tensor | None = None) -> None:
        self._key = mix(seed, step)
        self._index, self._occurrence = index, occurrence

    def __call__(self, width: int, kind: str) -> Tensor:
        """Noise `(batch, width)`, float32 on the CPU.

        Args:
            width: numbers per example, at least 1.
            kind: "gaussian", "l1" or "l2", see `aifs_peft.latent.sample_noise`.

        Raises:
            InvalidConfigError: when `kind` is unknown.
        """
        rows = _scramble(np.uint64(self._key) + _unsigned(self._index) + np.uint64(_GAMMA))
        if self._occurrence is not None:
            rows = rows + _unsigned(self._occurrence)
        rows = _scramble(rows + np.uint64(_GAMMA))
        draw = _laplace if kind == "l1" else _normal
        return on_sphere(torch.from_numpy(draw(rows, width)), kind)


def _unsigned(values: Tensor) -> Words:
    return values.detach().cpu().numpy().astype(np.uint64)


def _scramble(words: Words) -> Words:
    """The output function of SplitMix64; products wrap around at 2^64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
    return words ^ (words >> np.uint64(31))


def _words(rows: Words, count: int) -> Words:
    """The first `count` outputs of the SplitMix64 streams that begin at `rows` `(batch,)`: `(batch, count)`."""
    counter = np.arange(1, count + 1, dtype=np.uint64)
    return _scramble(rows[:, None] + counter * np.uint64(_GAMMA))


def _exponential(words: Words) -> NDArray[np.float32]:
    """Exponential numbers of the words' upper halves, never 0: a sphere needs a direction."""
    uniform = ((words >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
    return -np.log(uniform).astype(np.float32)


def _normal(rows: Words, width: int) -> NDArray[np.float32]:
    """Standard normal numbers `(batch, width)`: two of each word, by the transform of Box and Muller."""
    words = _words(rows, -(-width // 2))
    radius = np.sqrt(np.float32(2) * _exponential(words))
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float32) * np.float32(2 * np.pi * 2.0**-32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return np.ascontiguousarray(pairs.reshape(len(rows), -1)[:, :width])


def _laplace(rows: Words, width: int) -> NDArray[np.float32]:
    """Laplace numbers `(batch, width)`: an exponential size from a word's upper half, a sign from its lowest bit."""
    words = _words(rows, width)
    size = _exponential(words)
    return np.where((words & np.uint64(1)).astype(bool), size, -size)


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


@contextmanager
def seeded_reading(seed: int) -> Iterator[None]:
    """As `isolated_rng`, for reading an example: the generators of the CPU alone, which costs some microseconds.

    Args:
        seed: for the block, at least 0.

    Example:
        >>> with seeded_reading(1):
        ...     first = torch.rand(1)
        >>> with seeded_reading(1):
        ...     print(bool(torch.rand(1) == first))
        True
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is saved
    torch_state = torch.random.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - what data sets and collators draw from
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.random.set_rng_state(torch_state)
