"""More than two classes: what refined starts agree on, and pairs of classes."""

from dataclasses import replace

import numpy as np
import pytest

from aifs_peft.discovery import GateThresholds, discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.linear_heads.families import balanced_weights
from aifs_peft.discovery.linear_heads.logistic import fit_logistic, fit_on_common_scale
from aifs_peft.discovery.linear_heads.plain import fit_plain
from aifs_peft.discovery.mixture.refine import _assign
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.search import consensus
from aifs_peft.discovery.search.consensus import Solution, clearest, solve, solve_by_pairs
from aifs_peft.discovery.search.pairs import chosen_pairs, search_pairs
from aifs_peft.discovery.search.recombine import End


def planted(K=4, share=0.7, n=2400, k=24, seed=0, spurious=4.0, core=2.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < share, y, (y + rng.integers(1, K, n)) % K)
    X = rng.normal(size=(n, k))
    X[:, :K] += spurious * np.eye(K)[a]
    X[:, K : 2 * K] += core * np.eye(K)[y]
    return (X - X.mean(axis=0)).astype(np.float32), y, a


def styles(K=4, n=2400, k=24, seed=0):
    """Every class has two styles of its own, which no other class shares."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    X = rng.normal(size=(n, k))
    X[:, :K] += 4.0 * np.eye(K)[y]
    X[:, K : 2 * K] += 4.0 * np.eye(K)[y] * (rng.random(n) < 0.3)[:, None]
    return (X - X.mean(axis=0)).astype(np.float32), y


def mislabelled(K=4, n=2400, k=24, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K, n)
    X = rng.normal(size=(n, k))
    X[:, :K] += 4.0 * np.eye(K)[true]
    return X.astype(np.float32), np.where(rng.random(n) < 0.1, rng.integers(0, K, n), true)


def quality(attribute, y, a):
    called, true = attribute != y, a != y
    hits = np.count_nonzero(called & (attribute == a))
    return hits / max(called.sum(), 1), hits / true.sum()


def best(X, y, K, config=DEFAULT_CONFIG):
    return solve(X, y, K, rng=np.random.default_rng(0), config=config)[0]


@pytest.mark.parametrize("share", [0.6, 0.7, 0.9])
def test_many_conflicting_examples_are_found_with_their_values(share):
    X, y, a = planted(share=share)
    found = best(X, y, 4)
    assert found.record.accepted, found.record.reason
    assert min(quality(found.responsibilities.argmax(axis=1), y, a)) > 0.85


def test_styles_of_each_class_are_no_attribute():
    X, y = styles()
    found = discover(X, y, random_state=0)
    assert not found.found, found.message_


def test_wrong_labels_are_no_attribute():
    X, y = mislabelled()
    found = discover(X, y, random_state=0)
    assert not found.found, found.message_
    reasons = [c.reason for c in found.candidates_ if c.source.endswith("+refined")]
    assert any("mislabelled" in reason for reason in reasons)


def test_an_independent_attribute_is_not_found():
    rng = np.random.default_rng(0)
    X, y, _ = planted(spurious=0.0)
    X[:, 8:12] += 5.0 * np.eye(4)[rng.integers(0, 4, len(y))]
    assert not discover(X, y, random_state=0).found


def test_a_solution_that_one_start_reaches_is_not_accepted():
    X, y, _ = planted()
    strict = replace(DEFAULT_CONFIG, gate=GateThresholds(support=1.01, explained=100.0))
    found = best(X, y, 4, strict)
    assert not found.record.accepted
    assert "other starts" in found.record.reason


def test_of_all_solutions_only_the_one_that_explains_the_most_may_stand_alone():
    X, y, a = planted()
    strict = replace(DEFAULT_CONFIG, gate=GateThresholds(support=1.01, explained=0.5))
    solutions = solve(X, y, 4, rng=np.random.default_rng(0), config=strict)
    explained = [solution.explained for solution in solutions]
    assert explained == sorted(explained, reverse=True)
    assert [solution.record.accepted for solution in solutions] == [True] + [False] * (len(solutions) - 1)
    assert min(quality(solutions[0].responsibilities.argmax(axis=1), y, a)) > 0.85


def test_pairs_of_classes_stand_for_other_starts():
    X, y, a = planted(k=32, spurious=5.0, core=1.5)
    strict = GateThresholds(support=1.01, explained=100.0, trimmed_score=100.0)
    found = discover(X, y, random_state=0, gate=strict)
    assert found.found
    assert found.source_ == "pairs+refined"
    assert min(quality(found.groups_, y, a)) > 0.85
    used = next(c for c in found.candidates_ if c.source == "pairs+refined")
    assert used.support > 0.8
    nothing = discover(X, y, random_state=0, gate=replace(strict, pairs=1.01))
    assert not nothing.found
    assert any("pairs of classes" in c.reason for c in nothing.candidates_)


def test_pairs_of_rare_classes_are_passed_over():
    X, y, _ = planted(n=1500)
    rare = (y < 2) | (np.arange(len(y)) < 60)
    paired = search_pairs(X[rare], y[rare], 4, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert 0 < paired.accepted < 1


@pytest.mark.parametrize("K", [3, 4, 5, 6, 7, 20])
def test_every_class_is_in_as_many_pairs_and_no_pair_comes_twice(K):
    pairs = chosen_pairs(K, 15)
    assert len(set(pairs)) == len(pairs)
    assert all(0 <= c < d < K for c, d in pairs)
    assert len(set(np.bincount(np.ravel(pairs)))) == 1
    if K <= 6:
        assert len(pairs) == K * (K - 1) // 2


def test_discovery_covers_rows_beyond_the_sample():
    X, y, a = planted(n=3000)
    found = discover(X, y, random_state=0, max_fit_rows=1500, gate=GateThresholds(trimmed_score=100.0))
    assert found.found
    assert min(quality(found.groups_, y, a)) > 0.85


def test_aligned_examples_in_the_tails_are_not_counted_as_conflicting():
    rng = np.random.default_rng(0)
    n, K = 3000, 3
    y = rng.integers(0, K, n)
    position = rng.normal(scale=0.4, size=(n, K))  # no conflicting example at all, but wide clusters
    position[np.arange(n), y] = 0.0
    ratio = np.where(np.eye(K)[y] > 0, 0.0, 10.0 * (position - 0.5))
    R = _assign(ratio, position, y, 1.0, even=False, config=DEFAULT_CONFIG.refinement)
    beyond = np.mean(np.where(np.eye(K)[y] > 0, -1.0, position).max(axis=1) > 0.65)
    assert beyond > 0.08
    assert 1.0 - R[np.arange(n), y].mean() < 0.3 * beyond


def test_conflicting_examples_weigh_as_in_an_even_population():
    rng = np.random.default_rng(0)
    for K in (2, 3, 10):
        y = np.repeat(np.arange(K), 200)
        a = np.where(rng.random(len(y)) < 0.9, y, (y + rng.integers(1, K, len(y))) % K)
        weights = balanced_weights(y, np.eye(K)[a])
        for c in range(K):
            np.testing.assert_allclose(weights[(y == c) & (a == c)].sum(), 1 / K**2)
            np.testing.assert_allclose(weights[(y == c) & (a != c)].sum(), (K - 1) / K**2)


def test_two_attributes_of_three_classes_weigh_by_the_product_of_their_shares():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 400)
    a, b = (np.where(rng.random(1200) < 0.7, y, (y + 1) % 3) for _ in range(2))
    weights = balanced_weights(y, np.stack([np.eye(3)[a], np.eye(3)[b]], axis=1))
    np.testing.assert_allclose(weights[(y == 0) & (a != 0) & (b != 0)].sum(), 4 / 27)
    np.testing.assert_allclose(weights[(y == 0) & (a == 0) & (b != 0)].sum(), 2 / 27)


def narrow(n=300, k=120, seed=0):
    """Three classes in a few directions of large variance among many of small variance: (whitened, labels, scale)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    X = rng.normal(size=(n, k))
    X[:, :3] = rng.normal(size=(n, 3)) * 0.8 + np.eye(3)[y]
    return X.astype(np.float32), y, np.r_[np.full(3, 10.0), np.ones(k - 3)]


