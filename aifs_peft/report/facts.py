"""What may be said of a run, in sentences: each is true for every method, and also when nothing was found.

The card, the HTML report and the command line take their words from here, so that they cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from aifs_peft.data import describe
from aifs_peft.data import names as data_names
from aifs_peft.methods import get, names
from aifs_peft.models.tabular import ENCODERS

Summary = Mapping[str, Any]

GLOSSARY = (
    "Aligned: the shortcut points to the example's own class. Conflicting: it points to another class, so that a model "
    "which leans on it is wrong."
)
SMALL_CELL = 30
"""Below this many examples an interval is so wide that it is told."""
_TOLD = ("none", "hints", "groups")
_RULES = {
    "worst_inferred_group": "highest accuracy of the worst cell of label and inferred attribute",
    "worst_class": "highest accuracy of the worst class",
    "average": "highest average accuracy",
}
_CELLS = {
    "attribute": "cells of label and attribute; the attribute was read for this table only",
    "groups": "the groups of the data set; they were read for this table only",
    "inferred": "aligned and conflicting as inferred on these held-out examples: the data have no group labels, so a "
    "cell may hold examples of another",
}


@dataclass(frozen=True)
class MethodFacts:
    """A training method as the registry knows it, and the run tells it.

    Attributes:
        name: in the registry.
        title: as papers write it; the name where the method is not installed here.
        paper: where it comes from; empty where unknown.
        supervision: "none", "hints", "groups", or "unknown".
        needs: what it needs beside labels, in short phrases.
    """

    name: str
    title: str
    paper: str
    supervision: str
    needs: tuple[str, ...]


def method_facts(summary: Summary) -> MethodFacts:
    """The method of a run. Where run and registry disagree on supervision the stronger one is told.

    Args:
        summary: with "method" and, where the run recorded it, "supervision".

    Example:
        >>> method_facts({"method": "gdro-oracle", "supervision": "none"}).supervision
        'groups'
    """
    name = str(summary["method"])
    recorded = summary.get("supervision")
    if name not in names():
        return MethodFacts(name, name, "", recorded if recorded in _TOLD else "unknown", ())
    method = get(name)
    stronger = max((told for told in (recorded, method.supervision) if told in _TOLD), key=_TOLD.index)
    return MethodFacts(name, method.title or name, method.paper, stronger, tuple(method.needs))


def supervision_sentence(summary: Summary) -> str:
    """What training was told beside the inputs.

    Example:
        >>> supervision_sentence({"method": "erm"})
        'Class labels only: no group label, attribute or hint was read in training.'
    """
    method = method_facts(summary)
    wanted = "; ".join(method.needs).replace("`", "'")
    needs = f" The method needs: {wanted}." if wanted else ""
    return {
        "none": "Class labels only: no group label, attribute or hint was read in training.",
        "hints": f"Class labels, and hints about the attribute; no group labels.{needs}",
        "groups": "Group labels: this method is an oracle, which shows what can be reached with them. Do not compare "
        f"its numbers with those of methods that are told less.{needs}",
        "unknown": f"Not known: the method {method.name!r} is not installed here, and the run did not record what it "
        "was told.",
    }[method.supervision]


def found_anything(summary: Summary) -> bool | None:
    """Whether the method found a shortcut; None where it reports no finding.

    Args:
        summary: with "found", or of a run of "aifs" with its "state".

    Example:
        >>> found_anything({"method": "aifs", "state": {"spurious_directions": 1}}), found_anything({"method": "jtt"})
        (True, None)
    """
    if "found" in summary:
        found: bool | None = summary["found"]
        return found
    directions = (summary.get("state") or {}).get("spurious_directions")
    return None if summary["method"] != "aifs" or directions is None else directions > 0


def result_sentence(summary: Summary) -> str:
    """What the method found, or that it found nothing, or that it reports no finding.

    Example:
        >>> result_sentence({"method": "erm"})
        'ERM does not report whether there is a shortcut.'
    """
    found, audit = found_anything(summary), summary.get("audit")
    title = method_facts(summary).title
    if found:
        return str(audit["sentence"]) if audit and audit.get("found") else _found_in_state(summary)
    if found is None:
        told = f"{title} does not report whether there is a shortcut."
        if not audit:
            return told
        return f"{told} An audit of the training set, which took no part in training, says: {audit['sentence']}"
    why = str(audit["sentence"]) if audit and not audit.get("found") else "No shortcut was found."
    return f"{why} With nothing found, {title} is plain training." if summary["method"] == "aifs" else why


def _found_in_state(summary: Summary) -> str:
    state = summary.get("state") or {}
    directions = state.get("spurious_directions")
    share = next((h["conflicting_share"] for h in summary.get("history") or () if "conflicting_share" in h), None)
    many = f"{directions} spurious direction{'s' if directions != 1 else ''}" if directions else "A shortcut"
    seen = f"; {100 * share:.1f} % of the training examples go against it" if share is not None else ""
    return f"{many} found in the latents, without group labels{seen}."


def selection_sentence(summary: Summary) -> str:
    """How the weights that are shipped were chosen, and whether group labels had a part in it.

    Example:
        >>> selection_sentence({"selection": {"rule": "average", "reads_group_labels": False}})
        'Rule: highest average accuracy on the validation set. It reads no group labels.'
    """
    selection = summary.get("selection") or {}
    if selection.get("applied") is False:
        return "None: the weights after the last step were kept."
    rule = selection.get("rule")
    if rule is None:
        return "Not recorded."
    words = _RULES.get(rule, f"best {rule}")
    known: dict[bool | None, str] = {True: "It reads group labels.", False: "It reads no group labels."}
    reads = known.get(selection.get("reads_group_labels"), "Whether it reads group labels was not recorded.")
    unknown = rule == "worst_inferred_group" and found_anything({"method": "", **summary}) is not True
    instead = " No attribute was inferred, so the worst class took its place." if unknown else ""
    return f"Rule: {words} on the validation set. {reads}{instead}"


def cells_sentence(summary: Summary) -> str:
    """What the rows of the table of results are, and whether group labels were read for it."""
    comparison = summary.get("comparison")
    if comparison:
        told = f"Rows: {_CELLS[comparison['cells_from']]}."
        named = {str(row["cell"]) for row in comparison["rows"]} & {"aligned", "conflicting"}
        return f"{told} {GLOSSARY}" if named else told
    if summary.get("metrics") is None:
        return "The evaluation set also served to choose the weights: these are no test figures."
    if summary.get("group_definition"):
        return f"Groups: {summary['group_definition']}. Group labels were read for this table only."
    return "Rows: the classes; the data have no group labels."


def limits(summary: Summary) -> list[str]:
    """What the numbers do not show, in sentences."""
    found, told = found_anything(summary), method_facts(summary).supervision
    out = []
    if found:
        out.append("Only what was found is trained against; other shortcuts may remain.")
    if found is False:
        out.append("That nothing was found does not show that there is nothing: a shortcut may be too weak to be seen, "
                   "or absent from the latents that were looked at.")  # fmt: skip
    if (summary.get("audit") or {}).get("discovery", {}).get("rough"):
        out.append("The partition is rough: part of the conflicting examples is missed.")
    if told == "groups":
        out.append("Group labels were used, so that the result does not carry over to data without them.")
    if summary.get("metrics") or summary.get("comparison"):
        out.append("Groups other than those in the table were not measured.")
    small = [name for name, n in cell_sizes(summary) if n < SMALL_CELL]
    if small:
        out.append(f"Under {SMALL_CELL} examples, so wide intervals: {', '.join(small)}.")
    if summary.get("seed") is not None:
        out.append("One run with one seed: another seed gives other numbers.")
    return out


def cell_sizes(summary: Summary) -> list[tuple[str, int]]:
    """Name and number of examples of every row of the table of results."""
    comparison = summary.get("comparison")
    if comparison:
        return [(str(row["cell"]), int(row["n"])) for row in comparison["rows"]]
    groups = (summary.get("metrics") or {}).get("groups", {})
    return [(str(name), int(entry["n"])) for name, entry in groups.items()]


def is_hub_id(name: str) -> bool:
    """Whether a model's or data set's name is one of the Hub: `owner/name` or `name`, and no folder here.

    Example:
        >>> is_hub_id("openai/clip-vit-base-patch16"), is_hub_id("/home/me/vit"), is_hub_id("tiny_clip")
        (True, False, False)
    """
    if name in ("tiny_clip", *ENCODERS) or not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", name):
        return False
    return not Path(name).exists()


def on_hub(summary: Summary, key: str) -> bool:
    """Whether the "model" or "dataset" of a run is one that the Hub has under this name.

    A summary that was made fit for publishing says of a folder's name that it was a folder: "model_local".
    """
    name = summary.get(key)
    return name is not None and not summary.get(f"{key}_local") and is_hub_id(str(name))


def shown_name(name: Any) -> str:
    """A name as it may be published: of a path only its last part, which tells nothing about somebody's disk.

    Example:
        >>> shown_name("/home/me/models/vit"), shown_name("openai/clip-vit-base-patch16")
        ('vit', 'openai/clip-vit-base-patch16')
    """
    text = str(name)
    if text.startswith(("/", "~", ".")) or "\\" in text or text.count("/") > 1 or Path(text).exists():
        return PurePath(text.replace("\\", "/")).name or text
    return text


def data_sentence(summary: Summary) -> str:
    """The training data: name, what they are, where from, under which terms (where this package knows)."""
    name = str(summary["dataset"])
    groups = (summary.get("groups") or {}).get("train")
    size = f", {sum(groups.values()):,} training examples" if groups and not _overlap(summary) else ""
    if name not in data_names():
        return f"{shown_name(name)}{size}. Terms of use: not known to this package."
    card = describe(name)
    return f"{name}{size}: {card.title}. Source: {card.source}. Terms: {card.terms}."


def _overlap(summary: Summary) -> bool:
    """Whether group counts do not add up to the number of examples."""
    sizes: Sequence[int] = [n for _, n in cell_sizes(summary)]
    total = (summary.get("metrics") or {}).get("n")
    return total is not None and sum(sizes) != total
