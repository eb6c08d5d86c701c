"""Do one run again, from what its result says, and tell whether it agrees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifs_peft.bench.choosing import Trial
from aifs_peft.bench.draws import load_draw
from aifs_peft.bench.experiment import data_entry_of, method_entry_of
from aifs_peft.bench.results import read_result, test_metrics
from aifs_peft.bench.running import fit_one
from aifs_peft.errors import InvalidInputError

COMPARED = ("worst_group_accuracy", "average_accuracy")
FAILED = (
    "{path} says that the method cannot be run on these data ({reason}), so there is nothing to compare; run the "
    "experiment to see whether it still cannot"
)


@dataclass(frozen=True)
class Compared:
    """One number, then and now.

    Args:
        name: a key of `group_metrics`.
        recorded: what the result says.
        interval: of it, for the size of the test set.
        now: what came out.
    """

    name: str
    recorded: float
    interval: tuple[float, float]
    now: float

    @property
    def agrees(self) -> bool:
        """Whether what came out lies in the interval."""
        return self.interval[0] <= self.now <= self.interval[1]


@dataclass(frozen=True)
class Reproduction:
    """A run done again.

    Args:
        path: of the result.
        numbers: that are compared.
        same_data: whether inputs, labels and groups are those of the result, bit for bit.
        changed: packages of other versions than the result's: name to (then, now).
    """

    path: Path
    numbers: tuple[Compared, ...]
    same_data: bool
    changed: dict[str, tuple[Any, Any]]

    @property
    def agrees(self) -> bool:
        """Whether the data are the same and every number lies in its interval."""
        return self.same_data and all(number.agrees for number in self.numbers)

    def describe(self) -> str:
        """Lines for people."""
        lines = [f"{self.path}: {'agrees' if self.agrees else 'does not agree'}"]
        for n in self.numbers:
            said = "in" if n.agrees else "outside"
            lines.append(
                f"  {n.name.replace('_', ' ')}: {n.recorded:.4f} then, {n.now:.4f} now, {said} "
                f"[{n.interval[0]:.4f}, {n.interval[1]:.4f}]"
            )
        lines.append(f"  data: {'the same' if self.same_data else 'not the same as then: another file or loader'}")
        if self.changed:
            told = ", ".join(f"{name} {then} then, {now} now" for name, (then, now) in sorted(self.changed.items()))
            lines.append(f"  versions: {told}")
        return "\n".join(lines)


def reproduce(path: str | Path, cache_dir: str | Path | None = None) -> Reproduction:
    """Do the run of a result again, with the setting that was chosen then; nothing is chosen anew.

    Args:
        path: of the result.
        cache_dir: folder that keeps latents; None keeps none.

    Raises:
        DataNotFoundError: no result, or its data are not there.
        InvalidInputError: no result of `aifs bench`, or one of a run that failed.
        AIFSError: what the fit raises.
    """
    from aifs_peft.experiments.provenance import provenance

    result = read_result(path)
    if result["failed"]:
        raise InvalidInputError(FAILED.format(path=path, reason=result["failed"]))
    data, entry = data_entry_of(result["asked"]["data"]), method_entry_of(result["asked"]["method"])
    draw = load_draw(data, int(result["seed"]), cache_dir)
    fitted = fit_one(result["regime"], data, entry, draw, result["chosen"])
    now, then = test_metrics(Trial(result["chosen"], fitted=fitted), draw), result["metrics"]
    numbers = tuple(
        Compared(name, then[name], (then[f"{name}_interval"][0], then[f"{name}_interval"][1]), now[name])
        for name in COMPARED
    )
    versions = provenance()["versions"]
    changed = {name: (old, versions.get(name)) for name, old in result["versions"].items() if versions.get(name) != old}
    return Reproduction(Path(path), numbers, draw.checksum == result["data_checksum"], changed)
