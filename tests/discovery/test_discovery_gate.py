"""Formulas of the gate, each against an independent computation."""

from types import SimpleNamespace

import numpy as np
import pytest

from aifs_peft.discovery.config import GateThresholds
from aifs_peft.discovery.gate import (
    Geometry,
    association,
    association_error,
    association_noise,
    class_noise,
    class_verdict,
    geometry,
    mixture_verdict,
    noise_of_counts,
    refined_verdict,
    relative_strength,
    trimmed_score,
)
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


def test_trimmed_score_is_the_formula():
    nothing, gate = np.zeros((2, 1)), GateThresholds(trimmed_position=0.2, trimmed_separation=4.0)
    for position, separation, expected in ((0.8, 8.0, 1.5), (0.8, 2.0, 0.75), (3.0, 8.0, 2.5), (0.3, 8.0, -1.0)):
        fit = TrimmedDiscriminant(nothing, nothing, np.array([0, 1]), position=position, separation=separation)
        assert trimmed_score(fit, gate) == pytest.approx(expected)


def test_geometry_is_that_of_centred_offsets_in_the_metric_of_the_precision():
    rng = np.random.default_rng(0)
    alpha, beta, root = rng.normal(size=(3, 4)) + 2, rng.normal(size=(3, 4)) - 5, rng.normal(size=(4, 4))
    found = geometry(SimpleNamespace(alpha=alpha, beta=beta, precision=root @ root.T))
    a, b = ((part - part.mean(axis=0)) @ root for part in (alpha, beta))
    assert found.strength == pytest.approx(np.sqrt(2 * np.mean(np.sum(b**2, axis=1))))
    assert found.class_strength == pytest.approx(np.sqrt(2 * np.mean(np.sum(a**2, axis=1))))
    assert found.cosine == pytest.approx(np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2)))


def test_association_of_three_classes_one_of_which_has_no_example():
    y = np.array([0, 0, 0, 0, 1, 1])
    attribute = np.array([0, 0, 0, 1, 1, 2])
    rows = np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0]])
    others = [(rows[1, 0] + rows[2, 0]) / 2, (rows[0, 1] + rows[2, 1]) / 2, (rows[0, 2] + rows[1, 2]) / 2]
    assert association(attribute, y, 3) == pytest.approx(np.mean(np.diag(rows) - others))


def test_standard_error_of_an_association_by_chance():
    # Of two values, evenly split and independent: P(a | y) has variance 1/4n, and association is a sum of such shares.
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [30, 170])
    drawn = [association(rng.integers(0, 2, 200), y, 2) for _ in range(4000)]
    assert association_error(y) == pytest.approx(np.std(drawn), rel=0.05)
    assert association_error(np.repeat([0, 1, 2], [10, 20, 40])) == pytest.approx(
        np.sqrt(0.25 * (1 / 10 + 1 / 20 + 1 / 40)) / 1.5
    )
    assert association_noise(y, GateThresholds(association_errors=2.0)) == pytest.approx(2 * association_error(y))


def split(n=400, moved=40):
    y = np.arange(n) % 2
    return np.where(np.arange(n) < moved, 1 - y, y), y


def test_relative_strength_leaves_out_what_chance_gives():
    attribute, y = split()
    noise, _ = class_noise(attribute, y, 2, 8)
    gate = GateThresholds(class_strength=0.7)
    relative = relative_strength(Geometry(0.0, 4.0, 2.0), attribute, y, 8, gate)
    assert relative == pytest.approx(np.sqrt((16 - noise) / (4 - noise)))
    # A class that shows less than chance counts as `class_strength`, an attribute as nothing.
    assert relative_strength(Geometry(0.0, 4.0, 0.1), attribute, y, 8, gate) == pytest.approx(np.sqrt(16 - noise) / 0.7)
    assert relative_strength(Geometry(0.0, 0.1, 2.0), attribute, y, 8, gate) == 0.0


GATE = GateThresholds(cosine=-0.5, strength=3.0, ratio=1.0, association=0.3, association_errors=0.0, min_conflicts=10)


@pytest.mark.parametrize(
    ("gain", "shape", "moved", "verdict"),
    [
        (1.0, (-0.4, 4.0, 3.0), 10, "accepted"),
        (1.0, (-0.4, 3.0, 3.0), 10, "accepted"),  # at the thresholds
        (1.0, (-0.4, 4.0, 3.0), 9, "only 9 conflicting examples (needs 10)"),
        (0.0, (-0.4, 4.0, 3.0), 10, "no better than the model without attribute"),
        (0.5, (-0.4, 4.0, 3.0), 10, "accepted"),
        (1.0, (-0.5, 4.0, 3.0), 10, "moves hard examples along the class difference (cosine -0.50)"),
        (1.0, (-0.4, 2.9, 2.0), 10, "attribute contrast too small (2.90 < 3.0)"),
        (1.0, (-0.4, 4.0, 4.1), 10, "weaker than the class itself (4.00 < 4.10)"),
        (1.0, (-0.4, 4.0, 3.0), 160, "not tied to the label (association 0.20 < 0.30)"),
        (1.0, (-0.4, 4.0, 0.1), 10, "nothing of the class beside it: mislabelled?"),
    ],
)
def test_each_reason_against_a_mixture(gain, shape, moved, verdict):
    attribute, y = split(moved=moved)
    assert mixture_verdict(gain, Geometry(*shape), attribute, y, 8, GATE).startswith(verdict)


@pytest.mark.parametrize(
    ("relative", "strength", "verdict"),
    [
        (1.5, 5.0, "accepted"),
        (1.49, 5.0, "not clearly stronger than the class (1.49 < 1.5)"),
        (1.5, 4.9, "attribute contrast too small (4.90 < 5.0)"),
    ],
)
def test_each_reason_against_a_refined_partition(relative, strength, verdict):
    attribute, y = split()
    gate = GateThresholds(cosine=-0.5, strength=3.0, refined_strength=5.0, relative=1.5)
    assert refined_verdict(relative, Geometry(0.0, strength, 2.0), attribute, y, 8, gate) == verdict
