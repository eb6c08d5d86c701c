"""The parts of discovery: mixture, gate, additive head, choice of the head."""

import numpy as np
import pytest

from aifs_peft.discovery.config import DEFAULT_CONFIG, MixtureConfig, ProposalConfig
from aifs_peft.discovery.gate import association, class_noise, geometry, jaccard, trimmed_score
from aifs_peft.discovery.linear_heads.additive import additive_head
from aifs_peft.discovery.linear_heads.choice import choose_head
from aifs_peft.discovery.linear_heads.families import balanced_weights, counterfactuals
from aifs_peft.discovery.mixture.additive import additive_model, split_by_signal
from aifs_peft.discovery.mixture.em import Moments, fit_mixture, null_log_likelihood, partition_fit
from aifs_peft.discovery.proposals.trimmed import trimmed_discriminant


def planted(n=2000, k=6, rho=0.9, core=2.0, spurious=5.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < rho, y, 1 - y)
    X = rng.normal(size=(n, k))
    X[:, 0] += core * y
    X[:, 1] += spurious * a
    return X, y, a, np.eye(2)[a]


def gaussian_log_likelihood(residual, covariance):
    inverse, (_, log_det) = np.linalg.inv(covariance), np.linalg.slogdet(covariance)
    n, k = residual.shape
    return -0.5 * (np.sum((residual @ inverse) * residual) + n * (log_det + k * np.log(2 * np.pi)))


def test_null_likelihood_equals_the_direct_sum():
    X, y, _, _ = planted(n=300)
    residual = X - np.stack([X[y == c].mean(axis=0) for c in (0, 1)])[y]
    direct = gaussian_log_likelihood(residual, residual.T @ residual / len(y))
    assert null_log_likelihood(Moments.of(X, y, 2), config=MixtureConfig(shrinkage=0.0)) == pytest.approx(
        direct, rel=1e-6
    )


def test_mixture_recovers_offsets_and_its_likelihood_never_falls():
    X, y, a, R = planted()
    data = Moments.of(X, y, 2)
    start = 0.7 * R + 0.15
    settings = [MixtureConfig(max_iter=i, tolerance=-np.inf, shrinkage=0.0) for i in range(1, 8)]
    likelihoods = [fit_mixture(data, start, config=setting).log_likelihood for setting in settings]
    assert np.all(np.diff(likelihoods) > -1e-6 * abs(likelihoods[0]))
    fit = fit_mixture(data, start, config=MixtureConfig())
    np.testing.assert_allclose(np.diff(fit.alpha, axis=0)[0, :2], [2.0, 0.0], atol=0.35)
    np.testing.assert_allclose(np.diff(fit.beta, axis=0)[0, :2], [0.0, 5.0], atol=0.35)
    assert np.mean(fit.responsibilities(X, y).argmax(axis=1) == a) > 0.98


def test_geometry_and_class_noise_tell_mislabelled_from_conflicting():
    X, y, a, R = planted(core=2.0)
    shape = geometry(partition_fit(Moments.of(X, y, 2), R, config=MixtureConfig()))
    assert abs(shape.cosine) < 0.2
    assert shape.strength == pytest.approx(5.0 / np.sqrt(2), rel=0.1)
    X, y, a, R = planted(core=0.0)  # the label is the attribute with flips, nothing else
    expected, spread = class_noise(a, y, 2, X.shape[1])
    assert (
        geometry(partition_fit(Moments.of(X, y, 2), R, config=MixtureConfig())).class_strength ** 2
        < expected + 4 * spread
    )


