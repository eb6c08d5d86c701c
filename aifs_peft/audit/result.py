"""`Audit`: what was found, for people, for programs and for a report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aifs_peft.audit.harm import Harm
from aifs_peft.audit.text import audit_text
from aifs_peft.discovery import Discovery

# Conflicting examples in `to_dict`, which goes into a run's summary; `to_csv` writes all.
MAX_RECORDS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """Whether there is a shortcut in latents, what it is and who is hurt; see `audit`.

    Args:
        found: whether a spurious attribute was found.
        sentence: the result for people; where nothing was found, what was looked at and what would have been seen.
        evidence: `Discovery.evidence_`.
        evidence_words: `"none"`, `"weak"`, `"clear"` or `"strong"`; cut points in `aifs_peft/audit/evidence.py`.
        discovery: the result of `discover`.
        conflicting: examples that carry another class's attribute value, most certain first: `row`, `input` (path or
            text, where given), `label`, `inferred` (the class whose value it carries), `confidence` (posterior
            probability of that value), then the columns of metadata.
        groups: cells of `label` and `inferred`: `n`, `share` of the label's examples, `conflicting`.
        associations: one row per column of metadata, see `aifs_peft.audit.associations.associations`.
        names: words that go with the inferred values, where a vocabulary was given and something was found: `word`,
            `value`, `score`, `null_high`, `significant`.
        harm: how plain training does on held-out conflicting and aligned examples; `None` where nothing was found.
        model_harm: the same for the given predictions.
        looked_at: what was looked at: `n`, `d`, `classes` (counts by name), `smallest_class`, `candidates`,
            `class_contrast`, `detectable` (what would have been seen at this size), `detectable_sentence`, `metadata`
            (`tested`, and `skipped` with the reason), `warnings`; with unlabelled examples also `unlabelled` (`n`, and
            `rests_on`, the share of the attributes found that they showed); where nothing was found and classes are
            unequal, `even_classes` (what evenly weighted classes would give, see `aifs_peft.audit.even.EvenClasses`).
        projection: points to plot: `row`, `class_axis`, `attribute_axis` (standard deviations), `label`, `inferred`.
        inputs: the inputs as given, for a report.
        looks_like: attributes that what was found looks like, best first, where a CLIP compared them, see
            `aifs_peft.audit.attributes.score_attributes`.
    """

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
    inputs: Any = field(default=None)
    looks_like: pd.DataFrame | None = field(default=None)

    def __repr__(self) -> str:
        return audit_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: no array, no NaN (what is not defined is `None`).

        Of the conflicting examples the first 1,000, with their number in `n_conflicting`.

        Example:
            >>> import json
            >>> import numpy as np
            >>> from aifs_peft import audit
            >>> found = audit(np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2)
            >>> json.loads(json.dumps(found.to_dict(), allow_nan=False))["found"]
            False
        """
        return {
            "found": self.found,
            "sentence": self.sentence,
            "evidence": plain(self.evidence),
            "evidence_words": self.evidence_words,
            "message": self.discovery.message_,
            "source": self.discovery.source_,
            "n_conflicting": len(self.conflicting),
            "conflicting": records(self.conflicting.head(MAX_RECORDS)),
            "groups": records(self.groups),
            "associations": records(self.associations),
            "names": None if self.names is None else records(self.names),
            "looks_like": None if self.looks_like is None else records(self.looks_like),
            "harm": None if self.harm is None else plain(self.harm.to_dict()),
            "model_harm": None if self.model_harm is None else plain(self.model_harm.to_dict()),
            "looked_at": plain(self.looked_at),
            "projection": None if self.projection is None else _columns(self.projection),
        }

    def to_csv(self, path: str | Path) -> Path:
        """Write the conflicting examples, most certain first, with a header also where there are none.

        Args:
            path: file to write.

        Returns:
            The path.
        """
        self.conflicting.to_csv(path, index=False)
        return Path(path)

    def to_html(self, path: str | Path) -> Path:
        """Write one static page about the audit, see `aifs_peft.report.audit_page`.

        Args:
            path: file to write.

        Returns:
            The path.
        """
        from aifs_peft.report import audit_page

        Path(path).write_text(audit_page(self), encoding="utf-8")
        return Path(path)

    def plot(self, ax: Any = None) -> Any:
        """Draw the latents along class and attribute.

        Args:
            ax: Matplotlib axes to draw into; `None` makes new ones.

        Returns:
            The axes.
        """
        from aifs_peft.report import plot_audit

        return plot_audit(self, ax)

    def _repr_html_(self) -> str:
        """The short form of the page, for a notebook."""
        from aifs_peft.report import audit_html

        return audit_html(self)


def plain(value: Any) -> Any:
    """A value as JSON has it: NumPy scalars as Python's, NaN and infinite numbers as `None`, anything else as text.

    Example:
        >>> plain({"a": np.float32(0.5), "b": [float("nan"), np.bool_(True)]})
        {'a': 0.5, 'b': [None, True]}
    """
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return None if value is pd.NaT or value is pd.NA else str(value)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as JSON has them."""
    names = [str(name) for name in frame.columns]
    return [
        {name: plain(value) for name, value in zip(names, row, strict=True)} for row in frame.to_numpy(dtype=object)
    ]


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns of a table as lists, numbers to three decimals: points for a plot."""
    rounded = frame.round(3)
    return {str(name): [plain(value) for value in rounded[name].tolist()] for name in rounded.columns}
