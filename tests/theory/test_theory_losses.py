"""docs/theory.md, sections 1 and 2: what the losses do to a linear head, against the library's own losses."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from aifs_peft.latent.intervention import intervene
from aifs_peft.latent.losses import invariance_loss, label_log_prob_gradient, sensitivity_loss
from aifs_peft.latent.noise import sample_noise

BATCH, DIM, CLASSES = 6, 5, 3


def head_and_latents() -> tuple[torch.nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(DIM, CLASSES, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64))
        head.bias.copy_(torch.randn(CLASSES, generator=generator, dtype=torch.float64))
    z = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    mask = torch.tensor([1.0, 0.5, 0.0, 0.2, 0.8], dtype=torch.float64)
    return head.requires_grad_(requires_grad=False), z, mask


def fisher(logits: Tensor) -> Tensor:
    """`diag(p) - p p'` of each example."""
    p = logits.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def ridge(head: torch.nn.Linear, z: Tensor, mask: Tensor, strength: float) -> float:
    """`lambda^2 / 2 sum_j m_j^2 mean_b w_j' H_b w_j`."""
    H, W = fisher(head(z)).mean(0), head.weight
    return 0.5 * strength**2 * float(sum(mask[j] ** 2 * (W[:, j] @ H @ W[:, j]) for j in range(DIM)))


def expected_invariance(
    head: torch.nn.Linear, z: Tensor, mask: Tensor, strength: float, kind: str, draws: int = 20_000
) -> float:
    """The invariance term, averaged over noise and its mirror image, whose odd orders cancel."""
    noise = sample_noise((draws * BATCH, DIM), kind, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    many = z.repeat(draws, 1)
    parts = [invariance_loss(head(many), head(intervene(many, mask, sign * noise, strength))) for sign in (1.0, -1.0)]
    return float(torch.stack(parts).mean())


@pytest.mark.parametrize("kind", ["gaussian", "l1", "l2"])
def test_the_invariance_term_is_a_ridge_penalty_weighted_by_the_squared_mask(kind: str) -> None:
    head, z, mask = head_and_latents()
    errors = {}
    for strength in (0.1, 0.2):
        quadratic = ridge(head, z, mask, strength)
        errors[strength] = expected_invariance(head, z, mask, strength, kind) / quadratic - 1
    assert abs(errors[0.1]) < 0.02  # 20,000 draws of each example leave less than a hundredth
    assert abs(errors[0.2]) < 0.05


def test_the_rest_is_of_fourth_order() -> None:
    """Along one direction the expectation over Gaussian noise is an integral, computed to rounding."""
    head, z, _ = head_and_latents()
    mask = torch.zeros(DIM, dtype=torch.float64)
    mask[1] = 0.7
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)

    def rest(strength: float) -> float:
        total = 0.0
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            noise = torch.full((BATCH, DIM), float(node), dtype=torch.float64)
            total += float(weight) * float(invariance_loss(head(z), head(intervene(z, mask, noise, strength))))
        return total - ridge(head, z, mask, strength)

    assert rest(0.02) / rest(0.01) == pytest.approx(16, rel=0.02)


def test_the_sensitivity_term_of_two_classes_is_an_l1_penalty() -> None:
    head = torch.nn.Linear(DIM, 2, dtype=torch.float64)
    _, z, mask = head_and_latents()
    y = torch.tensor([0, 1, 1, 0, 1, 0])
    w = (head.weight[1] - head.weight[0]).detach()
    wrong = 1 - head(z).softmax(1)[torch.arange(BATCH), y].detach()
    expected = float((mask * w.abs()).sum() * wrong.mean())
    for sign in (1, -1):
        found = sensitivity_loss(label_log_prob_gradient(head, z, y), mask, sign)
        assert found.item() == pytest.approx(sign * expected, rel=1e-9)


# Section 2: squared loss, z = y alpha + a beta + noise.


def planted(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n) - 0.5
    a = np.where(rng.random(n) < 0.95, y, -y)
    alpha, beta = np.array([1.5, 0, 0, 0.3]), np.array([0, 3.0, 0, 0.5])
    z = y[:, None] * alpha + a[:, None] * beta + rng.normal(size=(n, 4))
    return z - z.mean(0), y - y.mean(), alpha, beta


def test_the_trade_off_is_a_line_and_its_price_a_parabola() -> None:
    z, y, alpha, beta = planted()
    S, c = z.T @ z / len(y), z.T @ y / len(y)
    inverse = np.linalg.inv(S)
    free = inverse @ c
    q = beta @ inverse @ beta
    kappa = alpha @ inverse @ beta / q

    def loss(w: np.ndarray) -> float:
        return float(np.mean((y - z @ w) ** 2))

    for strength in (0.0, 0.3, 3.0, 100.0):
        done = minimize(
            lambda w, s=strength: loss(w) + s * (w @ beta) ** 2,
            np.zeros(4),
            jac=lambda w, s=strength: 2 * (S @ w - c) + 2 * s * (w @ beta) * beta,
            method="BFGS",
            options={"gtol": 1e-10},
        )
        w = done.x
        reliance, core = w @ beta, w @ alpha
        assert reliance == pytest.approx(free @ beta / (1 + strength * q), abs=1e-6)
        assert core == pytest.approx(free @ alpha - kappa * (free @ beta - reliance), abs=1e-6)
        assert loss(w) - loss(free) == pytest.approx((free @ beta - reliance) ** 2 / q, abs=1e-8)
    # Positive association makes the exchange rate negative: less reliance on the attribute, more on the class.
    assert kappa < 0


@pytest.mark.parametrize(("cosine", "sign"), [(0.0, -1), (0.9, 1)])
def test_the_exchange_rate_by_the_angle_of_class_and_attribute(cosine: float, sign: int) -> None:
    alpha, beta = np.array([2.0, 0.0]), 3 * np.array([cosine, np.sqrt(1 - cosine**2)])
    covariance = 0.225  # of label and attribute at an aligned share of 0.95
    S = np.eye(2) + (np.outer(alpha, alpha) + np.outer(beta, beta)) / 4
    S += covariance * (np.outer(alpha, beta) + np.outer(beta, alpha))
    kappa = alpha @ np.linalg.solve(S, beta) / (beta @ np.linalg.solve(S, beta))
    assert np.sign(kappa) == sign


def test_a_logistic_head_trained_with_the_librarys_loss_moves_the_same_way() -> None:
    z, y, alpha, beta = planted(1000)
    Z, labels = torch.tensor(z), torch.tensor((y > 0).astype(np.int64))
    length = float(np.linalg.norm(beta))
    basis = torch.tensor(beta / length)[:, None]
    noise = sample_noise((len(Z), 1), "gaussian", generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = []
    for weight in (0.0, 1.0, 10.0, 100.0):
        head = torch.nn.Linear(4, 2, dtype=torch.float64)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def closure(
            weight: float = weight, head: torch.nn.Linear = head, opt: torch.optim.Optimizer = optimizer
        ) -> Tensor:
            opt.zero_grad()
            logits = head(Z)
            moved = head(intervene(Z, torch.ones(1, dtype=torch.float64), noise, 1.0, basis))
            loss = torch.nn.functional.cross_entropy(logits, labels) + weight * invariance_loss(logits, moved)
            loss.backward()
            return loss

        optimizer.step(closure)
        w = (head.weight[1] - head.weight[0]).detach().numpy()
        curve.append((abs(w @ beta), w @ alpha))
    reliance = [point[0] for point in curve]
    assert reliance == sorted(reliance, reverse=True)
    assert reliance[-1] < 0.1 * reliance[0]
    # With cross-entropy the class keeps its weight; with squared loss it gains some.
    assert curve[-1][1] == pytest.approx(curve[0][1], rel=0.02)
