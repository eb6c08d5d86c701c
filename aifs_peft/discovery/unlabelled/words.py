"""What became of unlabelled examples, as a number and as sentences that are true whatever was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aifs_peft.discovery.unlabelled.pool import UNLABELLED

if TYPE_CHECKING:
    from aifs_peft.discovery.result import Discovery


def rests_on_unlabelled(result: Discovery) -> float:
    """Share of the attributes found that unlabelled examples showed, in [0, 1]; 0 where nothing was found.

    Args:
        result: of `discover`.
    """
    parts = (result.parts_ or (result,)) if result.found else ()
    return sum(part.source_ == UNLABELLED for part in parts) / max(len(parts), 1)


def why_unused(result: Discovery) -> str:
    """Why unlabelled examples were not used, in words; empty where they were, or were not judged.

    Args:
        result: of `discover`.
    """
    verdicts = [candidate for candidate in result.candidates_ if candidate.source == UNLABELLED]
    if not verdicts or rests_on_unlabelled(result):
        return ""
    return "weaker than what was found" if verdicts[-1].accepted else verdicts[-1].reason


def unlabelled_sentences(n: int | None, rests_on: float | None, *, found: bool | None, why: str = "") -> str:
    """How many unlabelled examples were read, whether they were used, and whether what was found rests on them.

    Args:
        n: how many; None where that is not known.
        rests_on: see `rests_on_unlabelled`; None where no shortcut was looked for.
        found: whether a shortcut was found.
        why: they were not used, see `why_unused`.

    Example:
        >>> unlabelled_sentences(400, 1.0, found=True)
        '400 unlabelled examples were read and used: what was found rests on them.'
        >>> unlabelled_sentences(400, 0.0, found=False, why="no direction")
        '400 unlabelled examples were read and not used: no direction. With them nothing was found either.'
    """
    read = "Unlabelled examples were read" if n is None else f"{n:,} unlabelled examples were read"
    if rests_on is None:
        return f"{read}, and whether they were used was not recorded."
    if rests_on > 0:
        part = "what" if rests_on >= 1 else "part of what"
        return f"{read} and used: {part} was found rests on them."
    rest = "What was found does not rest on them." if found else "With them nothing was found either."
    return f"{read} and not used{f': {why}' if why else ''}. {rest}"
