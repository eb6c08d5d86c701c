"""Unlabelled examples: where they show a weak attribute it is found, where they do not nothing changes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from aifs_peft import audit
from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery import discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.discovery.unlabelled.coordinates import Coordinates
from aifs_peft.discovery.unlabelled.held_out import held_out
from aifs_peft.discovery.unlabelled.pool import Pool, as_pool
from aifs_peft.discovery.unlabelled.search import exchanged, solve, spread_axes
from aifs_peft.discovery.unlabelled.within_cells import in_order
from aifs_peft.errors import InvalidInputError

D, CORE, CONTRAST = 24, 2.0, 2.5


def draw(rng, n, aligned, axes, K=2, contrast=CONTRAST):
    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < aligned, y, (y + rng.integers(1, K, n)) % K)
    corners = np.linalg.svd(np.eye(K) - 1.0 / K)[0][:, : K - 1] / np.sqrt(2.0)
    Z = rng.normal(size=(n, D)) + (CORE * corners @ axes[: K - 1])[y] + (contrast * corners @ axes[K - 1 :])[a]
    return Z, y, a


def populations(seed=0, K=2, n=2500, pool=400, pool_aligned=None, contrast=CONTRAST):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(D, 2 * (K - 1))))[0].T
    sizes = ((n, 0.95), (pool, 1 / K if pool_aligned is None else pool_aligned), (6000, 1 / K))
    return [draw(rng, size, aligned, axes, K, contrast) for size, aligned in sizes], axes


def worst(clf, test, K=2):
    Z, y, a = test
    hit = clf.predict(Z) == y
    return min(hit[(y == c) & (a == b)].mean() for c in range(K) for b in range(K))


@pytest.mark.parametrize("pool_aligned", [0.5, 0.7])
def test_a_weak_attribute_is_found_and_turned_away_from(pool_aligned):
    (train, pool, test), axes = populations(pool_aligned=pool_aligned)
    alone = AIFSClassifier(random_state=0).fit(*train[:2])
    helped = AIFSClassifier(random_state=0).fit(*train[:2], unlabelled=torch.as_tensor(pool[0]))
    assert not alone.discovery_.found
    found = helped.discovery_
    assert found.source_ == "hint:unlabelled"
    assert "Used: the unlabelled examples." in found.message_
    assert abs(found.basis_[:, 0] @ axes[1]) > 0.9
    assert abs(found.basis_[:, 0] @ axes[0]) < 0.4
    best = 0.841  # the normal distribution's share beyond half the class contrast
    plain = worst(alone, test)
    assert plain < 0.6
    assert worst(helped, test) > plain + 0.8 * (best - plain)


def heavy_tailed(seed=0, n=4000, pool=400):
    """The same with noise of Student's t with 4 degrees of freedom, one scale per example, of unit variance."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(D, 2)))[0].T
    out = []
    for size, aligned in ((n, 0.95), (pool, 0.5)):
        Z, y, a = draw(rng, size, aligned, axes)
        middle = CORE * (y[:, None] - 0.5) * axes[0] + CONTRAST * (a[:, None] - 0.5) * axes[1]
        far = np.sqrt(2.0 / rng.chisquare(4, size=size))
        out.append((middle + (Z - middle) * far[:, None], y, a))
    return out, axes


def test_an_attribute_is_found_among_examples_that_lie_far_out_in_everything():
    for seed in (0, 1):
        (train, pool), axes = heavy_tailed(seed)
        found = discover(*train[:2], unlabelled=pool[0], random_state=0)
        assert found.source_ == "hint:unlabelled", found.message_
        assert abs(found.basis_[:, 0] @ axes[1]) > 0.85


def test_coordinates_make_classes_normal_and_keep_directions_and_differences():
    (train, pool), _ = heavy_tailed()
    X, y = train[0].astype(np.float32), train[1]
    made = Coordinates.of(X, y, 2, D, DEFAULT_CONFIG)
    data = made.data(X, y, Pool(pool[0].astype(np.float32)))
    for part, bounds in ((X, (1e3, np.inf)), (data.X, (30, 70))):
        square = np.sum((part - np.stack([part[y == c].mean(axis=0) for c in (0, 1)])[y]) ** 2, axis=1)
        assert bounds[0] < square.var() < bounds[1]  # 48 for normal noise of this width
    residual = data.X - data.means[y].astype(np.float32)
    np.testing.assert_allclose(residual.T @ residual / len(y), np.eye(D), atol=0.05)
    np.testing.assert_allclose(data.means.sum(axis=0), 0.0, atol=1e-9)
    # Among examples in the middle the map is about linear, and `back` undoes it.
    near = np.argsort(np.abs(np.sum(residual**2, axis=1) - D))[:200]
    told = made.back((data.X[near] - data.X[near].mean(axis=0)).astype(np.float64))
    true = X[near] - X[near].mean(axis=0)
    assert np.sum(told * true) / np.linalg.norm(told) / np.linalg.norm(true) > 0.97
    assert np.linalg.norm(told) == pytest.approx(np.linalg.norm(true), rel=0.15)
    assert data.U.shape == (400, D)
    assert data.X.dtype == np.float32


