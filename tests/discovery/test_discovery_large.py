"""Many examples: nothing is held for all of them but labels and responsibilities, and the result is the same."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.discover import discover
from aifs_peft.discovery.linear_heads.families import HeadSetting, fit_head
from aifs_peft.discovery.linear_heads.plain import fit_even, fit_plain
from aifs_peft.discovery.linear_heads.rows import sampled_rows
from aifs_peft.discovery.mixture.additive import AdditiveMoments, additive_model
from aifs_peft.discovery.principal_components import principal_components, without_directions
from aifs_peft.discovery.reduced import ReducedRows, leading


def planted(n: int, n_classes: int = 2, share: float = 0.9, seed: int = 0, d: int = 24, attributes: int = 1):
    """Latents with attributes that go with the label for part of the examples; label and first attribute."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    unit = np.eye(n_classes)
    Z = rng.normal(size=(n, d))
    Z[:, :n_classes] += 2.5 * unit[y]
    values = [np.where(rng.random(n) < share, y, rng.integers(0, n_classes, n)) for _ in range(attributes)]
    for place, a in enumerate(values, 1):
        Z[:, place * n_classes : (place + 1) * n_classes] += 5 * unit[a]
    return Z.astype(np.float32), y, values[0]


def rows_computed(config=DEFAULT_CONFIG, **inputs):
    """The configuration in which part of the rows is searched, and coordinates are computed when they are asked for."""
    reduction = replace(config.reduction, max_rows=1500)
    return replace(config, reduction=reduction, inputs=replace(config.inputs, **{"held_rows": 2000, **inputs}))


def test_rows_are_those_of_the_whole():
    Z, _, _ = planted(9000)
    reduction = principal_components(Z, 7, rng=np.random.default_rng(0))
    whole, rows = reduction.transform(Z), reduction.rows(Z)
    assert (rows.shape, len(rows), rows.dtype) == (whole.shape, len(whole), whole.dtype)
    chosen = np.random.default_rng(1).permutation(9000)[:8500]
    for part in (slice(3, 20), slice(8000, 12_000), chosen, whole[:, 0] > 1.0, np.arange(0), slice(5, 5)):
        np.testing.assert_allclose(rows[part], whole[part], atol=1e-6)
        np.testing.assert_allclose(leading(rows, 3)[part], whole[part][:, :3], atol=1e-6)
    with pytest.raises(ValueError, match="step is 2"):
        rows[::2]


def test_memory_maps_and_half_precision_are_read_row_by_row(tmp_path):
    Z, _, _ = planted(500)
    np.save(tmp_path / "Z.npy", Z.astype(np.float16))
    mapped = np.load(tmp_path / "Z.npy", mmap_mode="r")
    reduction = principal_components(mapped, 5, rng=np.random.default_rng(0))
    np.testing.assert_allclose(reduction.rows(mapped)[10:20], reduction.transform(mapped[:])[10:20], atol=1e-6)


def test_without_directions_computed_in_each_pass_is_the_same():
    Z, _, _ = planted(3000)
    rng = np.random.default_rng(0)
    reduction = principal_components(Z, 9, rng=rng)
    X, basis = reduction.transform(Z), np.linalg.qr(reduction.components[:2].T)[0]
    held, composed = without_directions(X, reduction, basis, rng=rng)
    few = replace(DEFAULT_CONFIG.reduction, max_rows=2900)
    for source in (X, reduction.rows(Z)):
        lazy, again = without_directions(source, reduction, basis, rng=np.random.default_rng(1), config=few)
        assert isinstance(lazy, ReducedRows)
        # Nearly the same components, of nearly the same rows; coordinates and reduction fit together.
        np.testing.assert_allclose(again.scale, composed.scale, rtol=0.05)
        np.testing.assert_allclose(lazy[:], again.transform(Z), atol=1e-4)
        assert np.abs(again.components @ basis).max() < 1e-6
    assert held.shape == lazy.shape


def test_moments_of_blocks_add_up():
    Z, y, a = planted(1000, 3)
    R = np.stack([np.eye(3)[a], np.eye(3)[y]], axis=1)
    whole = AdditiveMoments.of(Z, y, R)
    parts = AdditiveMoments.of(Z[:300], y[:300], R[:300]) + AdditiveMoments.of(Z[300:], y[300:], R[300:])
    for one, other in zip(vars(whole).values(), vars(parts).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2)
    weights = np.random.default_rng(0).random(1000) + 0.5
    both = [additive_model(X, y, R, weights=weights) for X in (Z, ReducedRows(Z, np.zeros(24), np.eye(24)))]
    np.testing.assert_allclose(both[0].alpha, both[1].alpha, atol=1e-5)
    np.testing.assert_allclose(both[0].sigma, both[1].sigma, atol=1e-5)


