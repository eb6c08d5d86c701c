"""The audit in words: its sentence, and a short text for terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from aifs_peft.discovery.gate import NO_CLASS
from aifs_peft.discovery.unlabelled.pool import UNLABELLED
from aifs_peft.discovery.unlabelled.words import rests_on_unlabelled, unlabelled_sentences, why_unused

if TYPE_CHECKING:
    import pandas as pd

    from aifs_peft.audit.result import Audit
    from aifs_peft.discovery import Discovery

WIDTH = 110
# Whatever is found, the text fits a terminal's page.
MAX_LINES = 24
SHOWN_CELLS, SHOWN_ROWS, SHOWN_COLUMNS, SHOWN_WORDS, SHOWN_NAME = 5, 5, 4, 5, 40


def audit_text(audit: Audit) -> str:
    """Everything important about an audit in under 25 lines.

    Args:
        audit: the audit.
    """
    looked = audit.looked_at
    head = f"Audit of {looked['n']:,} examples, {len(looked['classes'])} classes, {looked['d']:,} dimensions"
    lines = [head, *_wrap(audit.sentence)]
    if audit.found:
        lines += _found(audit)
    tested = len(looked["metadata"]["tested"])
    if tested or looked["metadata"]["skipped"]:
        lines += _metadata(audit)
    if not audit.found:
        lines += _wrap(looked["detectable_sentence"])
    for harm in (audit.harm, audit.model_harm):
        lines += _wrap(harm.sentence) if harm is not None else []
    for warning in looked["warnings"]:
        lines += _wrap(f"Note: {warning}")
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], "... (looked_at, groups, associations hold the rest)"]
    return "\n".join(lines)


def found_sentence(
    conflicting: int,
    n: int,
    noun: str,
    words: str,
    table: pd.DataFrame,
    names: pd.DataFrame | None,
    alike: pd.DataFrame | None = None,
) -> str:
    """What was found, for people.

    Args:
        conflicting: number of conflicting examples.
        n: number of examples.
        noun: what they are.
        words: evidence in words.
        table: associations.
        names: words, or `None`.
        alike: attributes that it looks like, or `None`.
    """
    text = (
        f"{conflicting:,} of {n:,} {noun} go against the shortcut: their latents carry what usually goes with another "
        f"class (evidence: {words})."
    )
    beyond = table[table["significant"]]
    if len(beyond):
        first = beyond.iloc[0]
        text += f" Of the metadata, {first['column']!r} goes with it most (association {first['strength']:.2f})."
    told = [] if names is None else names[names["significant"]]["word"].tolist()[:3]
    if told:
        text += f" Words that go with it: {', '.join(told)}."
    if alike is not None and len(alike) and alike.iloc[0]["significant"]:
        best = alike.iloc[0]
        text += (
            f" Of {len(alike)} usual attributes the direction looks most like {best['attribute']!r}: what usually goes "
            f"with {_cut(best['value'])} looks like {best['looks_like']!r} rather than {best['rather_than']!r}."
        )
    return text


def nothing_sentence(discovery: Discovery, n: int, noun: str) -> str:
    """That nothing was found, for people; where nothing was looked at, discovery says why.

    Args:
        discovery: the statement that nothing was found.
        n: number of examples.
        noun: what they are.
    """
    tried = len(discovery.candidates_)
    if not tried:
        return f"No shortcut was looked for in these {n:,} {noun}. {discovery.message_}"
    partitions = "1 candidate partition was" if tried == 1 else f"{tried} candidate partitions were"
    text = (
        f"No shortcut was found in the latents of {n:,} {noun}: {partitions} looked at, and none is an attribute that "
        "goes with the label and is clearer than the class, with something of the class beside it."
    )
    unseen = [c for c in discovery.candidates_ if c.reason.startswith(NO_CLASS) and np.isfinite(c.association)]
    if unseen:
        most = max(unseen, key=lambda c: c.association)
        against = f"about {round(most.conflicts * n):,} {noun}"
        text += (
            f" One does go with the label (association {most.association:.2f}, {against} go "
            "against it), but beside it these latents show too little of the class. Either that many labels are wrong, "
            "or this encoder sees a shortcut and hardly the class: then another encoder is needed."
        )
    return text


def unlabelled_text(discovery: Discovery, n: int | None) -> str:
    """What became of unlabelled examples, to add to the sentence; empty where none were given.

    Args:
        discovery: what was found.
        n: how many examples; None where they were given to `discover` and not to the audit.
    """
    if n is None and not any(candidate.source == UNLABELLED for candidate in discovery.candidates_):
        return ""
    share, why = rests_on_unlabelled(discovery), why_unused(discovery)
    return f" {unlabelled_sentences(n, share, found=discovery.found, why=why)}"


def _found(audit: Audit) -> Iterator[str]:
    cells = audit.groups[audit.groups["conflicting"]].sort_values("n", ascending=False)
    shown = [
        f"{_cut(row.label)} with the attribute of {_cut(row.inferred)}: {row.n:,} ({row.share:.1%})".replace("%", " %")
        for row in cells.head(SHOWN_CELLS).itertuples()
    ]
    more = len(cells) - len(shown)
    yield from _wrap("Conflicting: " + "; ".join(shown) + (f"; {more} more cell{'s' * (more > 1)}" if more else ""))
    named = audit.conflicting["input"].notna().any()
    first = audit.conflicting.head(SHOWN_ROWS)
    items = [_cut(row.input) if named and row.input is not None else str(row.row) for row in first.itertuples()]
    yield from _wrap(f"Most certain ({'inputs' if named else 'rows'}): " + ", ".join(items))
    if audit.names is not None and len(audit.names):
        words = audit.names.head(SHOWN_WORDS)
        listed = ", ".join(f"{row.word} ({_cut(row.value)}, {row.score:.1f})" for row in words.itertuples())
        beyond = int(audit.names["significant"].sum())
        yield from _wrap(f"Nearest words: {listed}; {beyond} stand out of the vocabulary")


def _metadata(audit: Audit) -> Iterator[str]:
    """The strongest columns; where nothing was found, those that go with the label."""
    tested, skipped = audit.looked_at["metadata"]["tested"], audit.looked_at["metadata"]["skipped"]
    if tested and audit.found:
        beyond = audit.associations[audit.associations["significant"]]
        yield f"Metadata: {len(beyond)} of {len(tested)} columns go with it beyond chance"
        for row in beyond.head(SHOWN_COLUMNS).itertuples():
            chance = f"chance: up to {row.null_high:.2f}"
            text = f"{_cut(row.column)} {row.strength:.2f} ({chance}) {row.shared}"
            yield "  " + textwrap.shorten(text, WIDTH - 2, placeholder="...")
    elif tested:
        strongest = audit.associations.dropna(subset=["with_label"]).nlargest(SHOWN_COLUMNS, "with_label")
        listed = ", ".join(f"{_cut(row.column)} {row.with_label:.2f}" for row in strongest.itertuples())
        yield from _wrap(f"Metadata that goes most with the label (association): {listed}")
    if skipped:
        listed = ", ".join(f"{_cut(name)} ({why})" for name, why in list(skipped.items())[:SHOWN_COLUMNS])
        yield from _wrap(f"Not compared: {listed}" + (", ..." if len(skipped) > SHOWN_COLUMNS else ""))


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _cut(value: object) -> str:
    """A name of bearable length: the end of a path says more than its beginning."""
    text = str(value)
    return text if len(text) <= SHOWN_NAME else "..." + text[-(SHOWN_NAME - 3) :]