def test_one_common_scale_equals_whitening_where_the_scales_are_equal():
    X, y, _ = narrow()
    plain = fit_logistic(X, y, 3, l2=0.1)
    common = fit_on_common_scale(X, y, 3, l2=0.1, scale=np.full(120, 7.0))
    np.testing.assert_allclose(plain.weight, common.weight, atol=1e-6)


def test_held_out_folds_choose_the_common_scale_where_it_helps():
    X, y, scale = narrow()
    new_X, new_y, _ = narrow(seed=1, n=3000)

    def accuracy(head):
        return np.mean(head.logits(new_X).argmax(axis=1) == new_y)

    whitened, _ = fit_plain(X, y, 3, rng=np.random.default_rng(0))
    chosen, _ = fit_plain(X, y, 3, rng=np.random.default_rng(0), scale=scale)
    assert accuracy(chosen) > accuracy(whitened) + 0.02


def test_two_classes_have_no_common_scale():
    X, y, scale = narrow()
    X, y = X[y < 2], y[y < 2]
    heads = [fit_plain(X, y, 2, rng=np.random.default_rng(0), scale=s)[0] for s in (None, scale)]
    np.testing.assert_array_equal(heads[0].weight, heads[1].weight)


def test_pairs_say_nothing_where_nothing_is():
    X, y = styles()
    found = solve_by_pairs(X, y, 4, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert found is None or not found.record.accepted


def ended(attribute, *, relative, support, accepted=True):
    record = Candidate(
        source="margins+refined", k=8, share=0.1, gain=relative, cosine=0.0, strength=4.0, class_strength=2.0,
        association=0.8, conflicts=0.1, support=support, accepted=accepted, reason="",
    )  # fmt: skip
    return Solution(record, np.eye(3)[attribute])


def test_of_ends_that_bear_each_other_out_the_strongest_attribute_is_taken():
    y = np.repeat([0, 1, 2], 100)
    one, other = y.copy(), y.copy()
    one[:20], other[:18], other[200:] = 1, 1, 0
    first, same = ended(one, relative=10.0, support=0.8), ended(one, relative=20.0, support=0.8)
    # Neither what ends elsewhere, nor what other starts do not reach, nor what the gate refuses.
    others = [
        ended(other, relative=50.0, support=0.8),
        ended(one, relative=50.0, support=0.2),
        ended(one, relative=50.0, support=0.8, accepted=False),
    ]
    assert clearest([first, same, *others], y, DEFAULT_CONFIG) is same
    assert clearest(others[2:], y, DEFAULT_CONFIG) is None
    alone = ended(one, relative=10.0, support=0.1)  # accepted, for it explains the latents best
    assert clearest([alone, same, *others], y, DEFAULT_CONFIG) is alone


@pytest.mark.parametrize(("K", "n"), [(3, 300), (9, 1200)])
def test_how_often_is_refined_is_bounded_for_any_number_of_classes_and_examples(monkeypatch, K, n):
    rng = np.random.default_rng(0)
    y = np.arange(n) % K
    X = rng.normal(size=(n, 16)).astype(np.float32)
    calls = []

    def somewhere(X, y, attribute, n_classes, *, rng, config):
        """No two starts end alike: the most that can be asked for."""
        calls.append(attribute)
        return np.eye(n_classes)[np.where(rng.random(len(y)) < 0.1, rng.integers(0, n_classes, len(y)), y)]

    monkeypatch.setattr("aifs_peft.discovery.search.recombine.refine_until_stable", somewhere)
    own = DEFAULT_CONFIG.many_classes
    starts = len(own.start_components) * (len(own.start_trims) + len(own.margin_shares))
    solutions = solve(X, y, K, rng=rng, config=DEFAULT_CONFIG)
    assert len(solutions) <= len(calls) <= starts + len(own.skewed_components) + own.children


@pytest.mark.parametrize(("share", "asked"), [(1 / 3, False), (0.9, True)])
def test_ends_are_put_together_only_where_what_explains_the_most_goes_with_the_label(monkeypatch, share, asked):
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    a = np.where(rng.random(600) < share, y, (y + rng.integers(1, 3, 600)) % 3)
    X = rng.normal(size=(600, 8)).astype(np.float32)
    X[:, :3] += 5 * np.eye(3)[a] + 3 * np.eye(3)[y]
    calls = []
    monkeypatch.setattr(
        consensus, "reach", lambda X, y, start, n_classes, times=0, **_: End(start, np.eye(3)[a], 1.0, times)
    )
    monkeypatch.setattr(consensus, "recombine", lambda *_, **__: calls.append(1) or [])
    solve(X, y, 3, rng=rng, config=DEFAULT_CONFIG)
    assert bool(calls) == asked


def test_what_most_starts_agree_on_may_be_a_little_weaker_than_the_class():
    X, y, a = planted()
    clear = GateThresholds(many_relative=100.0, explained=100.0)
    found = next(s for s in solve(X, y, 4, rng=np.random.default_rng(0), config=replace(DEFAULT_CONFIG, gate=clear))
                 if s.record.accepted)  # fmt: skip
    assert found.record.support >= clear.clear_support
    assert found.record.gain > 0.0
    assert min(quality(found.responsibilities.argmax(axis=1), y, a)) > 0.9
    nobody = replace(clear, clear_support=1.01)
    solutions = solve(X, y, 4, rng=np.random.default_rng(0), config=replace(DEFAULT_CONFIG, gate=nobody))
    assert not any(s.record.accepted for s in solutions)


def test_of_ends_put_together_more_starts_must_end_there():
    ends = Candidate(
        "recombined+refined", 8, 0.0, 1.0, 0.0, 5.0, 4.0, 0.8, 0.1, support=0.5, accepted=True, reason="accepted"
    )
    assert not consensus._with_support(ends, DEFAULT_CONFIG.gate.support_together).accepted
    assert "needs 55%" in consensus._with_support(ends, DEFAULT_CONFIG.gate.support_together).reason
    assert consensus._with_support(ends, DEFAULT_CONFIG.gate.support) is ends
