"""`discover`: finds what is there, stays quiet where nothing is, and says so."""

import numpy as np
import pytest
import torch

from aifs_peft.discovery import discover
from aifs_peft.errors import InvalidInputError


def planted(rho, *, n=1500, d=24, K=2, seed=0, spurious=5.0, core=1.5):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < rho, y, (y + rng.integers(1, K, n)) % K)
    core_means, spurious_means = np.zeros((K, d)), np.zeros((K, d))
    core_means[range(K), range(K)] = core
    spurious_means[range(K), range(K, 2 * K)] = spurious
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) + core_means[y] + spurious_means[a]) @ rotation, y, a


def dominoes(shared_dir, rho, seed):
    with np.load(shared_dir / "data" / "dominoes_latents" / "train.npz") as file:
        z, y = file["z"], file["y"].astype(int)
    a = np.where(np.random.default_rng(seed).random(len(y)) < rho, y, 1 - y)
    return z[np.arange(len(y)), a], y, a


def precision_recall(groups, y, a):
    called, true = groups != y, a != y
    hit = np.count_nonzero(called & (groups == a))
    return hit / max(called.sum(), 1), hit / max(true.sum(), 1)


@pytest.mark.parametrize(("rho", "least"), [(0.8, 0.97), (0.95, 0.95), (0.98, 0.9)])
def test_finds_the_minority_of_dominoes(shared_dir, rho, least):
    Z, y, a = dominoes(shared_dir, rho, 0)
    result = discover(Z, y, random_state=0)
    precision, recall = precision_recall(result.groups_, y, a)
    assert result.found
    assert precision >= least
    assert recall >= least


def test_says_nothing_found_on_balanced_dominoes(shared_dir):
    Z, y, _ = dominoes(shared_dir, 0.5, 0)
    result = discover(Z, y, random_state=0)
    assert not result.found
    assert result.evidence_ == 0.0
    np.testing.assert_array_equal(result.groups_, y)
    assert "No spurious direction found" in result.summary()


