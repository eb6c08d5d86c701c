"""Cut train, validation and test from rows: by cell, at random, or with a test of equal cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.notes import listed, tell
from aifs_peft.data.own.prepare import Own
from aifs_peft.data.sampling import check_share
from aifs_peft.errors import InvalidInputError

SHARE = 0.2
"""Share of the test where nothing else is said."""
ORDER = ("train", "validation", "test")
SMALL_CELL = 10
"""A test cell with fewer examples than this is told: its accuracy is known to no better than some ten points."""
BALANCED = "balanced"
CUTS = ("stratified", "random", "none")
"""How splits are made that are not given: by cell, whatever the cells, or not at all."""


def check_shares(validation: float, test: float | str) -> None:
    """Check the shares of a cut.

    Raises:
        InvalidInputError: a share that is not in (0, 1), both together 1 or more, or another word than "balanced".
    """
    if isinstance(test, str) and test != BALANCED:
        raise InvalidInputError(f'test_share must be a share in (0, 1) or "{BALANCED}"; got {test!r}')
    shares = [check_share("validation_share", validation)]
    if not isinstance(test, str):
        shares.append(check_share("test_share", test))
    if min(shares) <= 0 or sum(shares) >= 1:
        raise InvalidInputError(
            f"validation_share and test_share must be positive and leave rows to train on; got {validation}, {test}"
        )


def cut(cells: NDArray[np.int64], share: float, rng: np.random.Generator, *, stratified: bool) -> NDArray[np.bool_]:
    """Choose a share of rows.

    Args:
        cells: cell (label x attribute, or class) per row, shape `(n,)`, from 0.
        share: share to choose, in (0, 1).
        rng: decides which rows.
        stratified: the same share of every cell, and at least one row of each that has two or more.

    Returns:
        Boolean, shape `(n,)`.

    Example:
        >>> cells = np.array([0] * 17 + [1] * 3)
        >>> chosen = cut(cells, 0.1, np.random.default_rng(0), stratified=True)
        >>> np.bincount(cells[chosen]).tolist()
        [2, 1]
    """
    chosen = np.zeros(len(cells), dtype=bool)
    if not stratified:
        chosen[rng.permutation(len(cells))[: max(1, round(share * len(cells)))]] = True
        return chosen
    for cell in np.unique(cells):
        rows = rng.permutation(np.flatnonzero(cells == cell))
        number = round(share * len(rows))
        chosen[rows[: max(number, 1) if len(rows) > 1 else number]] = True
    return chosen


def cut_equal(cells: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose equally many rows of every cell: about a share of all, at most half of the smallest cell.

    Args:
        cells: cell per row, shape `(n,)`; negative ones (a missing attribute) are never chosen.
        share: of all rows, in (0, 1), as far as the smallest cell allows.
        rng: decides which rows.

    Returns:
        Boolean, shape `(n,)`.

    Raises:
        InvalidInputError: a cell has one row only, which cannot be in test and train.

    Example:
        >>> cells = np.repeat([0, 1, 2, 3], [40, 6, 6, 40])
        >>> np.bincount(cells[cut_equal(cells, 0.2, np.random.default_rng(0))]).tolist()
        [3, 3, 3, 3]
    """
    found, counts = np.unique(cells[cells >= 0], return_counts=True)
    if not len(found) or counts.min() < 2:
        lonely = found[counts < 2].tolist()
        raise InvalidInputError(
            f"a balanced test needs two rows in every cell; {len(lonely)} of {len(found)} cells have one: add rows, or "
            "give test_share a number"
        )
    number = max(1, min(round(share * len(cells) / len(found)), int(counts.min()) // 2))
    chosen = np.zeros(len(cells), dtype=bool)
    for cell in found:
        chosen[rng.permutation(np.flatnonzero(cells == cell))[:number]] = True
    return chosen


def split_rows(own: Own, how: str, validation: float, test: float | str, rng: np.random.Generator) -> NDArray[np.str_]:
    """The split of every row: as given, and cut from train where one is missing.

    Args:
        own: checked rows.
        how: one of `CUTS`.
        validation: share of validation, of the rows that are not in the test.
        test: share of the test, or "balanced".
        rng: decides which rows are cut.

    Returns:
        Names of splits, `(n,)`.

    Raises:
        InvalidInputError: there is no train, or a class has too few examples to be in every split.
    """
    parts = np.full(len(own.rows), ORDER[0], dtype=object) if own.given is None else own.given.astype(object)
    if how == "none":
        return parts.astype(str)
    if not (parts == "train").any():
        raise InvalidInputError(f"{own.rows.where} has the splits {sorted(set(parts))}; needed is at least train")
    absent = [name for name in ORDER[:0:-1] if not (parts == name).any()]
    if test == BALANCED and "test" not in absent:
        tell(f'{own.rows.where}: test_share="balanced" changes nothing, because the test split is given')
    strata, pool = own.strata(), parts == "train"
    if absent and how == CUTS[0]:
        _check_classes(own, pool, absent)
    for name in absent:
        index = np.flatnonzero(parts == "train")
        if name == "test" and test == BALANCED:
            chosen = cut_equal(np.where(own.known(), strata, -1)[index], SHARE, rng)
        else:
            share = validation if name == "validation" else float(test)
            chosen = cut(strata[index], share, rng, stratified=how == CUTS[0])
        if not chosen.any():
            raise InvalidInputError(
                f"{own.rows.where}: no cell of {len(np.unique(strata))} among {len(own.rows)} rows has two examples, "
                f"so that none can be held out for {name}: the attribute has about one value per row. Give a column "
                'with a few values, or cut by split="random"'
            )
        parts[index[chosen]] = name
    return parts.astype(str)


def _check_classes(own: Own, pool: NDArray[np.bool_], absent: list[str]) -> None:
    """A class with too few examples cannot be in every split."""
    needed = len(absent) + 1
    counts = np.bincount(own.label.ids[pool], minlength=len(own.label.names))
    small = [number for number in np.flatnonzero(counts < needed).tolist() if counts[number]]
    if small:
        named = [f"{own.label.names[n]!r} ({counts[n]}, {own.rows.at(pool & (own.label.ids == n))})" for n in small]
        raise InvalidInputError(
            f"{own.rows.where}: classes with fewer than {needed} examples cannot be in train, {' and '.join(absent)}: "
            f'{listed(named)}; add examples, leave the class out or join it with another, or cut by split="random"'
        )


def tell_small(own: Own, parts: NDArray[np.str_], test: float | str) -> None:
    """Test cells whose accuracy means little, and classes that train lacks.

    Args:
        own: checked rows.
        parts: the split of every row.
        test: share of the test, or "balanced".
    """
    seen = set(own.label.ids[parts == "train"].tolist())
    unseen = [own.label.names[n] for n in sorted(set(own.label.ids.tolist()) - seen)]
    if unseen:
        tell(
            f"{own.rows.where}: train has no example of {listed(unseen)}, which other splits have: what is not there "
            "cannot be learnt"
        )
    if own.other is None or not (parts == "test").any():
        return
    names = own.other.names if own.spec is None else own.spec.names
    groups = np.asarray(own.dataset.with_format("numpy", columns=["group"])["group"][:])
    counts = np.bincount(groups[(parts == "test") & (groups >= 0)], minlength=len(names))
    small = [f"{name}: {count}" for name, count in zip(names, counts.tolist(), strict=True) if count < SMALL_CELL]
    if small:
        cuts = own.given is None or not (own.given == "test").any()
        larger = 'cut a larger test (test_share), an even one (test_share="balanced"), or find'
        advice = larger if cuts and test != BALANCED else "find"
        tell(
            f"{own.rows.where}: {len(small)} of {len(names)} cells have fewer than {SMALL_CELL} test examples "
            f"({listed(small)}): their accuracy, and so the worst one, is known only roughly; {advice} more examples "
            "of these cells"
        )
