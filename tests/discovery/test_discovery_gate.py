"""Formulas of the gate, each against an independent computation."""

import numpy as np
import pytest

from aifs_peft.discovery.config import GateThresholds
from aifs_peft.discovery.gate import Geometry, class_verdict, noise_of_counts, trimmed_score
from aifs_peft.discovery.proposals.trimmed import TrimmedDiscriminant


def test_chance_contrast_of_counts_is_the_formula():
    aligned, conflicting, k = np.array([40.0, 30.0, 20.0]), np.array([8.0, 4.0, 0.0]), 16
    n, K = 102.0, 3
    each = [(2 * (K - 1) / K / max(c, 1) + 1 / a) * (1 - 1 / K) / 4 for a, c in zip(aligned, conflicting, strict=True)]
    variance = 2 * sum(each) / K * n / (n - k - 1)
    mean, spread = noise_of_counts(aligned, conflicting, k)
    assert mean == pytest.approx(variance * k)
    assert spread == pytest.approx(variance * k * (2 / (k * (K - 1))) ** 0.5)


def test_a_class_must_be_clearer_than_chance():
    gate = GateThresholds(class_errors=4.0)
    # What is needed of the squared contrast: 0.5 + 0.7^2, or 0.5 + 4 * 0.2.
    for strength, spread, accepted in ((1.0, 0.1, True), (0.99, 0.1, False), (1.15, 0.2, True), (1.13, 0.2, False)):
        verdict = class_verdict(Geometry(0.0, 4.0, strength), (0.5, spread), 0.7, gate)
        assert (verdict == "accepted") == accepted


def test_no_partition_has_no_trimmed_score():
    nothing = np.zeros((2, 1))
    fit = TrimmedDiscriminant(nothing, nothing, np.array([0, 1]), position=float("nan"), separation=8.0)
    assert trimmed_score(fit, GateThresholds()) == 0.0
