"""docs/theory.md, section 3: what labelled data say of class and attribute, and what a pool adds."""

from itertools import product

import numpy as np
import pytest

ALPHA, BETA = np.array([2.0, 0.0, 0.5, 0.0]), np.array([0.0, 3.0, 0.5, -1.0])
SIGMA = np.diag([1.0, 2.0, 0.5, 1.5])
HALVES = (-0.5, 0.5)


def cells(aligned: float, p_class: float = 0.5) -> list[tuple[float, float, float]]:
    """Label, attribute and share of the four cells."""
    return [
        (y, a, (p_class if y > 0 else 1 - p_class) * (aligned if a == y else 1 - aligned))
        for y, a in product(HALVES, HALVES)
    ]


def moments_in_class(
    alpha: np.ndarray, beta: np.ndarray, sigma: np.ndarray, aligned: float, y: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, covariance and third central moments of `z | y`."""
    shares = {a: aligned if a == y else 1 - aligned for a in HALVES}
    mean_a = sum(a * s for a, s in shares.items())
    mean = y * alpha + mean_a * beta
    covariance, third = sigma.copy(), np.zeros((len(alpha),) * 3)
    for a, share in shares.items():
        step = (a - mean_a) * beta
        covariance += share * np.outer(step, step)
        third += share * np.einsum("i,j,k->ijk", step, step, step)
    return mean, covariance, third


def marginal_covariance(aligned: float, p_class: float = 0.5) -> np.ndarray:
    mean = sum(s * (y * ALPHA + a * BETA) for y, a, s in cells(aligned, p_class))
    spread = sum(
        s * np.outer(y * ALPHA + a * BETA - mean, y * ALPHA + a * BETA - mean) for y, a, s in cells(aligned, p_class)
    )
    return SIGMA + spread


def test_means_and_covariances_of_the_classes_do_not_tell_class_from_attribute() -> None:
    aligned = 0.9
    for other_beta, other_aligned in ((0.5 * BETA, 0.9), (np.array([0.3, 0.2, -0.4, 0.1]), 0.7), (0 * BETA, 0.9)):
        gap = ALPHA + (2 * aligned - 1) * BETA
        other_alpha = gap - (2 * other_aligned - 1) * other_beta
        other_sigma = SIGMA + aligned * (1 - aligned) * np.outer(BETA, BETA)
        other_sigma -= other_aligned * (1 - other_aligned) * np.outer(other_beta, other_beta)
        assert np.linalg.eigvalsh(other_sigma).min() > 0
        for y in HALVES:
            mean, covariance, third = moments_in_class(ALPHA, BETA, SIGMA, aligned, y)
            other = moments_in_class(other_alpha, other_beta, other_sigma, other_aligned, y)
            assert np.allclose(mean, other[0])
            assert np.allclose(covariance, other[1])
            assert not np.allclose(third, other[2])


@pytest.mark.parametrize("aligned", [0.5, 0.8, 0.95])
def test_third_moments_are_along_the_attribute_alone(aligned: float) -> None:
    for y in HALVES:
        third = moments_in_class(ALPHA, BETA, SIGMA, aligned, y)[2]
        skewness = -np.sign(y) * aligned * (1 - aligned) * (2 * aligned - 1)
        assert np.allclose(third, skewness * np.einsum("i,j,k->ijk", BETA, BETA, BETA))
    assert np.allclose(third, 0) == (aligned == 0.5)


def test_without_conflicts_only_the_sum_is_there() -> None:
    split = (0.3 * (ALPHA + BETA), 0.7 * (ALPHA + BETA))
    for y in HALVES:
        one, other = moments_in_class(ALPHA, BETA, SIGMA, 1.0, y), moments_in_class(*split, SIGMA, 1.0, y)
        assert all(np.allclose(a, b) for a, b in zip(one, other, strict=True))


def test_a_pool_of_another_association_differs_by_a_term_of_rank_two() -> None:
    difference = marginal_covariance(0.6) - marginal_covariance(0.95)
    change = (2 * 0.95 - 1 - (2 * 0.6 - 1)) / 4
    assert np.allclose(difference, -change * (np.outer(ALPHA, BETA) + np.outer(BETA, ALPHA)))
    values, vectors = np.linalg.eigh(difference)
    large = np.abs(values) > 1e-9
    assert large.sum() == 2
    product_, lengths = ALPHA @ BETA, np.linalg.norm(ALPHA) * np.linalg.norm(BETA)
    assert sorted(values[large]) == pytest.approx(
        sorted([-change * (product_ + lengths), -change * (product_ - lengths)])
    )
    plane = vectors[:, large]
    for direction in (ALPHA, BETA):
        assert np.allclose(plane @ (plane.T @ direction), direction)


def test_class_shares_that_differ_stay_in_the_plane() -> None:
    difference = marginal_covariance(0.6, 0.3) - marginal_covariance(0.95, 0.5)
    plane = np.linalg.qr(np.stack([ALPHA, BETA], axis=1))[0]
    assert np.allclose(plane @ (plane.T @ difference @ plane) @ plane.T, difference)


def both_directions(difference: np.ndarray) -> list[np.ndarray]:
    """Directions of class and attribute from the term of rank two: those whose complements it does not see."""
    values, vectors = np.linalg.eigh(difference)
    low, high = values[0], values[-1]
    up, down = vectors[:, -1], vectors[:, 0]
    # alpha beta' + beta alpha' has no value on t = cos up + sin down with high cos^2 + low sin^2 = 0; the one of the
    # two lines orthogonal to that t is the other vector.
    angle = np.arctan(np.sqrt(-high / low))
    return [np.cos(s * angle) * down - np.sin(s * angle) * up for s in (1, -1)]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_plane_and_both_directions_in_it_are_identified_but_not_which_is_which() -> None:
    found = both_directions(marginal_covariance(0.6) - marginal_covariance(0.95))
    table = np.array([[cosine(one, truth) for truth in (ALPHA, BETA)] for one in found])
    assert max(table[0, 0] + table[1, 1], table[0, 1] + table[1, 0]) == pytest.approx(2)
    # Class and attribute exchanged give the same term: the label has to say which is which.
    assert np.allclose(np.outer(ALPHA, BETA) + np.outer(BETA, ALPHA), np.outer(BETA, ALPHA) + np.outer(ALPHA, BETA))


def test_samples_give_the_directions_too() -> None:
    rng = np.random.default_rng(0)

    def draw(aligned: float, n: int) -> np.ndarray:
        y = rng.choice(HALVES, n)
        a = np.where(rng.random(n) < aligned, y, -y)
        return y[:, None] * ALPHA + a[:, None] * BETA + rng.normal(size=(n, 4)) @ np.sqrt(SIGMA)

    found = both_directions(np.cov(draw(0.5, 100_000).T) - np.cov(draw(0.95, 100_000).T))
    best = max(
        min(cosine(found[0], ALPHA), cosine(found[1], BETA)), min(cosine(found[1], ALPHA), cosine(found[0], BETA))
    )
    assert best > 0.98
