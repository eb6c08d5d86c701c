"""Group metrics as a stream: update with batches, merge processes, compute at the end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aifs_peft._checks import check_count
from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics.inputs import Batch, expand, read_batch, slot_names, training_shares
from aifs_peft.metrics.intervals import check_confidence
from aifs_peft.metrics.ranking import BinnedScores, ExactScores, Ranking
from aifs_peft.metrics.result import Settings, build_part, slot_entries
from aifs_peft.metrics.statistics import CHUNK, SlotStatistics, describe_rows
from aifs_peft.metrics.summary import fairness_summary, group_accuracy_summary, overall_summary

# Confusion counts of 2**26 cells take 512 MB: more is a mistake in num_groups or num_classes.
_MAX_CELLS = 2**26


class GroupMetricAccumulator:
    """Streaming group metrics with fixed slots: any batching, order or split gives the same result exactly.

    Args:
        num_groups: number of groups, also those that some data set misses; ids are never relabelled.
        num_classes: number of classes, at least 2.
        num_attributes: number of attribute values, for groups that are class x attribute: such a group holds
            one class, so ranking and one-vs-rest fairness are compared between attributes instead. 0 for
            none.
        group_names: one per group; `"0"`, `"1"`, ... without.
        attribute_names: one per attribute value, in the same way.
        group_shares: shares (or counts) of the groups in the training data, `(num_groups,)`, which weight the
            adjusted average; `None` leaves it NaN.
        calibration_bins: equal-width confidence bins of the calibration error.
        score_bins: `None` keeps every score for an exact ROC-AUC; an integer counts scores in that many bins
            of [0, 1] (constant memory; see `aifs_peft.metrics.ranking`).
        min_group_size: groups below it are flagged `small`.

    Raises:
        InvalidInputError: any argument out of range, of the wrong type, or of the wrong length.

    Example:
        >>> total = GroupMetricAccumulator(num_groups=2)
        >>> total.update([0, 1], [0, 1], [0, 0])
        >>> total.update([1], [0], [1])
        >>> total.compute()["worst_group_accuracy"]
        0.0
    """

    def __init__(
        self,
        num_groups: int,
        num_classes: int = 2,
        num_attributes: int = 0,
        *,
        group_names: Sequence[str] | None = None,
        attribute_names: Sequence[str] | None = None,
        group_shares: ArrayLike | None = None,
        calibration_bins: int = 15,
        score_bins: int | None = None,
        min_group_size: int = 30,
    ) -> None:
        self.num_groups = check_count("num_groups", num_groups, 1, error=InvalidInputError)
        self.num_classes = check_count("num_classes", num_classes, 2, error=InvalidInputError)
        self.num_attributes = check_count("num_attributes", num_attributes, 0, error=InvalidInputError)
        self.calibration_bins = check_count("calibration_bins", calibration_bins, 1, error=InvalidInputError)
        self.score_bins = (
            None if score_bins is None else check_count("score_bins", score_bins, 2, error=InvalidInputError)
        )
        self.min_group_size = check_count("min_group_size", min_group_size, 0, error=InvalidInputError)
        cells = max(self.num_groups, self.num_attributes) * self.num_classes**2
        if cells > _MAX_CELLS:
            msg = f"{self.num_groups} groups, {self.num_classes} classes: {cells} counters, over {_MAX_CELLS}"
            raise InvalidInputError(msg + ": evaluate fewer groups at once (attributes instead of class x attribute)")
        self.group_names = slot_names(group_names, self.num_groups, "group_names")
        self.attribute_names = slot_names(attribute_names, self.num_attributes, "attribute_names")
        self.group_shares = None if group_shares is None else training_shares(group_shares, self.num_groups)
        self._overall = SlotStatistics(1, self.num_classes, self.calibration_bins)
        self._parts = [self._new_part(n) for n in (self.num_groups, self.num_attributes)]
        self._has_score: bool | None = None
        self._probabilities = True
        self._outside = 0

    def _new_part(self, slots: int) -> tuple[SlotStatistics, ExactScores | BinnedScores]:
        classes, bins = self.num_classes, self.score_bins
        ranking = ExactScores(slots, classes) if bins is None else BinnedScores(slots, classes, bins)
        return SlotStatistics(slots, classes, self.calibration_bins), ranking

    def update(
        self,
        y_true: Any,
        y_pred: Any,
        groups: Any,
        y_score: Any = None,
        *,
        attributes: Any = None,
        valid: Any = None,
    ) -> None:
        """Add one batch; a refused batch leaves the state as it was.

        Args:
            y_true: class ids, `(n,)`.
            y_pred: class ids, `(n,)`.
            groups: group ids `(n,)`, or a boolean matrix `(n, num_groups)` where groups overlap; -1 is in no group.
            y_score: for two classes the score of class 1 `(n,)` or probabilities `(n, 2)`; for more, class
                probabilities `(n, num_classes)`. Given in every update or in none.
            attributes: attribute ids `(n,)` or a boolean matrix, exactly when `num_attributes > 0`.
            valid: boolean `(n,)`; rows with `False` (padding) are dropped before anything is checked.

        Raises:
            InvalidInputError: shapes, types or ids that do not fit; scores in some updates and not in others.

        Example:
            >>> total = GroupMetricAccumulator(num_groups=2)
            >>> total.update([0, 1, 9], [0, 1, 9], [0, 1, 9], valid=[True, True, False])
            >>> total.compute()["worst_group_accuracy"]
            1.0
        """
        batch = read_batch(
            y_true,
            y_pred,
            groups,
            y_score,
            attributes=attributes,
            valid=valid,
            num_classes=self.num_classes,
            num_groups=self.num_groups,
            num_attributes=self.num_attributes,
        )
        outside = (
            batch.score is not None and batch.score.size > 0 and bool(batch.score.min() < 0 or batch.score.max() > 1)
        )
        if outside and self.score_bins is not None:
            msg = "score_bins needs scores in [0, 1]: pass probabilities, or leave it at None to rank any score"
            raise InvalidInputError(msg)
        if len(batch) == 0:
            return
        self._require_scores(batch.score is not None)
        self._probabilities &= not outside
        for part in batch.chunks(CHUNK):
            self._add(part)

    def _require_scores(self, given: bool) -> None:
        if self._has_score is not None and self._has_score != given:
            msg = "y_score was given for some rows and not for others: give it in every update, or in none"
            raise InvalidInputError(msg)
        self._has_score = given

    def _add(self, batch: Batch) -> None:
        if batch.groups.ndim == 2:
            self._outside += int((~batch.groups.any(axis=1)).sum())
        rows = describe_rows(batch, self.num_classes, self.calibration_bins)
        for (statistics, ranking), ids in zip(self._parts, (batch.groups, batch.attributes), strict=True):
            if ids is None:
                continue
            index, slots = expand(ids)
            members = rows if index is None else rows.take(index)
            statistics.add(slots, members)
            if members.score is not None:
                ranking.add(slots, members.label, members.score)
        self._overall.add(np.zeros(len(batch), np.intp), rows)

    def merge(self, other: "GroupMetricAccumulator") -> "GroupMetricAccumulator":
        """Add what another accumulator (another process) has seen; `other` stays as it is.

        Returns:
            `self`, so that merges chain.

        Raises:
            InvalidInputError: different slots, options, or scores in one and not in the other.

        Example:
            >>> left, right = GroupMetricAccumulator(2), GroupMetricAccumulator(2)
            >>> left.update([0], [0], [0])
            >>> right.update([1], [0], [1])
            >>> left.merge(right).compute()["n"]
            2
        """
        if not isinstance(other, GroupMetricAccumulator) or self._options() != other._options():
            theirs = other._options() if isinstance(other, GroupMetricAccumulator) else type(other).__name__
            raise InvalidInputError(f"only accumulators of equal options merge; got {self._options()} and {theirs}")
        if other._has_score is not None:
            self._require_scores(other._has_score)
        self._probabilities &= other._probabilities
        self._outside += other._outside
        self._overall.merge(other._overall)
        for (statistics, ranking), (counts, scores) in zip(self._parts, other._parts, strict=True):
            statistics.merge(counts)
            ranking.merge(scores)  # type: ignore[arg-type]  # equal options give the same kind of store
        return self

    def _options(self) -> dict[str, Any]:
        names = (
            "num_classes",
            "group_names",
            "attribute_names",
            "calibration_bins",
            "score_bins",
            "min_group_size",
        )
        shares = None if self.group_shares is None else self.group_shares.tolist()
        return {name: getattr(self, name) for name in names} | {"group_shares": shares}

    def compute(
        self,
        *,
        n_boot: int = 0,
        confidence: float = 0.95,
        random_state: int | np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """The result so far; may be called at any time, and again.

        Args:
            n_boot: stratified bootstrap replicates; 0 leaves the intervals that have no exact form NaN.
            confidence: coverage of every interval.
            random_state: seed or generator of the bootstrap.

        Returns:
            The dictionary of `aifs_peft.metrics.group_metrics`.

        Raises:
            InvalidInputError: a negative or non-integer `n_boot`, or a confidence outside (0, 1).

        Example:
            >>> total = GroupMetricAccumulator(num_groups=2)
            >>> total.compute()["worst_group_accuracy"]
            nan
        """
        settings = Settings(
            check_count("n_boot", n_boot, 0, error=InvalidInputError),
            check_confidence(confidence),
            self.min_group_size,
            np.random.default_rng(random_state),
        )
        no_score = "" if self._has_score else "no y_score was given"
        outside = "" if self._probabilities else "y_score leaves [0, 1], so it is no probability"
        parts = [
            build_part(names, statistics, self._rankings(ranking), no_score, no_score or outside, settings)
            for names, (statistics, ranking) in zip((self.group_names, self.attribute_names), self._parts, strict=True)
        ]
        overall = build_part(("all",), self._overall, (), no_score, no_score or outside, settings)
        compared = parts[1] if self.num_attributes else parts[0]
        accuracy_part, accuracy_reasons = group_accuracy_summary(parts[0], self.group_shares, settings)
        fairness_part, fairness_reasons = fairness_summary(compared, settings)
        overall_part, overall_reasons = overall_summary(overall, settings)
        groups = slot_entries(parts[0], settings)
        return {
            **overall_part,
            **accuracy_part,
            **fairness_part,
            "compared_over": "attributes" if self.num_attributes else "groups",
            "confidence": settings.confidence,
            "n_boot": settings.n_boot,
            "in_no_group": self._outside,
            "empty_groups": [name for name, entry in groups.items() if entry["n"] == 0],
            "small_groups": [name for name, entry in groups.items() if entry["small"]],
            "reasons": overall_reasons | accuracy_reasons | fairness_reasons,
            "groups": groups,
            "attributes": slot_entries(parts[1], settings),
        }

    def _rankings(self, ranking: ExactScores | BinnedScores) -> list[Ranking]:
        return list(ranking.rankings()) if self._has_score else []
