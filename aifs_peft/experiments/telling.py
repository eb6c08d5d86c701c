"""What a run's summary says, in words and one table; true for every method, also when nothing was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aifs_peft.discovery.unlabelled.words import unlabelled_sentences

_RULES = {
    "worst_inferred_group": "accuracy of the worst inferred group of the validation split",
    "worst_class": "accuracy of the worst class of the validation split",
    "average": "average accuracy on the validation split",
    "last": "none, the model after the last step was kept",
}
_NUMBER_OF_CELLS = 24  # a longer table is cut; summary.json has all of it


def finish_text(summary: dict[str, Any]) -> str:
    """What `aifs finetune` prints at the end.

    Args:
        summary: of `run_finetune`.

    Returns:
        Several lines; the first says what was found, where the method looked for something, the second what became of
        unlabelled examples, where there were any.
    """
    comparison = summary["comparison"]
    n = summary["metrics"]["n"]
    heading = f"{summary['title']} on {summary['dataset']}, {n:,} examples of the test split"
    facts = [
        supervision_sentence(summary), fused_sentence(summary), selection_sentence(summary),
        plain_sentence(summary["baseline"]),
    ]  # fmt: skip
    parts = [
        "\n".join(text for text in (found_sentence(summary), unlabelled_sentence(summary)) if text),
        "\n".join([heading, *(fact for fact in facts if fact)]),
        comparison_table(comparison, summary["method"]),
        "\n".join([*comparison["sentences"], *(f"note: {text}" for text in comparison["warnings"])]),
    ]
    return "\n\n".join(part for part in parts if part)


def found_sentence(summary: dict[str, Any]) -> str:
    """Whether a shortcut was found; empty for a method that looks for none.

    Args:
        summary: of `run_finetune`.

    Example:
        >>> found_sentence({"found": True, "conflicting": {"n": 29, "of": 432}})
        'found: 29 of 432 training examples go against a shortcut'
        >>> found_sentence({"found": None})
        ''
    """
    if summary["found"] is None:
        return ""
    told = summary.get("conflicting")
    if not summary["found"]:
        return "nothing found: no shortcut stood out in the latents of the training examples"
    if told is None:
        return "found: a shortcut in the latents of the training examples"
    return f"found: {told['n']:,} of {told['of']:,} training examples go against a shortcut"


def unlabelled_sentence(summary: Mapping[str, Any]) -> str:
    """What became of unlabelled examples; empty where there were none.

    Args:
        summary: of `run_finetune`.

    Example:
        >>> unlabelled_sentence({"found": True, "unlabelled": {"data": "new.csv", "n": 400, "rests_on": 1.0}})
        '400 unlabelled examples were read and used: what was found rests on them.'
    """
    told = summary.get("unlabelled")
    return "" if told is None else unlabelled_sentences(told["n"], told["rests_on"], found=summary.get("found"))


def supervision_sentence(summary: dict[str, Any]) -> str:
    """What the method was told in training, and what is read for the table.

    Args:
        summary: of `run_finetune`.

    Example:
        >>> supervision_sentence({"supervision": "none", "needs": [], "comparison": {"cells_from": "attribute"}})
        'told in training: class labels; attribute values are read for the table alone'
    """
    needs = "; ".join(summary["needs"])
    told = {
        "none": "class labels" + (f", and {needs}" if needs else ""),
        "hints": f"class labels and hints ({needs})",
        "groups": f"class labels and group labels, which makes it an oracle ({needs})",
    }[summary["supervision"]]
    read = {"attribute": "attribute values", "groups": "groups"}.get(summary["comparison"]["cells_from"])
    if read is None or summary["supervision"] == "groups":
        return f"told in training: {told}"
    where = "for the table, and as an input of the model" if attribute_is_input(summary) else "for the table alone"
    return f"told in training: {told}; {read} are read {where}"


def attribute_is_input(summary: Mapping[str, Any]) -> bool:
    """Whether the column whose values make the evaluation cells is also one that the model reads.

    Args:
        summary: of `run_finetune`.

    Example:
        >>> attribute_is_input({"spec": {"attribute": "site"}, "fused": {"columns": [{"name": "site"}]}})
        True
    """
    names = [column["name"] for column in (summary.get("fused") or {}).get("columns", ())]
    return "attribute" in names or (summary.get("spec") or {}).get("attribute") in names


def fused_sentence(summary: Mapping[str, Any]) -> str:
    """Which columns of a table the model reads beside each input, and how much of what was found lies there.

    Args:
        summary: of `run_finetune`.

    Returns:
        Empty for a model that reads one kind of input.

    Example:
        >>> fused = {"columns": [{"name": "site"}, {"name": "age"}], "in_table": [0.972]}
        >>> fused_sentence({"modality": "image", "fused": fused})
        'read beside each image: site, age; of the spurious direction 97% lies in these columns'
    """
    fused = summary.get("fused")
    if not fused:
        return ""
    told = f"read beside each {summary['modality']}: {', '.join(column['name'] for column in fused['columns'])}"
    shares = [f"{100 * share:.0f}%" for share in fused.get("in_table") or ()]
    if not shares:
        return told
    if len(shares) == 1:
        return f"{told}; of the spurious direction {shares[0]} lies in these columns"
    return f"{told}; of the spurious directions {', '.join(shares[:-1])} and {shares[-1]} lie in these columns"


def selection_sentence(summary: dict[str, Any]) -> str:
    """By what the model was chosen.

    Args:
        summary: of `run_finetune`.

    Example:
        >>> selection_sentence({"selection": {"rule": "average", "applied": "average", "reads_group_labels": False}})
        'model chosen by: average accuracy on the validation split'
    """
    chosen = summary["selection"]
    known = _RULES.get(chosen["applied"], f"{chosen['applied'].replace('_', ' ')} on the validation split")
    text = f"model chosen by: {known}"
    if chosen["applied"] != chosen["rule"]:
        text += f" ({chosen['rule'].replace('_', ' ')} was asked for, and no groups were inferred)"
    return text + ("; the method reads group labels of the validation split" if chosen["reads_group_labels"] else "")


def plain_sentence(baseline: dict[str, Any]) -> str:
    """What the method is compared with.

    Args:
        baseline: `summary["baseline"]`.

    Example:
        >>> plain_sentence({"kind": "erm", "note": "the same, trained plainly"})
        'plain training: the same, trained plainly'
    """
    note = str(baseline["note"])
    return note if baseline["kind"] == "none" else f"plain training: {note}"


def comparison_table(comparison: dict[str, Any], method: str) -> str:
    """Plain training and the method side by side, with exact intervals.

    Args:
        comparison: `summary["comparison"]`.
        method: heading of its column.

    Returns:
        Aligned columns; without a plain counterpart its column is left out.
    """
    sides = [side for side in ("plain", "method") if comparison["average"][side] is not None]
    level = f"{100 * comparison['confidence']:g}% interval"
    lines = [["", "n", *(f"{'plain' if side == 'plain' else method} [{level}]" for side in sides)]]
    shown = comparison["rows"][:_NUMBER_OF_CELLS]
    lines += [[row["cell"], f"{row['n']:,}", *(_cell(row[side]) for side in sides)] for row in shown]
    rule = len(lines)
    lines.append(["average", "", *(_cell(comparison["average"][side]) for side in sides)])
    lines.append(["worst", "", *(_worst(comparison["worst"][side]) for side in sides)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [_aligned(line, widths) for line in lines]
    text.insert(rule, "-" * max(map(len, text)))
    left_out = len(comparison["rows"]) - len(shown)
    return "\n".join([*text, *([f"({left_out} more cells in summary.json)"] if left_out else [])])


def _aligned(parts: list[str], widths: list[int]) -> str:
    placed = [part.rjust(w) if i == 1 else part.ljust(w) for i, (part, w) in enumerate(zip(parts, widths, strict=True))]
    return "  ".join(placed).rstrip()


def _cell(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{value['accuracy']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _worst(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{_cell(value)} {value['cell']}"