@pytest.mark.parametrize("K", [2, 4])
def test_finds_a_planted_attribute_and_its_direction(K):
    Z, y, a = planted(0.95, K=K)
    result = discover(Z, y, random_state=0)
    precision, recall = precision_recall(result.groups_, y, a)
    assert result.found
    assert min(precision, recall) > 0.9
    d = Z.shape[1]
    assert result.basis_.shape == (d, K - 1)
    np.testing.assert_allclose(result.basis_.T @ result.basis_, np.eye(K - 1), atol=1e-8)
    np.testing.assert_allclose(result.displacements_.mean(axis=0), 0.0, atol=1e-6)
    # Each displacement lies in the basis, and is as long as what was planted (5 per axis, centred).
    inside = result.displacements_ @ result.basis_ @ result.basis_.T
    np.testing.assert_allclose(inside, result.displacements_, atol=1e-6)
    gaps = np.linalg.norm(result.displacements_[0] - result.displacements_[1])
    assert gaps == pytest.approx(5.0 * np.sqrt(2), rel=0.15)
    np.testing.assert_allclose(result.responsibilities_.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_stays_quiet_without_a_tie(seed):
    Z, y, _ = planted(0.5, seed=seed)
    assert not discover(Z, y, random_state=0).found
    shuffled = np.random.default_rng(seed).permutation(planted(0.95, seed=seed)[1])
    assert not discover(planted(0.95, seed=seed)[0], shuffled, random_state=0).found


def test_mislabelled_examples_are_not_an_attribute():
    Z, y, _ = planted(0.5, spurious=0.0, core=4.0)
    flipped = np.where(np.random.default_rng(1).random(len(y)) < 0.05, 1 - y, y)
    result = discover(Z, flipped, random_state=0)
    assert not result.found
    assert any("mislabelled" in c.reason for c in result.candidates_)


@pytest.mark.parametrize(("K", "n", "d", "share"), [(3, 2000, 32, 0.02), (4, 1500, 64, 0.05), (10, 3000, 128, 0.1)])
def test_mislabelled_examples_of_many_classes_are_not_an_attribute(K, n, d, share):
    """Chance alone gives the classes a contrast beside the true class, the more the rarer the wrong labels."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        true = rng.integers(0, K, n)
        y = np.where(rng.random(n) < share, rng.integers(0, K, n), true)
        Z = rng.normal(size=(n, d))
        Z[np.arange(n), true] += 4.0
        result = discover(Z, y, random_state=0)
        assert not result.found
        assert any("mislabelled" in c.reason for c in result.candidates_)


def test_deterministic_given_the_seed():
    Z, y, _ = planted(0.95)
    first, second = discover(Z, y, random_state=3), discover(Z, y, random_state=3)
    np.testing.assert_array_equal(first.responsibilities_, second.responsibilities_)
    np.testing.assert_array_equal(first.basis_, second.basis_)


def test_invariant_to_row_order_rotation_scale_and_class_names():
    Z, y, _ = planted(0.95)
    base = discover(Z, y, random_state=0).groups_
    rng = np.random.default_rng(9)
    order = rng.permutation(len(y))
    rotation = np.linalg.qr(rng.normal(size=(Z.shape[1], Z.shape[1])))[0]
    permuted = discover(Z[order], y[order], random_state=0).groups_
    assert np.mean(permuted == base[order]) > 0.995  # the folds differ, nothing else
    assert np.mean(discover(7.5 * Z @ rotation, y, random_state=0).groups_ == base) > 0.995
    assert np.mean(1 - discover(Z, 1 - y, random_state=0).groups_ == base) > 0.995
    named = discover(Z, np.array(["truck", "car"])[y], random_state=0)
    assert list(named.classes_) == ["car", "truck"]
    assert np.mean(1 - named.groups_ == base) > 0.995


def test_tensors_and_half_precision():
    Z, y, a = planted(0.95)
    base = discover(Z, y, random_state=0).groups_
    tensor = discover(torch.tensor(Z, dtype=torch.float16), torch.tensor(y), random_state=0)
    assert np.mean(tensor.groups_ == base) > 0.99
    half = discover(torch.tensor(Z, dtype=torch.bfloat16), y, random_state=0)
    assert np.mean(half.groups_ == a) > 0.97


def test_sampled_fit_covers_all_rows():
    Z, y, a = planted(0.95, n=4000)
    result = discover(Z, y, random_state=0, max_fit_rows=1000)
    assert result.found
    assert np.mean(result.groups_ == a) > 0.98


def test_constant_dimensions_duplicates_and_few_rows_are_fine():
    Z, y, a = planted(0.9, n=300)
    wide = np.hstack([Z, np.full((300, 400), 3.0)])  # n < d, most of it constant
    result = discover(np.vstack([wide, wide]), np.r_[y, y], random_state=0)
    assert result.found
    assert np.mean(result.groups_ == np.r_[a, a]) > 0.95


def test_too_few_to_tell_is_said():
    Z, y, _ = planted(0.95, n=200)
    y = np.where(y == 1, 1, 0)
    few = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:4]]
    result = discover(Z[few], y[few], random_state=0)
    assert not result.found
    assert "smallest class 4 (needs 5)" in result.message_


@pytest.mark.parametrize(
    ("Z", "y", "match"),
    [
        (np.full((60, 3), np.nan), np.arange(60) % 2, "60 of 60 rows of Z hold NaN"),
        (np.full((60, 3), np.inf), np.arange(60) % 2, "infinite"),
        (np.ones((60, 3)), np.arange(60) % 2, "All 60 latents are equal"),
        (np.ones((60, 3, 2)), np.arange(60) % 2, r"shape \(60, 3, 2\)"),
        (np.ones((60, 3)), np.zeros(60), "one class was given"),
        (np.ones((60, 3)), np.zeros(59), "needed is \\(60,\\)"),
        (np.array([["a"]] * 60), np.arange(60) % 2, "dtype"),
        (np.random.default_rng(0).normal(size=(60, 3)), np.full(60, np.nan), "Labels hold NaN"),
    ],
)
def test_bad_input_is_refused(Z, y, match):
    with pytest.raises(InvalidInputError, match=match):
        discover(Z, y, random_state=0)


def test_summary_reads(capsys):
    Z, y, _ = planted(0.95)
    text = discover(Z, y, random_state=0).summary()
    assert "Spurious direction found" in text
    assert "passed the gate" in text
    assert capsys.readouterr().out == ""
