"""The classifier on latents that are read in blocks: what it is in memory, and bounded beyond."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from aifs_peft import AIFSClassifier, LatentSchedule
from aifs_peft.classifier.closed import Latents, fit_discovery, fit_erm
from aifs_peft.discovery import DiscoveryConfig, LatentBatches
from aifs_peft.discovery.config import InputConfig
from aifs_peft.discovery.discover import collect_hints
from aifs_peft.discovery.streaming.held import reduce_source
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.errors import InvalidInputError


def planted(n=4000, d=12, seed=0, share=0.95):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < share, y, 1 - y)
    Z = rng.standard_normal((n, d), dtype=np.float32)
    Z[:, 0] += 6 * a
    Z[:, 1] += 3 * y
    return Z, y, a


def memory_map(Z, folder):
    np.save(folder / "Z.npy", Z)
    return np.load(folder / "Z.npy", mmap_mode="r")


def column(Z):
    return Dataset(pa.table({"z": pa.FixedSizeListArray.from_arrays(pa.array(Z.ravel()), Z.shape[1])}))["z"]


def batches(Z, y, size=777):
    return LatentBatches(lambda: ((Z[i : i + size], y[i : i + size]) for i in range(0, len(Z), size)))


@pytest.mark.parametrize("recipe", ["discovery", "erm"])
def test_every_source_gives_the_same_classifier(recipe, tmp_path):
    Z, y, _ = planted()
    wanted = AIFSClassifier(recipe, random_state=0).fit(Z, y)
    for source in (memory_map(Z, tmp_path), column(Z), batches(Z, y)):
        fitted = AIFSClassifier(recipe, random_state=0).fit(source, y)
        np.testing.assert_allclose(fitted.coef_, wanted.coef_, atol=1e-6)
        assert fitted.n_features_in_ == 12
        assert np.array_equal(fitted.predict_proba(source), wanted.predict_proba(Z))


def test_a_training_method_takes_them_too(tmp_path):
    Z, y, _ = planted(500)
    short = LatentSchedule(epochs=3)
    wanted, fitted = (
        AIFSClassifier("spectral-decoupling", schedule=short, random_state=0).fit(source, y)
        for source in (Z, memory_map(Z, tmp_path))
    )
    assert np.array_equal(fitted.predict(Z), wanted.predict(Z))


def test_labels_of_a_column():
    Z, y, _ = planted(500)
    data = Dataset(pa.table({"z": pa.FixedSizeListArray.from_arrays(pa.array(Z.ravel()), 12), "y": y}))
    words = Dataset.from_dict({"y": np.array(["cat", "dog"])[y].tolist()})
    assert AIFSClassifier(random_state=0).fit(data["z"], data["y"]).classes_.tolist() == [0, 1]
    assert AIFSClassifier(random_state=0).fit(data["z"], words["y"]).classes_.tolist() == ["cat", "dog"]


def test_examples_of_weight_zero_are_left_out_of_any_source(tmp_path):
    Z, y, _ = planted()
    weights = np.where(np.random.default_rng(1).random(len(y)) < 0.3, 0.0, 2.0)
    wanted = AIFSClassifier(random_state=0).fit(Z[weights > 0], y[weights > 0])
    for source in (memory_map(Z, tmp_path), column(Z), batches(Z, y)):
        fitted = AIFSClassifier(random_state=0).fit(source, y, sample_weight=weights)
        np.testing.assert_allclose(fitted.coef_, wanted.coef_, atol=1e-5)


def fit(config, Z, y, groups=None):
    source = as_source(Z)
    reduction = reduce_source(source, rng=np.random.default_rng(0), config=config.reduction)
    latents = Latents(source, y, np.unique(y), reduction, None)
    hints = collect_hints(reduction, len(y), groups=groups)
    return fit_discovery(latents, "balanced", seed=0, hints=hints, config=config), latents


def worst(head, reduction):
    Z, y, a = planted(8000, seed=9, share=0.5)
    hits = head.logits(reduction.transform(Z)).argmax(axis=1) == y
    return min(hits[(y == c) & (a == b)].mean() for c in (0, 1) for b in (0, 1))


def test_a_head_of_a_sample_is_as_good():
    Z, y, _ = planted(20_000)
    sampled = DiscoveryConfig(inputs=InputConfig(held_rows=6000))
    (all_rows, latents), (some, _) = fit(DiscoveryConfig(), Z, y), fit(sampled, Z, y)
    assert abs(worst(all_rows.head, latents.reduction) - worst(some.head, latents.reduction)) < 0.01
    # A classifier that leans on the attribute is far worse.
    plain = fit_erm(latents, None, seed=0, config=sampled)
    assert worst(plain, latents.reduction) < worst(some.head, latents.reduction) - 0.1


@pytest.mark.slow
def test_a_head_of_a_sample_is_refitted_on_all_known_rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 15_000)
    a = np.where(rng.random(15_000) < 0.95, y, 1 - y)
    Z = rng.standard_normal((15_000, 10), dtype=np.float32)
    Z[:, 0] += 2.5 * a
    Z[:, 1] += 1.5 * y
    Z[:, 2] += 2.0 * (a != y)  # class and attribute interact: the additive head is not the best
    known = np.full(15_000, -1)
    for cell in range(4):
        rows = rng.permutation(np.flatnonzero(2 * y + a == cell))[:60]
        known[rows] = a[rows]
    wanted, found = (
        fit(config, Z, y, groups=known)[0]
        for config in (DiscoveryConfig(), DiscoveryConfig(inputs=InputConfig(held_rows=5000)))
    )
    assert np.array_equal(found.discovery.heads_.values, known)
    assert found.discovery.found == wanted.discovery.found
    assert (found.choice is None) == (wanted.choice is None)
    if found.choice is not None:
        assert found.choice.setting.family == wanted.choice.setting.family
    test = np.random.default_rng(1).standard_normal((4000, 10), dtype=np.float32)
    angle = [head.weight[1] @ test.T - head.weight[0] @ test.T for head in (wanted.head, found.head)]
    assert np.corrcoef(angle)[0, 1] > 0.95


def test_labels_that_are_no_classes_are_refused(tmp_path):
    Z, _, _ = planted(500)
    with pytest.raises(InvalidInputError, match="Unknown label type: continuous"):
        AIFSClassifier().fit(memory_map(Z, tmp_path), np.linspace(0.1, 0.9, 500))


def test_a_sample_keeps_the_weight_of_every_class():
    # Nothing to be found; plain training on a sample with even classes must still know how rare one of them is.
    rng = np.random.default_rng(0)
    y = (rng.random(20_000) < 0.03).astype(int)
    Z = rng.standard_normal((20_000, 6), dtype=np.float32)
    Z[:, 0] += 2 * y
    sampled = DiscoveryConfig(inputs=InputConfig(held_rows=4000))
    source = as_source(Z)
    reduction = reduce_source(source, rng=rng, config=sampled.reduction)
    latents = Latents(source, y, np.unique(y), reduction, None)
    heads = [fit_erm(latents, None, seed=0, config=config) for config in (DiscoveryConfig(), sampled)]
    named = [float((head.logits(reduction.transform(Z)).argmax(axis=1) == 1).mean()) for head in heads]
    assert 0.0 < named[0] < 0.02
    assert abs(named[0] - named[1]) < 0.004


def test_more_rows_than_are_held(tmp_path):
    Z, y, a = planted(210_000, d=6)
    Z = Z.astype(np.float16)
    wanted = AIFSClassifier(random_state=0).fit(Z, y)
    assert "sample of 200000 of 210000" in wanted.discovery_.message_
    assert np.mean(wanted.discovery_.groups_ == a) > 0.99
    for source in (memory_map(Z, tmp_path), batches(Z, y, 10_000)):
        fitted = AIFSClassifier(random_state=0).fit(source, y)
        np.testing.assert_allclose(fitted.coef_, wanted.coef_, atol=1e-6)
        assert np.array_equal(fitted.discovery_.groups_, wanted.discovery_.groups_)
    assert np.array_equal(wanted.predict(memory_map(Z, tmp_path)), wanted.predict(Z))


def test_sources_of_another_width_are_refused(tmp_path):
    Z, y, _ = planted(500)
    fitted = AIFSClassifier(random_state=0).fit(Z, y)
    with pytest.raises(InvalidInputError, match="Z has 11 features, but AIFSClassifier is expecting 12"):
        fitted.predict(memory_map(Z[:, :11], tmp_path))


def test_memory_maps_that_are_not_finite_are_refused(tmp_path):
    Z, y, _ = planted(500)
    Z[7, 3] = np.nan
    with pytest.raises(InvalidInputError, match="1 of 500 rows of Z hold NaN"):
        AIFSClassifier().fit(memory_map(Z, tmp_path), y)