def test_three_classes():
    (train, pool, test), axes = populations(K=3)
    alone = AIFSClassifier(random_state=0).fit(*train[:2])
    helped = AIFSClassifier(random_state=0).fit(*train[:2], unlabelled=pool[0])
    known = AIFSClassifier(random_state=0).fit(*train[:2], groups=train[2])
    assert helped.discovery_.source_ == "hint:unlabelled"
    assert helped.discovery_.basis_.shape == (D, 2)
    inside = np.linalg.svd(helped.discovery_.basis_.T @ axes[2:].T)[1]
    assert inside.min() > 0.8
    plain, best = worst(alone, test, 3), worst(known, test, 3)
    assert worst(helped, test, 3) > plain + 0.8 * (best - plain)


def changed(pool, kind, rng):
    Z = pool[0].copy()
    direction = rng.normal(size=D) / np.sqrt(D)
    if kind == "class share":
        return Z[(pool[1] == 0) | (rng.random(len(Z)) < 0.4)]
    if kind == "moved":
        return Z + direction
    if kind == "wider":
        return 1.3 * Z
    if kind == "cluster":
        Z[rng.random(len(Z)) < 0.15] += 3 * direction
        return Z
    return Z if kind == "like training" else rng.normal(size=Z.shape) * Z.std(axis=0)


@pytest.mark.parametrize("kind", ["class share", "moved"])
def test_a_pool_that_shows_it_may_also_have_other_class_shares_or_be_moved(kind):
    (train, pool, _), axes = populations()
    other = changed(pool, kind, np.random.default_rng(5))
    found = discover(*train[:2], unlabelled=other, random_state=0)
    assert found.source_ == "hint:unlabelled"
    assert abs(found.basis_[:, 0] @ axes[1]) > 0.9


@pytest.mark.parametrize("kind", ["like training", "class share", "moved", "wider", "cluster", "noise"])
def test_a_pool_that_shows_nothing_changes_nothing(kind):
    (train, pool, _), _ = populations(contrast=0.0, n=1500)
    other = changed(pool, kind, np.random.default_rng(5))
    plain = AIFSClassifier(random_state=0).fit(*train[:2])
    given = AIFSClassifier(random_state=0).fit(*train[:2], unlabelled=other)
    assert not given.discovery_.found
    np.testing.assert_array_equal(given.coef_, plain.coef_)
    np.testing.assert_array_equal(given.intercept_, plain.intercept_)
    assert "The unlabelled examples were not used: " in given.discovery_.message_
    assert [c.source for c in given.discovery_.candidates_ if c.source.startswith("hint:")] == ["hint:unlabelled"]


@pytest.mark.parametrize(
    ("seed", "kind", "why"),
    [
        (1, "noise", "is the class is not clear, and they vary along the difference of the classes 0.32 times"),
        (9, "like training", "< 1.5 standard errors"),
    ],
)
def test_an_order_of_few_nats_needs_a_pool_of_the_same_classes_and_the_folds(seed, kind, why):
    (train, pool, _), _ = populations(seed, contrast=0.0, n=1500)
    found = discover(*train[:2], unlabelled=changed(pool, kind, np.random.default_rng(seed + 5)), random_state=0)
    assert not found.found
    assert why in found.message_


@pytest.mark.parametrize("noise", [True, False])
def test_a_shortcut_that_is_clear_without_the_pool_stays_as_it_is(noise):
    (train, pool, _), _ = populations(contrast=7.0, n=1500)
    unlabelled = np.random.default_rng(0).normal(size=(300, D)) if noise else pool[0]
    alone = discover(*train[:2], random_state=0)
    given = discover(*train[:2], unlabelled=unlabelled, random_state=0)
    assert alone.found
    assert given.source_ == alone.source_
    for name in ("groups_", "responsibilities_", "basis_", "displacements_", "class_displacements_"):
        np.testing.assert_array_equal(getattr(given, name), getattr(alone, name))