@pytest.mark.parametrize(("n_classes", "attributes"), [(2, 1), (2, 2), (3, 1)])
def test_discovery_is_the_same_whether_coordinates_are_held_or_computed(n_classes, attributes):
    Z, y, _ = planted(2500, n_classes, attributes=attributes)
    held, computed = (discover(Z, y, random_state=0, config=config) for config in (DEFAULT_CONFIG, rows_computed()))
    assert held.found
    assert computed.found
    assert len(held.parts_) == len(computed.parts_)
    assert np.mean(held.groups_ == computed.groups_) > 0.999
    np.testing.assert_allclose(computed.displacements_, held.displacements_, atol=0.1)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_rows_that_candidates_were_not_fitted_on_get_their_values_too(n_classes):
    Z, y, a = planted(6000, n_classes, share=0.8)
    refinement = replace(DEFAULT_CONFIG.refinement, max_rows=2500)
    config = replace(rows_computed(fit_rows=2000, held_rows=4000), refinement=refinement)
    found = discover(Z, y, random_state=0, config=config)
    assert found.found
    moved = a != y
    assert np.mean(found.groups_ == a) > 0.97
    assert np.mean(found.groups_[moved] == a[moved]) > 0.9


def test_a_sample_keeps_rare_cells_and_weighs_as_all_rows_do():
    cell = np.repeat([0, 1, 2, 4], [10_000, 7000, 30, 500])
    rows, times = sampled_rows(cell, 3000, np.random.default_rng(0))
    assert np.array_equal(rows, np.unique(rows))
    counts = np.bincount(cell[rows], minlength=5)
    assert counts.tolist() == [1235, 1235, 30, 0, 500]
    np.testing.assert_allclose(np.bincount(cell[rows], times), np.bincount(cell))
    everything, none = sampled_rows(cell, len(cell), np.random.default_rng(0))
    assert none is None
    assert np.array_equal(everything, np.arange(len(cell)))


@pytest.mark.parametrize("family", ["balanced", "counterfactual", "additive"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_head_of_a_sample_is_that_of_all_rows(family, weighted):
    Z, y, a = planted(60_000, share=0.95, d=8)
    R = np.eye(2, dtype=np.float32)[a]
    weights = np.where(np.arange(len(y)) % 3 == 0, 3.0, 1.0) if weighted else None
    heads = []
    for rows in (60_000, 8000):
        config = replace(DEFAULT_CONFIG, heads=replace(DEFAULT_CONFIG.heads, fit_rows=rows, fit_rows_per_weight=1))
        setting = HeadSetting(family, 0.1)
        heads.append(fit_head(Z, y, R, setting, rng=np.random.default_rng(0), weights=weights, config=config))
    test, labels, values = planted(20_000, share=0.5, seed=1, d=8)
    cells = 2 * labels + values
    worst = []
    for head in heads:
        hit = head.logits(test).argmax(axis=1) == labels
        worst.append(min(hit[cells == c].mean() for c in range(4)))
    assert abs(worst[0] - worst[1]) < 0.01
    assert np.allclose(heads[0].weight, heads[1].weight, atol=0.06)


def test_plain_heads_of_a_sample_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    y = (rng.random(40_000) < 0.1).astype(int)
    X = rng.normal(size=(40_000, 5)).astype(np.float32)
    X[:, 0] += 2 * y
    every, few = (replace(DEFAULT_CONFIG.heads, fit_rows=rows, fit_rows_per_weight=1) for rows in (40_000, 9000))
    plain = [fit_plain(X, y, 2, rng=np.random.default_rng(0), config=config)[0] for config in (every, few)]
    even = [
        fit_even(X, y, 2, rng=np.random.default_rng(0), weights=1.0 / np.bincount(y)[y], config=config).head
        for config in (every, few)
    ]
    for whole, sampled in (plain, even):
        assert np.allclose(whole.weight, sampled.weight, atol=0.06)
        assert np.allclose(whole.bias, sampled.bias, atol=0.12)


def test_a_classifier_is_fitted_without_torch():
    code = (
        "import sys, numpy as np; from aifs_peft import AIFSClassifier\n"
        "rng = np.random.default_rng(0); y = rng.integers(0, 2, 200); Z = rng.normal(size=(200, 8)); Z[:, 0] += 3 * y\n"
        "AIFSClassifier(random_state=0).fit(Z, y).predict_proba(Z)\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'accelerate', 'captum') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
