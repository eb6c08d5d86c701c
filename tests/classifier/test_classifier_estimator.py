"""`AIFSClassifier`: what it is for."""

import re

import numpy as np
import pytest
import torch

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.training.latent_trainer import LatentSchedule


def planted(rho, *, n=1500, d=24, seed=0, spurious=5.0, core=3.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < rho, y, 1 - y)
    Z = rng.normal(size=(n, d))
    Z[:, 0] += core * y
    Z[:, 1] += spurious * a
    return Z, y, a


def worst_group(clf, Z, y, a):
    hit = clf.predict(Z) == y
    return min(hit[(y == c) & (a == b)].mean() for c in (0, 1) for b in (0, 1))


def test_beats_erm_in_the_worst_group():
    Z, y, _ = planted(0.97)
    test = planted(0.5, n=4000, seed=1)
    erm = AIFSClassifier(recipe="erm", random_state=0).fit(Z, y)
    aifs = AIFSClassifier(random_state=0).fit(Z, y)
    assert aifs.discovery_.found
    assert erm.discovery_ is None
    assert worst_group(aifs, *test) > worst_group(erm, *test) + 0.2
    # The best any head can do on this population: the normal distribution's share beyond half the core distance.
    assert worst_group(aifs, *test) > 0.933 - 0.06


def test_equals_erm_when_nothing_is_found_and_classes_are_not_weighted():
    Z, y, _ = planted(0.5)
    erm = AIFSClassifier(recipe="erm", random_state=0).fit(Z, y)
    aifs = AIFSClassifier(class_weight=None, random_state=0).fit(Z, y)
    assert not aifs.discovery_.found
    np.testing.assert_array_equal(aifs.coef_, erm.coef_)
    np.testing.assert_array_equal(aifs.intercept_, erm.intercept_)
    assert aifs.discovery_.message_.endswith(" The head is logistic regression, plain.")