def test_a_weak_attribute_beside_a_clear_one():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(D, 3)))[0].T

    def both(n, aligned):
        Z, y, a = draw(rng, n, aligned, axes[:2])
        b = np.where(rng.random(n) < 0.95, y, 1 - y)
        return Z + 6 * (b[:, None] - 0.5) * axes[2], y, a

    train, pool = both(4000, 0.95), both(600, 0.5)
    found = discover(*train[:2], unlabelled=pool[0], random_state=0)
    assert {part.source_ for part in found.parts_} >= {"hint:unlabelled"}
    weak = next(part for part in found.parts_ if part.source_ == "hint:unlabelled")
    assert abs(weak.basis_[:, 0] @ axes[1]) > 0.8


def test_the_same_pool_gives_the_same_result_and_its_order_of_rows_hardly_matters():
    (train, pool, _), _ = populations(n=1500)
    first = discover(*train[:2], unlabelled=pool[0], random_state=0)
    again = discover(*train[:2], unlabelled=pool[0], random_state=0)
    turned = discover(*train[:2], unlabelled=pool[0][::-1], random_state=0)
    np.testing.assert_array_equal(first.responsibilities_, again.responsibilities_)
    assert abs(first.basis_[:, 0] @ turned.basis_[:, 0]) > 0.999


def test_class_and_attribute_are_told_apart_from_either_start():
    (train, pool, _), axes = populations()
    reduction = principal_components(train[0], rng=np.random.default_rng(0))
    X, y = reduction.transform(train[0]), train[1]
    made = Coordinates.of(X, y, 2, D, DEFAULT_CONFIG)
    data = made.data(X, y, as_pool(pool[0], reduction, config=DEFAULT_CONFIG))
    own, gate = DEFAULT_CONFIG.unlabelled, DEFAULT_CONFIG.gate
    found = solve(data, spread_axes(data, D, 1), rng=np.random.default_rng(0), config=own, gate=gate)
    turned = replace(found, model=found.exchanged, exchanged=found.model)
    for solution in (found, turned):
        best = in_order(solution, own, gate)
        assert best.nats > gate.unlabelled_order
        along = reduction.lift(made.back(best.solution.model.beta))
        along = (along[1] - along[0]) / np.linalg.norm(along[1] - along[0])
        assert abs(along @ axes[1]) > 0.85
        assert best.cells.model.rate == pytest.approx(0.05, abs=0.02)
        # The folds find the same two directions, whichever of them they call the class.
        told = held_out(solution, data, rng=np.random.default_rng(0), config=own, gate=gate)
        assert told.agreement > 0.9
        assert best.clear
        # Asked a second time, in rounds and under a weaker prior, it is told more clearly, but never called clear.
        second = in_order(solution, own, replace(gate, unlabelled_order=np.inf))
        assert best.nats < second.nats < np.inf
        assert not second.clear
        assert second.settled
        assert np.sum(second.cells.offsets()[1] * best.cells.offsets()[1]) > 0
    other = exchanged(found.model, 0.02)
    np.testing.assert_allclose(exchanged(other, 0.02).beta, found.model.beta, atol=1e-9)


def test_where_no_order_is_plausible_none_is_told():
    (train, pool, _), _ = populations(n=500)
    reduction = principal_components(train[0], rng=np.random.default_rng(0))
    X, y = reduction.transform(train[0]), train[1]
    data = Coordinates.of(X, y, 2, D, DEFAULT_CONFIG).data(X, y, as_pool(pool[0], reduction, config=DEFAULT_CONFIG))
    own, gate = DEFAULT_CONFIG.unlabelled, DEFAULT_CONFIG.gate
    found = solve(data, spread_axes(data, D, 1), rng=np.random.default_rng(0), config=own, gate=gate)
    best = in_order(found, own, replace(gate, unlabelled_contrast=50.0))
    assert best.nats == -np.inf
    assert not best.settled
    assert not best.clear


def test_in_the_coordinates_of_another_reduction():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(300, 6)) * [5, 4, 3, 2, 1, 1] + 2.0
    old, new = (principal_components(Z[:n], k, rng=rng) for n, k in ((300, 6), (200, 4)))
    moved = Pool(old.transform(Z)).within(old, new)
    np.testing.assert_allclose(moved.X, new.transform(Z), atol=1e-4)


