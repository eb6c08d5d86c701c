"""Mask rules against NumPy, properties, and scores that overflow a naive formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aifs_peft.errors import InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.latent import mask_from_attribution

RULES = ("inverse", "inverse_relative", "direct")
SCALES = ("sum", "max", "mean")
FINITE = st.floats(-1e6, 1e6, allow_nan=False)
VECTORS = hnp.arrays(np.float64, st.integers(1, 40), elements=FINITE)


def test_literal_rule_is_the_published_formula() -> None:
    scores = np.array([0.3, -1.2, 0.05, 2.0, 0.7])
    naive = np.exp(0.8 / (np.abs(scores) + 0.1))
    expected = naive / naive.sum()
    mask = mask_from_attribution(torch.tensor(scores), rule="inverse", gamma=0.8, eps0=0.1, scale="sum")
    np.testing.assert_allclose(mask.numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize(("rule", "sign"), [("inverse_relative", 1.0), ("direct", -1.0)])
def test_relative_rules(rule: str, sign: float) -> None:
    scores = np.array([0.3, -1.2, 0.05, 2.0, 0.7])
    relative = np.abs(scores) / np.abs(scores).mean()
    naive = np.exp(sign * 0.8 / (relative + 0.1))
    got = {
        s: mask_from_attribution(torch.tensor(scores), rule=rule, gamma=0.8, eps0=0.1, scale=s).numpy() for s in SCALES
    }
    np.testing.assert_allclose(got["sum"], naive / naive.sum(), rtol=1e-13)
    np.testing.assert_allclose(got["max"], naive / naive.max(), rtol=1e-13)
    np.testing.assert_allclose(got["mean"], naive / naive.mean(), rtol=1e-13)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@given(scores=VECTORS, gamma=st.floats(0, 20), eps0=st.floats(1e-3, 10), seed=st.integers(0, 99))
def test_properties(rule: str, scale: str, scores: np.ndarray, gamma: float, eps0: float, seed: int) -> None:
    def mask_of(values: np.ndarray) -> np.ndarray:
        return mask_from_attribution(torch.tensor(values), rule=rule, gamma=gamma, eps0=eps0, scale=scale).numpy()

    mask = mask_of(scores)
    assert np.isfinite(mask).all()
    assert (mask >= 0).all()
    if scale == "mean":
        assert mask.mean() == pytest.approx(1.0)
    else:
        assert (mask <= 1).all()
        assert (mask.sum() if scale == "sum" else mask.max()) == pytest.approx(1.0)
    order = np.random.default_rng(seed).permutation(len(scores))
    np.testing.assert_allclose(mask_of(scores[order]), mask[order], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(mask_of(-scores), mask)
    # Monotone: lower attribution never gets the smaller weight (inverse), and the other way round (direct).
    ranked = mask[np.argsort(np.abs(scores), kind="stable")]
    steps = np.diff(ranked)
    assert ((steps if rule == "direct" else -steps) >= -1e-12).all()


@settings(max_examples=40, deadline=None)
@given(scores=VECTORS.filter(lambda v: np.abs(v).max() > 1e-3), factor=st.floats(1e-12, 1e12))
def test_relative_rules_do_not_depend_on_the_unit(scores: np.ndarray, factor: float) -> None:
    for rule in ("inverse_relative", "direct"):
        masks = [
            mask_from_attribution(torch.tensor(s), rule=rule, gamma=2.0, eps0=0.1) for s in (scores, scores * factor)
        ]
        torch.testing.assert_close(masks[0], masks[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-300, 1e300])
def test_equal_scores_of_any_size_give_a_uniform_mask(rule: str, scale: str, value: float) -> None:
    mask = mask_from_attribution(
        torch.full((8,), value, dtype=torch.float64), rule=rule, gamma=1.0, eps0=1e-8, scale=scale
    )
    np.testing.assert_allclose(mask.numpy(), 1 / 8 if scale == "sum" else 1.0, rtol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_tiny_scores_do_not_overflow(rule: str) -> None:
    scores = torch.tensor([0.0, 1e-30, 1e-3, 1.0], dtype=torch.float32)
    for eps0 in (1e-30, 1e-8, 1.0):
        mask = mask_from_attribution(scores, rule=rule, gamma=1.0, eps0=eps0, scale="max")
        assert mask.dtype == torch.float32
        assert bool(torch.isfinite(mask).all())
        assert mask.max() == 1.0
        assert int(mask.argmax()) == (3 if rule == "direct" else 0)


def test_literal_rule_has_no_scale() -> None:
    # The first problem that the method names: small attributions send all of the mask to one dimension.
    scores = torch.tensor([1.0e-4, 1.1e-4, 1.2e-4])
    literal = mask_from_attribution(scores, rule="inverse", gamma=1.0, eps0=1e-8, scale="sum")
    relative = mask_from_attribution(scores, rule="inverse_relative", gamma=1.0, eps0=1e-8, scale="sum")
    assert literal[0] > 0.999
    assert relative.max() < 0.4


def test_gradient_and_type() -> None:
    scores = torch.rand(5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert not mask_from_attribution(scores).requires_grad
    assert mask_from_attribution(scores.to(torch.bfloat16)).dtype == torch.float32
    assert mask_from_attribution(scores.double()).dtype == torch.float64
    assert mask_from_attribution(scores, gamma=0.0, scale="max").tolist() == [1.0] * 5


def test_rejects() -> None:
    scores = torch.ones(4)
    for given_scores in (torch.ones(2, 2), torch.ones(0), [1.0], torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(InvalidInputError, match="scores must be a non-empty vector"):
            mask_from_attribution(given_scores)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError, match="1 of 2 attribution scores"):
            mask_from_attribution(torch.tensor([1.0, bad]))
    cases = [
        ({"rule": "inverse_relativ"}, "did you mean 'inverse_relative'"),
        ({"scale": "softmax"}, "scale must be one of 'sum', 'max', 'mean'"),
        ({"gamma": -1.0}, "gamma must be a finite number of at least 0"),
        ({"gamma": float("nan")}, "gamma must be a finite number"),
        ({"eps0": 0.0}, "eps0 must be a finite number above 0"),
        ({"eps0": 1e-308, "gamma": 1e10}, "overflows; raise eps0"),
    ]
    for options, message in cases:
        with pytest.raises(InvalidConfigError, match=message):
            mask_from_attribution(scores, **options)
