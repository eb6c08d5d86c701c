"""Hints that are wrong, or say nothing, are refused with the reason and change nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hinted_latents import by_source, ten_per_cell, weak

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery import discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.hints.gain import KnownHeads, Score
from aifs_peft.discovery.hints.held_out import HeldOut
from aifs_peft.discovery.hints.judge import judge_hint, known_verdict
from aifs_peft.discovery.hints.known import groups_hint, metadata_hints
from aifs_peft.errors import InvalidInputError


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_values_change_nothing(seed):
    Z, y, a, _ = weak(seed)
    known = ten_per_cell(y, a)
    rows = known >= 0
    known[rows] = np.random.default_rng(seed).permutation(known[rows])
    plain = AIFSClassifier(random_state=0).fit(Z, y)
    clf = AIFSClassifier(random_state=0).fit(Z, y, groups=known)
    assert not clf.discovery_.found
    assert "hint:groups was not used" in clf.discovery_.message_
    np.testing.assert_array_equal(clf.coef_, plain.coef_)
    np.testing.assert_array_equal(clf.intercept_, plain.intercept_)


def twenty_per_cell(y, a, seed=0):
    first = ten_per_cell(y, a, seed)
    rest = ten_per_cell(np.where(first >= 0, 2, y), a, seed + 1)  # cells 4 and 5 are not asked for
    return np.where(first >= 0, first, rest)


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_an_attribute_that_does_not_go_with_the_label_changes_nothing(seed):
    """It is predicted, and the sampler believes in a tie; examples that it did not see do not."""
    Z, y, a, _ = weak(seed, rho=0.5, contrast=2.5)
    known = twenty_per_cell(y, a)
    plain = AIFSClassifier(random_state=0).fit(Z, y)
    clf = AIFSClassifier(random_state=0).fit(Z, y, groups=known)
    assert not clf.discovery_.found
    assert "not tied to the label" in by_source(clf.discovery_, "hint:groups").reason
    np.testing.assert_array_equal(clf.coef_, plain.coef_)
    np.testing.assert_array_equal(clf.intercept_, plain.intercept_)


def test_a_hint_without_gain_on_held_out_known_examples_is_refused():
    score = {name: Score(worst, 0.05) for name, worst in (("plain", 0.7), ("hinted", 0.68), ("refitted", 0.66))}
    heads = KnownHeads(np.zeros(0, dtype=int), np.zeros((2, 1)), **score, gap=(0.2, 0.1))
    reason = known_verdict((0.9, 0.1), 0.9, heads, DEFAULT_CONFIG)
    assert reason == "no gain on held-out known examples (worse part 0.68 with it, 0.70 without)"
    better = replace(heads, hinted=Score(0.8, 0.05))
    assert known_verdict((0.9, 0.1), 0.9, better, DEFAULT_CONFIG) == "accepted"
    assert "not tied" in known_verdict((0.3, 0.2), 0.9, better, DEFAULT_CONFIG)


def test_a_failed_hint_leaves_what_discovery_finds():
    Z, y, _, _ = weak(contrast=6.0)
    noise = np.random.default_rng(3).integers(0, 3, len(y))
    plain = discover(Z, y, random_state=0)
    hinted = discover(Z, y, metadata={"weekday": noise}, random_state=0)
    assert plain.found
    np.testing.assert_array_equal(hinted.responsibilities_, plain.responsibilities_)
    assert hinted.source_ == plain.source_
    assert "hint:metadata:weekday was not used" in hinted.message_


def test_a_column_tied_to_the_label_but_not_in_the_latents_is_refused():
    Z, y, a, _ = weak(contrast=0.0)
    result = discover(Z, y, metadata={"site": a}, random_state=0)
    assert not result.found
    assert "not predicted" in by_source(result, "hint:metadata:site").reason


def test_a_column_in_the_latents_but_not_tied_to_the_label_is_refused():
    Z, y, a, _ = weak(rho=0.5, contrast=4.0)
    result = discover(Z, y, metadata={"site": a}, random_state=0)
    assert not result.found
    assert "not tied to the label" in by_source(result, "hint:metadata:site").reason


def test_the_label_itself_and_cells_instead_of_values_are_refused():
    Z, y, a, _ = weak()
    label = by_source(discover(Z, y, groups=y, random_state=0), "hint:groups")
    cells = by_source(discover(Z, y, groups=2 * y + a, random_state=0), "hint:groups")
    assert "each value occurs in one class only" in label.reason
    assert "not (label, attribute) cells" in cells.reason


@pytest.mark.parametrize(
    ("hint", "match"),
    [
        ({"groups": np.zeros(10)}, r"groups of shape \(10,\) were given for 100 examples"),
        ({"groups": np.full(100, 0.5)}, "needed are attribute values: whole numbers 0, 1"),
        ({"groups": np.full(100, -2)}, "-1 where unknown"),
        ({"groups": ["a", 1] * 50}, "or strings with None where unknown"),
        ({"metadata": [1, 2]}, "needed is a pandas DataFrame"),
        ({"metadata": {"site": [1, 2]}}, "column 'site' has 2 values for 100 examples"),
        ({"attributes": {"place": np.ones(7)}}, r"attributes\['place'\] has shape \(7,\)"),
        ({"attributes": {"place": np.ones((2, 6))}}, "no two that differ"),
        ({"attributes": [np.full(6, np.nan)]}, "not finite"),
    ],
)
def test_bad_hints_are_refused(hint, match):
    Z = np.random.default_rng(0).normal(size=(100, 6))
    with pytest.raises(InvalidInputError, match=match):
        discover(Z, np.arange(100) % 2, random_state=0, **hint)


def test_unusable_columns_say_why():
    few, constant, names = metadata_hints({"few": ["a"] * 4 + ["b"] * 96, "one": ["a"] * 100, "id": range(100)}, 100)
    assert "1 value(s) known" in few.problem
    assert "1 value(s) known" in constant.problem
    assert names.n_values == 4  # quartiles
    assert "merge them" in groups_hint(np.repeat(np.arange(25), 5), 125).problem


@pytest.mark.parametrize("core", [1.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_column_that_repeats_the_label_with_errors_is_refused(core, seed):
    """Nearly all its values lie where the label alone would put them: that must not count as predicting them."""
    Z, y, _, _ = weak(seed, contrast=0.0, core=core)
    wrong = np.random.default_rng(seed + 100).random(len(y)) < 0.02
    result = discover(Z, y, metadata={"second annotator": np.where(wrong, 1 - y, y)}, random_state=0)
    assert not result.found
    assert "not predicted" in by_source(result, "hint:metadata:second annotator").reason


@pytest.mark.parametrize("seed", [50, 52])
def test_a_column_of_corrected_labels_is_refused(seed):
    """The only structure is the true class: nothing of the label is left beside it but its errors."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, 1500)
    y = np.where(rng.random(1500) < 0.05, rng.integers(0, 4, 1500), true)
    Z = rng.normal(size=(1500, 64))
    Z[np.arange(1500), true] += 4.0
    plain = AIFSClassifier(random_state=0).fit(Z, y)
    hinted = AIFSClassifier(random_state=0).fit(Z, y, metadata={"corrected": true})
    assert "nothing of the class beside it" in by_source(hinted.discovery_, "hint:metadata:corrected").reason
    np.testing.assert_array_equal(hinted.coef_, plain.coef_)


