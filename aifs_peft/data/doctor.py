"""Check a local copy of a data set: are its files there and the published ones, and what groups do they hold?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft.data import describe, group_array, group_spec, load
from aifs_peft.data.sources import DataCard, md5
from aifs_peft.errors import AIFSError, InvalidInputError

if TYPE_CHECKING:
    from datasets import DatasetDict

UNLIKE = 0.1
"""Share of examples that must lie in other groups before a validation split is called unlike training."""


@dataclass(frozen=True)
class DataReport:
    """What was found about a data set.

    Args:
        card: what it is, where it comes from and how it is laid out.
        table: counts per group and split, empty when it could not be loaded.
        problems: what must be mended, each with its remedy.
        notes: what one should know, such as checksums that agree and groups without examples.
    """

    card: DataCard
    table: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the set can be used as it is."""
        return not self.problems

    def __str__(self) -> str:
        parts = [str(self.card)]
        parts += [self.table] if self.table else []
        parts += ["\n".join([*(f"note: {n}" for n in self.notes), *(f"problem: {p}" for p in self.problems)])]
        return "\n\n".join(part for part in parts if part)


def check_data_set(name: str, data_dir: str | Path | None = None, **options: Any) -> DataReport:
    """Load a data set, count its groups, read a first and a last example, compare published checksums.

    Args:
        name: one of `aifs_peft.data.names()`.
        data_dir: folder of a local copy, as for `load`.
        **options: of that set.

    Returns:
        The report; a missing or wrong file is among its problems.

    Raises:
        InvalidInputError: an unknown name.

    Example:
        >>> report = check_data_set("spurious_scenes", n_train=40, n_validation=20, n_test=20, image_size=16)
        >>> report.ok, report.table.splitlines()[0].split()
        (True, ['group', 'train', 'validation', 'test'])
    """
    card = describe(name)
    problems, notes = _checksums(card, data_dir)
    try:
        data: Any = load(name, data_dir, **options)
        for split, part in data.items():
            _read_ends(split, part)
    except AIFSError as error:  # an example's picture is opened here for the first time, hence in the block
        return DataReport(card, "", (*problems, str(error)), tuple(notes))
    notes += _group_notes(data)
    return DataReport(card, group_spec(data).table(data), tuple(problems), tuple(notes))


def _checksums(card: DataCard, data_dir: str | Path | None) -> tuple[list[str], list[str]]:
    """Published MD5 of the files that are there: those that differ, and those that agree."""
    if not card.md5:
        return [], [] if data_dir is None else ["the source publishes no checksums; files are checked by their content"]
    differing, agreeing = [], []
    for file, expected in card.md5.items() if data_dir is not None else ():
        # The same sub-folders in which the loaders look.
        places = [Path(str(data_dir)) / folder / file for folder in (".", "celeba", "mnist")]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            continue
        found = md5(path)
        if found == expected:
            agreeing.append(f"{file}: MD5 agrees with the published one")
        else:
            differing.append(
                f"{path} has MD5 {found}, the published file has {expected}: it was changed or cut off; fetch it again "
                f"from {card.source}"
            )
    return differing, agreeing


def _read_ends(split: str, part: Any) -> None:
    """Decode the first and the last example of a split."""
    for index in {0, len(part) - 1}:
        try:
            part[index]
        except OSError as error:  # Pillow's UnidentifiedImageError is one
            raise InvalidInputError(
                f"example {index} of {split} cannot be read ({error}); fetch its file again"
            ) from error


def _group_notes(data: DatasetDict) -> list[str]:
    """Empty groups, and a validation split whose groups are not drawn like those of training."""
    spec = group_spec(data)
    counts = {split: spec.counts(group_array(part)) for split, part in data.items()}
    notes = [
        f"{split} has no example of {', '.join(n for n, c in zip(spec.names, found, strict=True) if c == 0)}"
        for split, found in counts.items()
        if (found == 0).any()
    ]
    if not spec.overlapping and {"train", "validation"} <= set(counts):
        shares = {split: counts[split] / counts[split].sum() for split in ("train", "validation")}
        apart = float(abs(shares["train"] - shares["validation"]).sum() / 2)
        if apart > UNLIKE:
            notes.append(
                f"validation is not drawn like train ({apart:.0%} of it lies in other groups): what is fitted or "
                "chosen on it learns about the groups"
            )
    return notes
