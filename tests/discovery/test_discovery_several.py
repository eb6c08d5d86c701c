"""Several shortcuts at once: found one after the other, told as one joint attribute, and trained against together."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from aifs_peft import AIFSClassifier, discover
from aifs_peft.discovery.config import DEFAULT_CONFIG, GateThresholds
from aifs_peft.discovery.linear_heads.choice import choose_head
from aifs_peft.discovery.linear_heads.families import balanced_weights, counterfactuals
from aifs_peft.discovery.mixture.additive import additive_model, split_by_signal
from aifs_peft.discovery.mixture.joint import (
    combine,
    conflicts,
    joint_offsets,
    joint_responsibilities,
    joint_values,
    marginals,
)
from aifs_peft.discovery.principal_components import principal_components, without_directions
from aifs_peft.errors import InvalidConfigError


def planted(contrasts, share=0.9, n=3000, K=2, core=2.0, seed=0):
    """Latents `(n, 30)`, labels, attributes `(n, m)`: one block of directions for the class and each attribute."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    values = np.stack([np.where(rng.random(n) < share, y, rng.integers(0, K, n)) for _ in contrasts], axis=1)
    Z, eye = rng.normal(size=(n, 30)), np.eye(K)
    for block, (size, value) in enumerate(zip((core, *contrasts), (y, *values.T), strict=True)):
        Z[:, block * K : (block + 1) * K] += size * eye[value]
    return Z.astype(np.float32), y, values