def test_one_known_value_per_cell_of_nothing_is_refused():
    """Chance passes the held-out check in about 3 % of such draws: for 4 or more of 12 that is a chance of 0.04 %."""
    passed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 5, 300)
        known = np.full(300, -1)
        for label in range(5):
            for value in range(2):
                known[rng.choice(np.flatnonzero((y == label) & (known < 0)))] = value
        X = rng.normal(size=(300, 10)) + 2.0 * np.eye(5, 10)[y]
        hint = groups_hint(known, 300)
        verdict = judge_hint(X, y, 5, hint, rng=rng, config=DEFAULT_CONFIG, rows=np.arange(300)).record
        passed += "not predicted" not in verdict.reason
    assert passed <= 3


def test_few_known_examples_must_be_predicted_by_more_standard_errors():
    """As Student's t has it: the error is estimated from them, too."""
    score = HeldOut(beyond=0.28, error=0.1, freedom=9)
    assert not score.clear(2.5)
    assert replace(score, beyond=0.312).clear(2.5)  # the t of 9 degrees of freedom that is as unlikely as 2.5
    assert replace(score, freedom=100).clear(2.5)
    assert not replace(score, freedom=10**6, beyond=0.249).clear(2.5)
    assert replace(score, freedom=10**6, beyond=0.251).clear(2.5)
    assert not replace(score, beyond=-1.0).clear(2.5)


def test_a_direction_outside_the_latents_is_refused():
    Z, y, _, _ = weak()
    Z[:, 0] = 1.0
    verdict = by_source(
        discover(Z, y, attributes={"constant": np.eye(32)[0]}, random_state=0), "hint:attribute:constant"
    )
    assert verdict.reason.startswith("nothing of the direction is left")


def test_a_column_given_twice_says_why_it_was_not_used():
    Z, y, a, _ = weak(contrast=5.0)
    result = discover(Z, y, groups=a, metadata={"again": a}, random_state=0)
    unused = {"hint:groups", "hint:metadata:again"} - {result.source_}
    last = [c for c in result.candidates_ if c.source in unused][-1]
    assert not last.accepted
    assert f"{last.source} was not used: {last.reason}." in result.message_
    assert "weaker" not in result.message_