def test_the_audit_says_what_became_of_them():
    (train, pool, _), _ = populations(n=1500)
    told = audit(*train[:2], unlabelled=pool[0], harm=False)
    assert told.found
    assert "400 unlabelled examples were read and used: what was found rests on them." in told.sentence
    nothing = audit(*train[:2], unlabelled=np.random.default_rng(0).normal(size=(100, D)), harm=False)
    assert "100 unlabelled examples were read and not used: " in nothing.sentence
    assert nothing.looked_at["unlabelled"] == {"n": 100, "rests_on": 0.0}


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (np.zeros((100, D + 1)), f"width {D}"),
        (np.full((100, D), np.nan), "NaN"),
        (np.zeros((0, D)), "unlabelled"),
        (np.zeros(D), r"shape \(24,\)"),
        (np.zeros((49, D)), "at least 50"),
        (np.array([["a"] * D] * 60), "dtype"),
        (np.zeros((1, D)), "holds 1 example;"),
        ({"Z": np.zeros((60, D))}, "dict"),
        ("site_b.npz", "str"),
        (csr_matrix(np.eye(60, D)), r"csr_matrix.*toarray\(\)"),
        ((np.zeros((60, D)), np.zeros(60)), "make no array"),
        (pd.DataFrame(np.zeros((60, D))).assign(site="b"), "dtype object"),
        (np.full((60, D), 1e30), "scale both the same way"),
    ],
    ids=["width", "nan", "empty", "flat", "few", "text", "one", "dict", "path", "sparse", "pair", "frame", "scale"],
)
def test_pools_that_cannot_be_used(pool, message):
    (train, _, _), _ = populations(n=200)
    for call in (
        lambda: discover(*train[:2], unlabelled=pool),
        lambda: AIFSClassifier().fit(*train[:2], unlabelled=pool),
    ):
        with pytest.raises(InvalidInputError, match=message) as caught:
            call()
        assert "unlabelled" in str(caught.value)


def test_a_frame_is_read_as_its_values_and_the_labelled_examples_themselves_show_nothing():
    (train, pool, _), _ = populations(n=1500)
    framed = discover(*train[:2], unlabelled=pd.DataFrame(pool[0]).add_prefix("z"), random_state=0)
    plain = discover(*train[:2], unlabelled=pool[0], random_state=0)
    np.testing.assert_array_equal(framed.responsibilities_, plain.responsibilities_)
    (train, _, _), _ = populations(contrast=0.0, n=500)
    same = discover(*train[:2], unlabelled=train[0], random_state=0)
    assert not same.found
    assert "The unlabelled examples were not used: " in same.message_


def test_what_a_pool_drawn_like_a_small_training_set_shows_is_too_weak():
    # A false alarm without that limit, which cost 12 points of the worst class.
    rng = np.random.default_rng(321)
    of_class, of_value = np.linalg.qr(rng.normal(size=(D, 2)))[0].T
    parts = []
    for n in (1500, 400):
        y, a = rng.integers(0, 2, n), rng.integers(0, 2, n)
        noise = rng.normal(size=(n, D))
        parts.append((noise + 1.5 * (y[:, None] - 0.5) * of_class + 2 * (a[:, None] - 0.5) * of_value, y))
    found = AIFSClassifier(random_state=0).fit(*parts[0], unlabelled=parts[1][0]).discovery_
    assert not found.found
    assert "too weak to be told from chance (strength 0.7" in found.message_


def test_rows_that_are_there_several_times_count_once():
    (train, pool, _), _ = populations(n=1500)
    once = discover(*train[:2], unlabelled=pool[0], random_state=0)
    often = discover(*train[:2], unlabelled=np.concatenate([pool[0], pool[0][:200], pool[0]]), random_state=0)
    assert once.found
    np.testing.assert_array_equal(once.responsibilities_, often.responsibilities_)


def test_a_head_turns_away_from_what_a_pool_shows_farther_than_from_a_hint():
    (train, pool, _), _ = populations(n=1500)
    clf = AIFSClassifier(random_state=0).fit(*train[:2], unlabelled=pool[0])
    attribute = clf.discovery_.displacements_[1] - clf.discovery_.displacements_[0]
    classes = clf.discovery_.class_displacements_[1] - clf.discovery_.class_displacements_[0]
    assert abs(clf.coef_[0] @ attribute) < 0.03 * abs(clf.coef_[0] @ classes)


def test_a_pool_of_equal_rows_is_refused_by_the_gate():
    (train, _, _), _ = populations(n=500)
    found = discover(*train[:2], unlabelled=np.zeros((100, D)), random_state=0)
    assert not found.found
    assert "not used" in found.message_
