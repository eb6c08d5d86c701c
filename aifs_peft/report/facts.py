"""What may be said of a run, in sentences: each is true for every method, and also when nothing was found.

The card, the HTML report and the command line take their words from here, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aifs_peft.data import describe
from aifs_peft.data import names as data_names
from aifs_peft.discovery.unlabelled.words import unlabelled_sentences
from aifs_peft.experiments.telling import attribute_is_input, fused_sentence
from aifs_peft.methods import get, names
from aifs_peft.report.publish import shown_name

Summary = Mapping[str, Any]

GLOSSARY = (
    "Aligned: the shortcut points to the example's own class. Conflicting: it points to another class, so that a model "
    "which leans on it is wrong."
)
_MORE = "Only what was found is dealt with; other shortcuts may remain."
_NOT_SEEN = (
    "That nothing was found does not show that there is nothing: a shortcut may be too weak to be seen, or absent from "
    "the latents that were looked at."
)
SMALL_CELL = 30
"""Below this many examples an interval is so wide that it is told."""
_TOLD = ("none", "hints", "groups")
_RULES = {
    "worst_inferred_group": "highest accuracy of the worst cell of label and inferred attribute on the validation set",
    "worst_class": "highest accuracy of the worst class on the validation set",
    "average": "highest average accuracy on the validation set",
    "last": "none, the weights after the last step were kept",
}
_CELLS_OF_INPUT = "cells of label and attribute, which the model reads as an input, too"
_CELLS = {
    "attribute": "cells of label and attribute; the attribute was read for this table only",
    "groups": "the groups of the data set; they were read for this table only",
    "classes": "the classes; nothing else is known of the examples",
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
    recorded, needs = summary.get("supervision"), summary.get("needs")
    if name not in names():
        told = recorded if recorded in _TOLD else "unknown"
        return MethodFacts(name, str(summary.get("title") or name), "", told, tuple(needs or ()))
    method = get(name)
    stronger = max((told for told in (recorded, method.supervision) if told in _TOLD), key=_TOLD.index)
    return MethodFacts(name, method.title or name, method.paper, stronger, tuple(needs or method.needs))


def supervision_sentence(summary: Summary) -> str:
    """What training was told beside the inputs.

    Example:
        >>> supervision_sentence({"method": "erm"})
        'Class labels only: no group label, attribute or hint was read in training.'
    """
    method = method_facts(summary)
    wanted = "; ".join(method.needs).replace("`", "'")
    needs = f" The method needs: {wanted}." if wanted else ""
    none = "Class labels only: no group label, attribute or hint was read in training."
    if summary.get("unlabelled"):
        none = "Class labels, and examples without any; no group label, attribute or hint was read in training."
    if attribute_is_input(summary):
        none = "Class labels only, beside the inputs, of which the attribute is one: no group label or hint was read."
    return {
        "none": none,
        "hints": f"Class labels, and hints about the attribute; no group labels.{needs}",
        "groups": "Group labels: this method is an oracle, which shows what can be reached with them. Do not compare "
        f"its numbers with those of methods that are told less.{needs}",
        "unknown": f"Not known: the method {method.name!r} is not installed here, and the run did not record what it "
        "was told.",
    }[method.supervision]


def inputs_sentence(summary: Summary) -> str:
    """Which columns of a table the model reads beside each picture or text; empty where there are none."""
    told = fused_sentence(summary)
    return f"{told[:1].upper()}{told[1:]}." if told else ""


def unlabelled_sentence(summary: Summary) -> str:
    """What became of unlabelled examples in training; empty where there were none."""
    told = summary.get("unlabelled")
    return "" if not told else unlabelled_sentences(told["n"], told["rests_on"], found=found_anything(summary))


def beside_labels(summary: Summary) -> list[tuple[str, str]]:
    """What a run read that most runs do not, by name: unlabelled examples, columns of a table."""
    told = {"Unlabelled examples": unlabelled_sentence(summary), "Inputs": inputs_sentence(summary)}
    return [(name, sentence) for name, sentence in told.items() if sentence]


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
    if summary["method"] != "aifs":
        return why
    evened = any(entry.get("classes_evened") for entry in summary.get("history") or ())
    return f"{why} With nothing found, {title} is plain training{', with classes that count alike' if evened else ''}."


def _found_in_state(summary: Summary) -> str:
    state = summary.get("state") or {}
    directions = state.get("spurious_directions")
    counted = summary.get("conflicting")
    share = next((h["conflicting_share"] for h in summary.get("history") or () if "conflicting_share" in h), None)
    if counted:
        told = f"{counted['n']:,} of {counted['of']:,} training examples go against a shortcut"
        return f"{told} that was found in the latents."
    many = f"{directions} spurious direction{'s' if directions != 1 else ''}" if directions else "A shortcut"
    seen = f"; {100 * share:.1f} % of the training examples go against it" if share is not None else ""
    return f"{many} found in the latents, without group labels{seen}."


def selection_sentence(summary: Summary) -> str:
    """How the weights that are shipped were chosen, and whether group labels had a part in it.

    Args:
        summary: with "selection": the "rule" that was asked for ("last" for none), the one that was "applied" where it
            is another, and whether group labels of the validation set were read.

    Example:
        >>> selection_sentence({"selection": {"rule": "average", "reads_group_labels": False}})
        'Highest average accuracy on the validation set. No group labels were read for it.'
    """
    selection = summary.get("selection") or {}
    rule = selection.get("rule")
    if rule is None:
        return "Not recorded."
    applied = selection.get("applied") or rule
    if applied == "worst_inferred_group" and found_anything({"method": "", **summary}) is not True:
        applied = "worst_class"
    words = _RULES.get(applied, f"best {applied} on the validation set")
    instead = "" if applied == rule else " (no attribute was inferred, so that it stands for the worst inferred group)"
    known: dict[bool | None, str] = {
        True: "Group labels of the validation set were read.",
        False: "No group labels were read for it.",
    }
    reads = known.get(selection.get("reads_group_labels"), "Whether it reads group labels was not recorded.")
    return f"{words[:1].upper()}{words[1:]}{instead}. {reads}"


def cells_sentence(summary: Summary) -> str:
    """What the rows of the table of results are, and whether group labels were read for it."""
    comparison = summary.get("comparison")
    if comparison:
        cells = comparison["cells_from"]
        told = f"Rows: {_CELLS_OF_INPUT if cells == 'attribute' and attribute_is_input(summary) else _CELLS[cells]}."
        named = {str(row["cell"]) for row in comparison["rows"]} & {"aligned", "conflicting"}
        return f"{told} {GLOSSARY}" if named else told
    if summary.get("metrics") is None:
        if not summary.get("evaluation"):
            return "No figures were recorded."
        if (summary.get("selection") or {}).get("rule") in (None, "last"):
            return "These are figures of the evaluation set; the weights are those of the last step."
        return "The evaluation set also served to choose the weights: these are no test figures."
    if summary.get("group_definition"):
        return f"Groups: {summary['group_definition']}. Group labels were read for this table only."
    return "Rows: the classes; the data have no group labels."


def limits(summary: Summary) -> list[str]:
    """What the numbers do not show, in sentences."""
    found, told = found_anything(summary), method_facts(summary).supervision
    out = []
    if found:
        out.append(_MORE)
    if found is False:
        out.append(_NOT_SEEN)
    if (summary.get("audit") or {}).get("rough"):
        out.append("The partition is rough: part of the conflicting examples is missed.")
    if told == "groups":
        out.append("Group labels were used, so that the result does not carry over to data without them.")
    if summary.get("metrics") or summary.get("comparison"):
        out.append("Groups other than those in the table were not measured.")
    # The warnings of the comparison name the smallest of these cells: they are not told a second time.
    small = [f"{name} ({n})" for name, n in cell_sizes(summary) if n < SMALL_CELL]
    if small:
        out.append(f"Under {SMALL_CELL} examples, so wide intervals: {', '.join(small)}.")
    if summary.get("seed") is not None:
        out.append("One run with one seed: another seed gives other numbers.")
    return out


def told_as_sentence(text: Any) -> str:
    """A note as a sentence: its first letter large, a full stop at its end.

    Example:
        >>> told_as_sentence("conflicting examples: 0.28 -> 0.74 (n = 25)")
        'Conflicting examples: 0.28 -> 0.74 (n = 25).'
    """
    words = " ".join(str(text).split())
    return f"{words[:1].upper()}{words[1:]}" + ("" if words.endswith((".", "!", "?")) else ".")


def sides(comparison: Summary) -> list[tuple[str, str]]:
    """What stands side by side in a comparison: key and name; without a plain counterpart the method alone."""
    plain = any((row.get("plain") or {}).get("accuracy") is not None for row in comparison["rows"])
    return [*([("plain", "plain training")] if plain else []), ("method", "this model")]


def audit_limits(audit: Summary) -> list[str]:
    """What an audit alone does not show, in sentences."""
    out = ["Nothing was trained: whether a model leans on the shortcut, and whether the fix helps, is not shown here."]
    out.append(_MORE if audit.get("found") else _NOT_SEEN)
    if not audit.get("associations"):
        out.append("No metadata were given: what the examples share beside the latents was not looked at.")
    return out


def cell_sizes(summary: Summary) -> list[tuple[str, int]]:
    """Name and number of examples of every row of the table of results."""
    comparison = summary.get("comparison")
    if comparison:
        return [(str(row["cell"]), int(row["n"])) for row in comparison["rows"]]
    groups = (summary.get("metrics") or {}).get("groups", {})
    return [(str(name), int(entry["n"])) for name, entry in groups.items()]


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