@pytest.mark.parametrize("K", [2, 3, 6])
def test_class_noise_is_that_of_mislabelled_examples(K):
    """The true class is the attribute and nothing else is there: the class contrast beside it is chance."""
    seen = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a = rng.integers(0, K, 2000)
        y = np.where(rng.random(2000) < 0.1, rng.integers(0, K, 2000), a)
        X = rng.normal(size=(2000, 24)) + 3.0 * np.eye(K, 24)[a]
        shape = geometry(partition_fit(Moments.of(X, y, K), np.eye(K)[a], config=MixtureConfig()))
        seen.append(shape.class_strength**2 / class_noise(a, y, K, 24)[0])
    assert np.mean(seen) == pytest.approx(1.0, abs=0.12)


def test_association_and_jaccard():
    y = np.array([0, 0, 1, 1])
    assert association(y, y, 2) == 1.0
    assert association(np.array([0, 1, 0, 1]), y, 2) == 0.0
    assert jaccard(np.array([True, True, False]), np.array([True, False, False])) == 0.5
    assert jaccard(np.zeros(3, bool), np.zeros(3, bool)) == 0.0


def test_trimmed_score_separates_conflicts_from_overlap():
    X, y, _, _ = planted(rho=0.95, spurious=8.0)
    shortcut = trimmed_score(trimmed_discriminant(X, y, 2, trim=0.1, config=ProposalConfig()), DEFAULT_CONFIG.gate)
    X, y, _, _ = planted(rho=0.5, core=2.5)
    overlap = trimmed_score(trimmed_discriminant(X, y, 2, trim=0.1, config=ProposalConfig()), DEFAULT_CONFIG.gate)
    assert shortcut > 1.5
    assert overlap < 0.95


def test_split_keeps_the_sum_and_shrinks_noise():
    X, y, _, R = planted(n=400, k=200, rho=0.95)
    model = additive_model(X, y, R)
    alpha, beta = split_by_signal(model, config=MixtureConfig())
    before = model.alpha - model.alpha.mean(axis=0) + model.beta
    np.testing.assert_allclose(alpha + beta, before, atol=1e-10)
    raw = model.alpha - model.alpha.mean(axis=0)
    assert np.linalg.norm(alpha[:, 100:]) < 0.5 * np.linalg.norm(raw[:, 100:])  # nothing but noise there


def test_additive_head_turns_away_from_the_attribute():
    X, y, _, R = planted()
    model = additive_model(X, y, R)
    weak = additive_head(model, shrinkage=0.05, avoidance=0.0, config=MixtureConfig()).weight
    strong = additive_head(model, shrinkage=0.05, avoidance=30.0, config=MixtureConfig()).weight
    direction = np.diff(model.beta, axis=0)[0]
    assert abs(np.diff(strong, axis=0)[0] @ direction) <= abs(np.diff(weak, axis=0)[0] @ direction) + 1e-9
    test_X, test_y, test_a, _ = planted(rho=0.5, seed=1)
    hit = (
        additive_head(model, shrinkage=0.05, avoidance=3.0, config=MixtureConfig()).logits(test_X).argmax(axis=1)
        == test_y
    )
    assert abs(hit[test_a == test_y].mean() - hit[test_a != test_y].mean()) < 0.08


def test_balanced_weights_give_every_cell_the_same():
    _, y, a, R = planted(rho=0.95)
    weights = balanced_weights(y, R)
    cells = [weights[(y == c) & (a == b)].sum() for c in (0, 1) for b in (0, 1)]
    np.testing.assert_allclose(cells, 0.25, atol=1e-9)


def test_counterfactuals_move_to_the_other_value():
    X, y, a, R = planted()
    moved = counterfactuals(X, y, R, rng=np.random.default_rng(0)) - X
    np.testing.assert_allclose(moved[a == 0, 1], 5.0, atol=0.4)
    np.testing.assert_allclose(moved[a == 1, 1], -5.0, atol=0.4)


def test_cells_too_small_do_not_choose():
    X, y, _, R = planted(n=120, rho=0.97)
    choice = choose_head(X.astype(np.float32), y, R, rng=np.random.default_rng(0))
    assert choice.setting.family == "additive"
    assert choice.scores == {}
    assert "too small to judge" in choice.reason
