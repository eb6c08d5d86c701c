"""Stands in for `aifs_peft.audit` where that package is not there: the same fields, filled by simpler means."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aifs_peft.discovery import Discovery, discover
from aifs_peft.metrics import clopper_pearson


@dataclass(frozen=True)
class Harm:
    source: str
    aligned: dict[str, Any]
    conflicting: dict[str, Any]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Audit:
    found: bool
    sentence: str
    evidence: float
    evidence_words: str
    discovery: Discovery
    conflicting: pd.DataFrame
    groups: pd.DataFrame
    associations: pd.DataFrame
    names: pd.DataFrame | None
    harm: Harm | None
    model_harm: Harm | None
    looked_at: dict[str, Any]
    projection: pd.DataFrame | None
    inputs: Any = None

    def to_dict(self) -> dict[str, Any]:
        same = ("found", "sentence", "evidence", "evidence_words", "looked_at")
        out: dict[str, Any] = {name: getattr(self, name) for name in same}
        out |= {"source": self.discovery.source_, "n_conflicting": len(self.conflicting)}
        for name in ("conflicting", "groups", "associations", "names", "projection"):
            frame = getattr(self, name)
            form = "list" if name == "projection" else "records"
            out[name] = None if frame is None else frame.to_dict(orient=form)
        for name in ("harm", "model_harm"):
            harm = getattr(self, name)
            out[name] = None if harm is None else harm.to_dict()
        return out


def _rate(hits: Any) -> dict[str, Any]:
    low, high = clopper_pearson(int(hits.sum()), len(hits))
    return {"n": len(hits), "correct": int(hits.sum()), "accuracy": hits.mean(), "low": float(low), "high": float(high)}


def _harm(source: str, hits: Any, moved: Any) -> Harm:
    aligned, conflicting = _rate(hits[~moved]), _rate(hits[moved])
    told = f"{source} is right on {100 * conflicting['accuracy']:.0f} % of the conflicting examples."
    return Harm(source, aligned, conflicting, told)


def audit(
    Z: Any, y: Any, *, metadata: Any, class_names: Any, inputs: Any = None, predictions: Any = None,
    vocabulary: Any = None,
) -> Audit:  # fmt: skip
    result = discover(Z, y, random_state=0)
    labels, inferred, moved = np.array(class_names, dtype=object), result.groups_, result.groups_ != y
    certainty = result.responsibilities_.max(axis=1)
    rows = np.flatnonzero(moved)
    rows = rows[np.argsort(-certainty[rows], kind="stable")]
    frame = {"row": rows, "input": None if inputs is None else [str(inputs[i]) for i in rows]}
    frame |= {"label": labels[y[rows]], "inferred": labels[inferred[rows]], "confidence": certainty[rows]}
    conflicting = pd.DataFrame(frame | {name: np.asarray(column)[rows] for name, column in metadata.items()})
    groups = pd.DataFrame({"label": labels[y], "inferred": labels[inferred]}).value_counts().rename("n").reset_index()
    columns = list(metadata)
    strength = np.linspace(0.95, 0.05, len(columns)) if result.found else np.full(len(columns), 0.05)
    significant = strength > 0.5
    associations = pd.DataFrame(
        {"column": columns, "strength": strength, "null_low": 0.0, "null_high": 0.1, "significant": significant,
         "shared": np.where(significant, "more than half", "")}
    )  # fmt: skip
    words = pd.DataFrame({"word": list(vocabulary or ()), "value": labels[0], "null_high": 1.0, "significant": True})
    axes = (Z[:, [1, 0]] - Z[:, [1, 0]].mean(axis=0)) / Z[:, [1, 0]].std(axis=0)
    projection = pd.DataFrame(
        {"row": np.arange(len(y)), "class_axis": axes[:, 0], "attribute_axis": axes[:, 1], "label": labels[y],
         "inferred": labels[inferred]}
    )  # fmt: skip
    said = f"{len(rows)} of {len(y)} examples go against the shortcut." if result.found else "No shortcut was found."
    looked_at = {
        "n": len(y), "d": Z.shape[1], "classes": {name: int((y == i).sum()) for i, name in enumerate(class_names)},
        "candidates": len(result.candidates_), "metadata": {"tested": columns, "skipped": {}},
        "detectable_sentence": "A weaker one can be missed.", "warnings": [],
    }  # fmt: skip
    harm = _harm("Plain training", (Z[:, 0] > Z[:, 0].mean()) == y, moved) if result.found else None
    return Audit(
        result.found, said, result.evidence_, "clear" if result.found else "none", result, conflicting,
        groups.assign(share=groups["n"] / groups["n"].sum()), associations,
        words.assign(score=np.linspace(3, 1, len(words))) if result.found and vocabulary else None, harm,
        _harm("The given model", predictions == y, moved) if predictions is not None and result.found else None,
        looked_at, projection, inputs,
    )  # fmt: skip
