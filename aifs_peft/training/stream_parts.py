"""What one process reads of a stream: its part of every training batch, or of the examples that are encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset

from aifs_peft.methods import Method, Sampling
from aifs_peft.training.batches import INDEX
from aifs_peft.training.processes import Processes
from aifs_peft.training.rng import private_generator
from aifs_peft.training.streams import Stream, refused_draws


class TrainingPart(IterableDataset[dict[str, Any]]):
    """What one process trains on in an epoch: its part of every batch of the stream, in the stream's order or shuffled.

    Every process reads the whole stream. Of each `batch_size * world_size` examples that follow one another the first
    process takes the first `batch_size`, and so on; the last ones are filled up from the beginning, as Accelerate does.

    Args:
        stream: that is trained on.
        batch_size: examples per process and forward pass.
        processes: of the run.
        buffer: examples that are held to be shuffled; 0 keeps the order.
        order_seed: of the shuffling.
        drop_last: whether the last, incomplete batch of all processes is left out.

    Example:
        >>> class Numbers(IterableDataset):
        ...     def __iter__(self):
        ...         return iter([{"x": i, "label": i % 2} for i in range(6)])
        >>> part = TrainingPart(Stream(Numbers()), batch_size=2, processes=Processes(rank=1, world_size=2))
        >>> [example["x"] for example in part], len(part)
        ([2, 3, 0, 1], 4)
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        processes: Processes,
        *,
        buffer: int = 0,
        order_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.stream, self.batch_size, self.drop_last = stream, batch_size, drop_last
        self.rank, self.world_size = processes.rank, processes.world_size
        self.buffer, self.order_seed = buffer, order_seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that live on

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; called by the training loop."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        whole = self.batch_size * self.world_size
        if self.world_size == 1:
            return len(self.stream) // whole * whole if self.drop_last else len(self.stream)
        blocks = len(self.stream) // whole if self.drop_last else -(-len(self.stream) // whole)
        return blocks * self.batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch = int(self._epoch)
        examples = self.stream.examples(epoch)
        if self.buffer > 1:
            examples = shuffled(examples, self.buffer, private_generator(self.order_seed, epoch))
        whole = self.batch_size * self.world_size
        begin, beginning = self.rank * self.batch_size, list[dict[str, Any]]()
        while block := list(islice(examples, whole)):
            beginning = beginning or block
            if len(block) < whole:
                if self.drop_last:
                    return
                if self.world_size > 1:
                    block = (block + beginning * whole)[:whole]
            yield from block[begin : begin + self.batch_size]


def shuffled(examples: Iterable[Any], size: int, generator: torch.Generator) -> Iterator[Any]:
    """Examples in a random order, as far as a buffer allows.

    Args:
        examples: any.
        size: of the buffer; an example comes at most that many places earlier than in the stream.
        generator: of the order.

    Example:
        >>> sorted(shuffled(range(5), 3, torch.Generator().manual_seed(0)))
        [0, 1, 2, 3, 4]
    """
    held: list[Any] = []
    for example in examples:
        if len(held) < size:
            held.append(example)
            continue
        chosen = int(torch.randint(size, (), generator=generator))
        yield held[chosen]
        held[chosen] = example
    for place in torch.randperm(len(held), generator=generator).tolist():
        yield held[place]


class EncodingPart(IterableDataset[dict[str, Any]]):
    """Chosen examples of a stream for one process, in whole batches: every `world_size`-th.

    Args:
        stream: that is read.
        positions: of the examples, increasing.
        batch_size: examples per forward pass.
        processes: that share the batches; one alone takes all.
        even: whether all get as many batches, the first one again where some would have fewer.

    Example:
        >>> class Numbers(IterableDataset):
        ...     def __iter__(self):
        ...         return iter([{"x": i, "label": i % 2} for i in range(6)])
        >>> second = Processes(rank=1, world_size=2)
        >>> [example["x"] for example in EncodingPart(Stream(Numbers()), range(6), 2, second, even=True)]
        [2, 3, 0, 1]
    """

    def __init__(
        self, stream: Stream, positions: Sequence[int], batch_size: int, processes: Processes, *, even: bool = False
    ) -> None:
        self.stream, self.positions, self.batch_size, self.even = stream, positions, batch_size, even
        self.rank, self.world_size = processes.rank, processes.world_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        wanted = {position: place for place, position in enumerate(self.positions)}
        if not wanted:
            return
        last, beginning = max(wanted), list[dict[str, Any]]()
        for example in self.stream.examples(augmented=False):
            position = int(example[INDEX])
            place = wanted.get(position)
            if place is not None and self.even and place < self.batch_size:
                beginning.append(example)
            if place is not None and place // self.batch_size % self.world_size == self.rank:
                yield example
            if position == last:
                break
        batches = -(-len(wanted) // self.batch_size)
        if self.even and self.rank >= batches % self.world_size > 0:
            yield from beginning


class StreamOrder:
    """Stands where `EpochSampler` does: tells the loader's part of a stream its epoch.

    Args:
        method: that is trained with.
        plan: called for each epoch with the number of epochs completed, see `Method.sampling`.
    """

    def __init__(self, method: Method, plan: Callable[[int], Sampling | None]) -> None:
        self.method, self.plan = method, plan
        self.part: TrainingPart | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; called by the training loop.

        Raises:
            InvalidConfigError: if the method wants examples in another order than they come in.
        """
        if self.part is not None:
            self.part.set_epoch(epoch)
        if self.plan(epoch) is not None:
            raise refused_draws(self.method)