def unequal(n=3000, seed=0):
    """No attribute; one of ten examples is of the second class, 2 apart."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.1).astype(int)
    Z = rng.normal(size=(n, 12))
    Z[:, 0] += 2.0 * y
    return Z, y


def worst_class(clf, Z, y):
    return min(np.mean(clf.predict(Z)[y == c] == c) for c in np.unique(y))


def test_classes_weigh_the_same_where_nothing_is_found():
    (Z, y), test = unequal(), unequal(seed=1)
    erm = AIFSClassifier(recipe="erm", random_state=0).fit(Z, y)
    aifs = AIFSClassifier(random_state=0).fit(Z, y)
    assert not aifs.discovery_.found
    assert worst_class(erm, *test) < 0.5
    assert worst_class(aifs, *test) > 0.75
    assert aifs.score(*test) < erm.score(*test)  # the price, as documented
    told = re.search(
        r"with evenly weighted classes \(held out, the worst class is right for (.+)% instead of (.+)%, all examples "
        r"for (.+)% instead of (.+)%\)\.$",
        aifs.discovery_.message_,
    )
    worst, plain_worst, average, plain_average = (float(number) / 100 for number in told.groups())
    np.testing.assert_allclose([worst, plain_worst], [worst_class(clf, *test) for clf in (aifs, erm)], atol=0.06)
    np.testing.assert_allclose([average, plain_average], [clf.score(*test) for clf in (aifs, erm)], atol=0.03)
    named = AIFSClassifier(random_state=0).fit(Z, np.array(["no", "yes"])[y])
    np.testing.assert_array_equal(named.coef_, aifs.coef_)


def test_class_weights_may_be_given_by_label():
    Z, y = unequal()
    names = np.array(["no", "yes"])[y]
    counts = {"no": 1.0, "yes": float((y == 0).sum() / (y == 1).sum())}
    for recipe in ("discovery", "erm"):
        given = AIFSClassifier(recipe, class_weight=counts, random_state=0).fit(Z, names)
        assert worst_class(given, Z, names) > 0.75
    assert "with the given class weights" in AIFSClassifier(class_weight=counts).fit(Z, names).discovery_.message_
    with pytest.raises(InvalidConfigError, match="class_weight must be one of 'balanced', None; got 'even'"):
        AIFSClassifier(class_weight="even").fit(Z, y)


def test_training_methods_by_name():
    Z, y, _ = planted(0.97)
    schedule = LatentSchedule(epochs=5, learning_rate=0.01)
    for recipe in ("paper", "aifs"):
        clf = AIFSClassifier(recipe, schedule=schedule, random_state=0).fit(Z, np.where(y == 1, "yes", "no"))
        assert clf.score(Z, np.where(y == 1, "yes", "no")) > 0.8
        assert clf.coef_.shape == (2, 24)
        assert len(clf.fit_.history) >= 5
        again = AIFSClassifier(recipe, schedule=schedule, random_state=0).fit(Z, np.where(y == 1, "yes", "no"))
        np.testing.assert_array_equal(clf.coef_, again.coef_)
    assert int(AIFSClassifier("paper", schedule=schedule, random_state=0).fit(Z, y).fit_.state.num_updates) == 5
    test = planted(0.5, n=2000, seed=1)
    long = LatentSchedule(epochs=20, learning_rate=0.02)
    worst = {
        name: worst_group(AIFSClassifier(name, schedule=long, random_state=0).fit(Z, y), *test)
        for name in ("aifs", "paper")
    }
    assert worst["aifs"] > worst["paper"] + 0.1


def test_what_a_recipe_is_given_is_checked():
    Z, y, a = planted(0.9, n=100)
    with pytest.raises(InvalidConfigError, match="recipe must be one of 'discovery', 'paper'"):
        AIFSClassifier("reweigh").fit(Z, y)
    with pytest.raises(InvalidConfigError, match="takes no recipe_options"):
        AIFSClassifier("erm", recipe_options={"l2": 1.0}).fit(Z, y)
    with pytest.raises(InvalidConfigError, match="has no option 'eta'"):
        AIFSClassifier("paper", recipe_options={"eta": 1.0}).fit(Z, y)
    with pytest.raises(InvalidInputError, match="groups of shape"):
        AIFSClassifier("gdro-oracle").fit(Z, y, groups=a[:5])
    given = AIFSClassifier("irm", recipe_options={"environments": "given"})
    with pytest.raises(InvalidInputError, match="must hold integers"):
        given.fit(Z, y, columns={"environment": np.zeros(100)})
    with pytest.raises(InvalidInputError, match="'environment' is missing \\(negative\\) for 7 of 100 examples"):
        given.fit(Z, y, columns={"environment": np.where(np.arange(100) < 7, -1, a)})
    with pytest.raises(InvalidConfigError, match="'paper' does not read groups; it reads nothing beside"):
        AIFSClassifier("paper").fit(Z, y, groups=a)


def test_dominoes(shared_dir):
    def load(name):
        with np.load(shared_dir / "data" / "dominoes_latents" / f"{name}.npz") as file:
            return file["z"], file["y"].astype(int)

    z, y = load("train")
    a = np.where(np.random.default_rng(0).random(len(y)) < 0.95, y, 1 - y)
    clf = AIFSClassifier(random_state=0).fit(z[np.arange(len(y)), a], y)
    z, y = load("test")
    test = (np.concatenate([z[:, 0], z[:, 1]]), np.r_[y, y], np.repeat([0, 1], len(y)))
    assert worst_group(clf, *test) > 0.76  # ERM 0.21, logistic regression with every group label known 0.79


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16])
def test_torch_and_every_float_type(dtype):
    Z, y, _ = planted(0.95, n=600)
    base = AIFSClassifier(random_state=0).fit(Z, y)
    clf = AIFSClassifier(random_state=0).fit(torch.tensor(Z, dtype=dtype), torch.tensor(y))
    assert np.mean(clf.predict(torch.tensor(Z, dtype=dtype)) == base.predict(Z)) > 0.98


def test_string_labels_and_imbalance():
    Z, y, _ = planted(0.95, n=3000)
    keep = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:200]]
    names = np.array(["land", "water"])[y[keep]]
    clf = AIFSClassifier(random_state=0).fit(Z[keep], names)
    assert list(clf.classes_) == ["land", "water"]
    assert set(clf.predict(Z[:50])) <= {"land", "water"}
    np.testing.assert_allclose(clf.predict_proba(Z[:50]).sum(axis=1), 1.0)
    assert np.mean((clf.predict(Z[keep]) == names)[names == "water"]) > 0.7


def test_tiny_class_falls_back_to_erm_and_says_so():
    Z, y, _ = planted(0.95, n=300)
    keep = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:3]]
    clf = AIFSClassifier(random_state=0).fit(Z[keep], y[keep])
    assert not clf.discovery_.found
    assert "smallest class 3" in clf.discovery_.message_
    assert clf.head_choice_ is None


@pytest.mark.parametrize(
    ("Z", "y", "match"),
    [
        (np.full((20, 3), np.nan), np.arange(20) % 2, "NaN"),
        (np.full((20, 3), np.inf), np.arange(20) % 2, "infinity"),
        (np.ones((20, 3)), np.zeros(20), "one class was given"),
        (np.ones((20, 3)), np.arange(20) % 2, "All 20 latents are equal"),
        (np.ones((20, 3)), np.arange(19) % 2, "inconsistent numbers of samples"),
    ],
)
def test_bad_input(Z, y, match):
    with pytest.raises(InvalidInputError, match=match):
        AIFSClassifier().fit(Z, y)


def test_fewer_rows_than_dimensions_constant_dimensions_and_duplicates_are_fine():
    Z, y, _ = planted(0.9, n=200)
    wide = np.hstack([Z, np.full((200, 300), 3.0)])
    clf = AIFSClassifier(random_state=0).fit(np.vstack([wide, wide]), np.r_[y, y])
    assert np.isfinite(clf.coef_).all()
    assert np.mean(clf.predict(wide) == y) > 0.8


def test_unknown_recipe():
    with pytest.raises(InvalidConfigError, match=r"recipe must be one of .*; got 'magic'"):
        AIFSClassifier(recipe="magic").fit(np.eye(10), np.arange(10) % 2)


def test_wrong_width_at_prediction():
    Z, y, _ = planted(0.5, n=100)
    with pytest.raises(InvalidInputError, match="features"):
        AIFSClassifier(random_state=0).fit(Z, y).predict(Z[:, :5])
