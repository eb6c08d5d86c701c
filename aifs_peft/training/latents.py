"""Latents seen in training: kept without another pass of the encoder, gathered over processes, resumable."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from aifs_peft.errors import CheckpointMismatchError, NonFiniteError
from aifs_peft.methods import Latents, Regions
from aifs_peft.training.processes import Processes
from aifs_peft.training.rng import private_generator

# One per process, in checkpoints of mid-epoch: the latents of the half epoch.
LATENTS_FILES = "aifs_latents_*.safetensors"


class LatentStore:
    """Detached latents of this process's examples of one epoch.

    Which examples are kept is a function of the seed, so all processes and resumed runs agree on it.

    Args:
        total: size of the training set.
        samples: how many examples to keep at most; None keeps all.
        seed: of the choice.

    Example:
        >>> store = LatentStore(total=4, samples=None, seed=0)
        >>> store.add(torch.tensor([2, 0]), torch.zeros(2, 3), torch.tensor([1, 0]), step=0)
        >>> len(store)
        2
    """

    def __init__(self, total: int, samples: int | None, seed: int) -> None:
        self.total = total
        self._wanted: Tensor | None = None
        if samples is not None and samples < total:
            self._wanted = torch.zeros(total, dtype=torch.bool)
            self._wanted[torch.randperm(total, generator=private_generator(seed, total))[:samples]] = True
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def add(self, index: Tensor, z: Tensor, labels: Tensor, step: int) -> None:
        """Keep the latents of one batch.

        Args:
            index: `(batch,)` positions in the training set.
            z: `(batch, dim)`; detached and copied here.
            labels: `(batch,)` int64.
            step: optimizer steps so far; of an example seen twice the later latent counts.
        """
        index, labels = index.cpu(), labels.detach().cpu()
        z = z.detach().to("cpu", torch.float32, copy=True)
        if self._wanted is not None:
            keep = self._wanted[index]
            index, z, labels = index[keep], z[keep], labels[keep]
        if len(index):
            self._parts.append((index, z, labels, torch.full_like(index, step)))

    def clear(self) -> None:
        """Forget everything, at the start of an epoch."""
        self._parts.clear()

    def gather(self, processes: Processes, dim: int, what: str = "training") -> Latents:
        """The latents of all processes, each example once, ordered by example; the same on every process.

        Args:
            processes: that hold the others.
            dim: width of the latents, for a process that holds none.
            what: set they are of, for messages.

        Raises:
            NonFiniteError: if a latent is NaN or infinite.
        """
        index, z, labels, step = (processes.gather_rows(part) for part in self._concatenate(dim))
        # Examples repeated by padding or balanced sampling: the last one wins, on every process the same.
        order = torch.argsort(index * (int(step.max()) + 1 if len(step) else 1) + step, stable=True)
        index, z, labels = index[order], z[order], labels[order]
        last = torch.ones(len(index), dtype=torch.bool)
        last[:-1] = index[1:] != index[:-1]
        latents = Latents(z[last], labels[last], index[last], self.total)
        bad = ~latents.z.isfinite().all(1)
        if bool(bad.any()):
            raise NonFiniteError(
                f"latents of {int(bad.sum())} of {len(bad)} examples are NaN or infinite (first: example "
                f"{int(latents.index[bad][0])} of the {what} set); check its input values and the encoder's weights"
            )
        return latents

    def save(self, folder: Path, rank: int) -> None:
        """Write what this process holds into a checkpoint of mid-epoch; at an epoch's end there is nothing.

        Args:
            folder: of the checkpoint.
            rank: of this process.
        """
        if not len(self):
            return
        index, z, labels, step = self._concatenate(0)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"index": index, "z": z, "labels": labels, "step": step}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            folder / LATENTS_FILES.replace("*", str(rank)),
        )

    def load(self, folder: Path, processes: Processes) -> None:
        """Take this process's share of what all processes had saved; their number may have changed.

        Args:
            folder: of the checkpoint.
            processes: of this run.

        Raises:
            CheckpointMismatchError: if there is no such file, or it belongs to another training set.
        """
        files = sorted(folder.glob(LATENTS_FILES), key=lambda file: int(file.stem.rpartition("_")[2]))
        if not files:
            raise CheckpointMismatchError(
                f"{folder} is a checkpoint in mid-epoch without {LATENTS_FILES}: the latents of its half epoch are "
                "gone, so the mask would not be the one of an uninterrupted run; resume from a checkpoint at an "
                "epoch's end"
            )
        saved = []
        for file in files:
            content = load_file(file)
            if len(content["index"]) and int(content["index"].max()) >= self.total:
                raise CheckpointMismatchError(
                    f"{file.name} holds latents of example {int(content['index'].max())}, the training set has "
                    f"{self.total}; resume with the training set the run was started with"
                )
            saved.append([content[name] for name in ("index", "z", "labels", "step")])
        columns = [torch.cat(column) for column in zip(*saved, strict=True)]
        # In one piece: of an example that two processes saw in one step the later process's latent counts, as before.
        first, end = (len(columns[0]) * rank // processes.world_size for rank in (processes.rank, processes.rank + 1))
        self._parts = [(columns[0][first:end], columns[1][first:end], columns[2][first:end], columns[3][first:end])]

    def _concatenate(self, dim: int) -> tuple[Tensor, ...]:
        if self._parts:
            return tuple(torch.cat(columns) for columns in zip(*self._parts, strict=True))
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, torch.zeros(0, dim), empty, empty


class GivenLatents(LatentStore):
    """Latents that do not change while a head is trained on them: every epoch has the same ones.

    Args:
        latents: of the whole training set.

    Example:
        >>> everything = Latents(torch.zeros(2, 3), torch.tensor([0, 1]), torch.arange(2), total=2)
        >>> GivenLatents(everything).gather(Processes(), dim=3) is everything
        True
    """

    def __init__(self, latents: Latents) -> None:
        super().__init__(latents.total, None, seed=0)
        self._latents = latents

    def add(self, index: Tensor, z: Tensor, labels: Tensor, step: int) -> None:
        """Nothing to keep: they are all here."""

    def gather(self, processes: Processes, dim: int, what: str = "training") -> Latents:
        """The latents that were given."""
        del processes, dim, what
        return self._latents


class RegionStore:
    """Detached features of parts of this process's examples; texts of different length have different numbers."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, index: Tensor, z: Tensor, features: Tensor, present: Tensor, labels: Tensor) -> None:
        """Keep one batch.

        Args:
            index: `(batch,)` positions in the data set.
            z: `(batch, dim)`.
            features: `(batch, parts, dim)`.
            present: `(batch, parts)` bool.
            labels: `(batch,)` int64.
        """
        rows = (index, z.detach().float(), features.detach().float(), present, labels.detach())
        self._parts.append(tuple(part.cpu() for part in rows))  # type: ignore[arg-type]

    def gather(self, processes: Processes, dim: int) -> Regions:
        """The parts of all processes' examples, each example once, ordered by example; the same on every process.

        Args:
            processes: that hold the others.
            dim: width of the latents, for a process that holds none.

        Raises:
            NonFiniteError: if a feature is NaN or infinite.
        """
        most = max((part[3].shape[1] for part in self._parts), default=0)
        most = int(processes.gather_rows(torch.tensor([most])).max())
        none = torch.zeros(0, dtype=torch.int64)
        empty = (none, torch.zeros(0, dim), torch.zeros(0, 0, dim), torch.zeros(0, 0, dtype=torch.bool), none)
        widened = [
            (
                index,
                z,
                F.pad(features, (0, 0, 0, most - features.shape[1])),
                F.pad(present, (0, most - present.shape[1])),
                y,
            )
            for index, z, features, present, y in self._parts or [empty]
        ]
        columns = [processes.gather_rows(torch.cat(column)) for column in zip(*widened, strict=True)]
        order = torch.argsort(columns[0], stable=True)
        index = columns[0][order]
        first = torch.ones(len(index), dtype=torch.bool)
        first[1:] = index[1:] != index[:-1]
        index, z, features, present, labels = (column[order][first] for column in columns)
        if not bool(features.isfinite().all()):
            raise NonFiniteError(
                "token features are NaN or infinite; check the inputs, the encoder's weights and the learning rate"
            )
        return Regions(z, features, present, labels, index)