def test_two_shortcuts_are_found_and_told_apart():
    Z, y, values = planted((8.0, 5.0))
    found = discover(Z, y, random_state=0)
    assert len(found.parts_) == 2
    for part, truth in zip(found.parts_, values.T, strict=True):
        assert np.mean(part.groups_ == truth) > 0.99
        assert part.basis_.shape == (30, 1)
        assert part.displacements_.shape == (2, 30)
    assert np.mean(found.groups_ == combine(values, 2)) > 0.99
    aligned = (values == y[:, None]).all(axis=1)
    assert np.mean(found.groups_[aligned] == y[aligned]) > 0.99
    assert found.responsibilities_.shape == (3000, 4)
    np.testing.assert_allclose(found.responsibilities_.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(found.responsibilities_.argmax(axis=1), found.groups_)
    assert found.evidence_ == min(part.evidence_ for part in found.parts_) > 0
    assert found.message_.startswith("2 spurious attributes found. (1)")
    assert found.summary().count("Inferred attribute value") == 2


def test_their_directions_and_offsets_are_those_that_were_planted():
    Z, y, _ = planted((8.0, 5.0))
    found = discover(Z, y, random_state=0)
    np.testing.assert_allclose(found.basis_.T @ found.basis_, np.eye(2), atol=1e-8)
    apart = found.displacements_ - found.displacements_[0]
    both, second, first = apart[1], apart[2], apart[3]
    np.testing.assert_allclose(both, first + second, atol=1e-6)
    # One-hot blocks: a change of value moves along (-size, size).
    np.testing.assert_allclose(first[2:4], [-8, 8], atol=0.4)
    np.testing.assert_allclose(second[4:6], [-5, 5], atol=0.4)
    assert np.abs(first[[0, 1, 4, 5]]).max() < 0.4
    assert np.abs(second[:4]).max() < 0.4
    np.testing.assert_allclose(apart @ found.basis_ @ found.basis_.T, apart, atol=1e-6)


def test_two_shortcuts_of_equal_strength_vouch_for_each_other():
    """Each counts as part of the class while the other is looked for, and neither is clearly stronger than that."""
    Z, y, values = planted((3.6, 3.6), share=0.95, n=4000, core=1.0)
    assert not discover(Z, y, random_state=0, max_attributes=1).found
    found = discover(Z, y, random_state=0)
    agreement = [[np.mean(part.groups_ == truth) for truth in values.T] for part in found.parts_]
    assert sorted(np.argmax(agreement, axis=1)) == [0, 1]
    # What the first search tried, and that it found nothing, stays on record.
    assert "With all directions: No spurious direction found" in found.message_
    assert len(found.candidates_) > sum(len(part.candidates_) for part in found.parts_)
    assert np.max(agreement, axis=1).min() > 0.98


def test_three_classes():
    Z, y, values = planted((7.0, 5.5), n=5000, K=3, core=2.5)
    found = discover(Z, y, random_state=0)
    assert len(found.parts_) == 2
    assert found.displacements_.shape == (9, 30)
    assert found.basis_.shape == (30, 4)
    assert np.mean(found.groups_ == combine(values, 3)) > 0.98


def test_three_attributes_and_no_more_than_asked_for():
    Z, y, values = planted((12.0, 8.0, 5.0), n=5000)
    three = discover(Z, y, random_state=0)
    assert len(three.parts_) == 3
    assert np.mean(three.groups_ == combine(values, 2)) > 0.98
    assert len(discover(Z, y, random_state=0, max_attributes=2).parts_) == 2


def test_one_shortcut_stays_one():
    for seed in range(3):
        Z, y, _ = planted((6.0,), seed=seed)
        found = discover(Z, y, random_state=0)
        one = discover(Z, y, random_state=0, max_attributes=1)
        assert found.found
        assert found.parts_ == ()
        assert found.responsibilities_.shape == (3000, 2)
        np.testing.assert_array_equal(found.responsibilities_, one.responsibilities_)
        assert found.message_ == one.message_


def test_the_head_withstands_both():
    Z, y, _ = planted((8.0, 5.0), share=0.95)
    test_Z, test_y, values = planted((8.0, 5.0), share=0.0, n=6000, seed=1)
    cells = 4 * test_y + combine(values, 2)

    def worst(clf):
        hits = clf.predict(test_Z) == test_y
        return min(hits[cells == c].mean() for c in range(8))

    aifs, erm = AIFSClassifier(random_state=0).fit(Z, y), AIFSClassifier("erm", random_state=0).fit(Z, y)
    assert worst(aifs) > 0.6
    assert worst(erm) < 0.3


@pytest.mark.parametrize("known", [1.0, 0.7])
def test_a_weak_hint_beside_a_found_attribute_gives_a_head_of_the_right_shape(known):
    """The hint's attribute is too weak to be found; most of its values are known, so that another one is looked for."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    values = [np.where(rng.random(4000) < share, y, 1 - y) for share in (0.98, 0.81)]
    Z = rng.normal(size=(4000, 32))
    Z[:, :3] += np.column_stack([1.5 * y, 3.4 * values[0], 4.8 * values[1]])
    groups = np.where(rng.random(4000) < known, values[0], -1)
    clf = AIFSClassifier(random_state=0).fit(Z, y, groups=groups)
    assert clf.discovery_.parts_[0].source_ == "hint:groups"
    assert clf.coef_.shape == (2, 32)
    assert clf.score(Z, y) > 0.5


def test_no_attribute_at_all_is_no_number_of_attributes():
    with pytest.raises(InvalidConfigError, match="max_attributes must be an integer of at least 1; got 0"):
        discover(np.zeros((5, 2)), [0, 1, 0, 1, 0], max_attributes=0)


@pytest.mark.parametrize(("K", "m"), [(2, 1), (2, 3), (5, 2)])
def test_joint_values_and_back(K, m):
    rng = np.random.default_rng(0)
    table = joint_values(K, m)
    assert len(np.unique(table, axis=0)) == K**m
    np.testing.assert_array_equal(table[:K], np.repeat(np.arange(K)[:, None], m, axis=1))
    np.testing.assert_array_equal(combine(table, K), np.arange(K**m))
    parts = rng.dirichlet(np.ones(K), size=(20, m))
    R = joint_responsibilities(list(parts.transpose(1, 0, 2)))
    np.testing.assert_allclose(marginals(R, K), parts)
    offsets = rng.normal(size=(m, K, 3))
    np.testing.assert_allclose(joint_offsets(offsets), sum(part[table[:, j]] for j, part in enumerate(offsets)))
    assert conflicts(table[:K], np.arange(K)).tolist() == [0] * K


def test_offsets_of_two_attributes_are_fitted_together():
    """Attributes that go with the label go with each other: alone, one would take the other's share."""
    Z, y, values = planted((4.0, 3.0), share=0.8, n=6000)
    R = np.eye(2)[values]
    model = additive_model(Z, y, R)
    np.testing.assert_allclose(np.diff(model.alpha, axis=0)[0, :6], [-2, 2, 0, 0, 0, 0], atol=0.25)
    first, second = model.beta.reshape(2, 2, 30)
    np.testing.assert_allclose(first[1] - first[0], [0, 0, -4, 4, *[0] * 26], atol=0.25)
    np.testing.assert_allclose(second[1] - second[0], [0, 0, 0, 0, -3, 3, *[0] * 24], atol=0.25)
    alpha, beta = split_by_signal(model, config=DEFAULT_CONFIG.mixture)
    total = alpha + beta.reshape(2, 2, 30).sum(axis=0)
    expected = model.alpha - model.alpha.mean(axis=0) + model.beta.reshape(2, 2, 30).sum(axis=0)
    np.testing.assert_allclose(total, expected, atol=1e-9)


@pytest.mark.parametrize("m", [1, 2])
def test_sampling_error_of_class_offsets_is_that_of_repeated_draws(m):
    rng = np.random.default_rng(0)
    n, y = 400, np.repeat([0, 1], 200)
    values = np.stack([np.where(rng.random(n) < 0.9, y, 1 - y) for _ in range(m)], axis=1)
    R = np.eye(2)[values]
    drawn = [additive_model(rng.normal(size=(n, 200)), y, R) for _ in range(5)]
    centred = np.concatenate([model.alpha - model.alpha.mean(axis=0) for model in drawn], axis=1)
    assert np.mean(centred**2) == pytest.approx(drawn[0].noise, rel=0.15)
    assert drawn[0].shares.sum() == pytest.approx(1.0)
    assert drawn[0].shares.shape == (m,)


def test_weights_balance_every_set_of_conflicting_attributes():
    _, y, values = planted((1.0, 1.0), share=0.7)
    weights = balanced_weights(y, np.eye(2)[values], floor=0.0)
    cells = 4 * y + conflicts(values, y)
    np.testing.assert_allclose(np.bincount(cells, weights), 1 / 8, atol=1e-9)


def test_counterfactuals_take_every_other_combination():
    X, y, values = planted((4.0, 3.0), share=0.8, n=4000)
    moved = counterfactuals(X, y, np.eye(2)[values], rng=np.random.default_rng(7)) - X
    changed = np.stack([np.abs(moved[:, 3]) > 2, np.abs(moved[:, 5]) > 1.5], axis=1)
    shares = np.unique(changed, axis=0, return_counts=True)
    assert shares[0].tolist() == [[False, True], [True, False], [True, True]]
    np.testing.assert_allclose(shares[1] / 4000, 1 / 3, atol=0.03)


def test_cells_of_several_attributes_judge_the_head():
    X, y, values = planted((4.0, 3.0), share=0.8, n=4000)
    choice = choose_head(X, y, np.eye(2)[values], rng=np.random.default_rng(0))
    assert len(choice.scores) > 5
    assert "worst inferred cell" in choice.reason
    few = choose_head(
        X[:60], y[:60], np.eye(2, dtype=np.float32)[np.stack([y, y], axis=1)][:60], rng=np.random.default_rng(0)
    )
    assert few.setting.family == "counterfactual"
    assert few.scores == {}


def test_latents_without_directions_have_lost_these_and_nothing_else():
    rng = np.random.default_rng(0)
    Z = (rng.normal(size=(600, 12)) * np.arange(12, 0, -1)).astype(np.float32)
    reduction = principal_components(Z, 12, rng=rng)
    basis = np.linalg.qr(rng.normal(size=(12, 2)))[0]
    X, rest = without_directions(reduction.transform(Z), reduction, basis, rng=rng)
    assert X.shape == (600, 10)
    np.testing.assert_allclose(X.std(axis=0), 1.0, atol=1e-3)
    np.testing.assert_allclose(rest.transform(Z), X, atol=1e-3)
    np.testing.assert_allclose(rest.components @ basis, 0.0, atol=1e-5)
    expected = Z - Z.mean(axis=0)
    expected = expected - expected @ basis @ basis.T
    np.testing.assert_allclose(rest.lift(X), expected, atol=1e-2)


def digits_on_stripes(shared_dir, n=1200, share=0.9):
    """Latents of four digits on four patterns of stripes, labels, patterns: a shortcut far stronger than the class."""
    rng = np.random.default_rng(0)
    with np.load(shared_dir / "data" / "mnist" / "train.npz") as file:
        digits, labels = file["x"], file["y"]
    rows = rng.permutation(np.flatnonzero(np.isin(labels, (2, 3, 5, 8))))[:n]
    y = np.searchsorted((2, 3, 5, 8), labels[rows])
    a = np.where(rng.random(n) < share, y, (y + rng.integers(1, 4, n)) % 4)
    down, right = np.mgrid[:64, :64]
    rings = ((down - 32) ** 2 + (right - 32) ** 2) % 160 < 60
    stripes = np.stack([down % 8 < 4, right % 8 < 4, (down + right) % 12 < 6, rings])
    pictures = rng.integers(0, 60, (n, 64, 64, 3)) + 80 * stripes[a][..., None]
    large = np.stack([np.asarray(Image.fromarray(digit).resize((40, 40))) for digit in digits[rows]])
    pictures[:, 12:52, 12:52] = np.maximum(pictures[:, 12:52, 12:52], large[..., None])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    encoder = AutoModel.from_pretrained(shared_dir / "models" / "mobilenet_v2_imagenet").eval()
    with torch.no_grad():
        Z = torch.cat([encoder(pixels[i : i + 32]).pooler_output for i in range(0, n, 32)])
    return Z.numpy(), y, a


def test_unusual_examples_of_the_class_are_no_second_shortcut(shared_dir):
    """Beside the first shortcut, what is left of it passes for the class, and the class itself for another shortcut."""
    Z, y, a = digits_on_stripes(shared_dir)
    found = discover(Z, y, random_state=0)
    assert found.parts_ == ()
    np.testing.assert_array_equal(found.groups_, a)
    lax = discover(Z, y, random_state=0, gate=GateThresholds(further_cosine=-0.8))
    assert len(lax.parts_) == 2
