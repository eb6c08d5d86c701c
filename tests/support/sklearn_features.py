"""What users of scikit-learn take for granted: one row per feature, that it works or with which words it is refused.

A test runs every row; `docs/compatibility.md` shows them.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import scipy.sparse
import sklearn
import torch
from features import Feature
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aifs_peft import AIFSClassifier
from aifs_peft.training.latent_trainer import LatentSchedule

SHORT = LatentSchedule(epochs=2, learning_rate=0.05)


def planted(n=240, seed=0):
    """Latents `(n, 6)`, labels and attribute."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    a = np.where(np.arange(n) // 2 % 8 > 0, y, 1 - y)
    Z = rng.normal(size=(n, 6))
    Z[:, 0] += 5 * a
    Z[:, 1] += 3 * y
    return Z, y, a


Z, Y, A = planted()
NAMES = np.array(["land", "water"])
WEIGHTS = np.where(Y == A, 1.0, 4.0)
CLOSED = ("discovery", "erm")


def make(recipe="discovery", **given):
    return AIFSClassifier(recipe, random_state=0, **given)


def trained(recipe="jtt", **given):
    return make(recipe, schedule=SHORT, **given)


def same(first, second, latents=Z):
    np.testing.assert_allclose(first.decision_function(latents), second.decision_function(latents), atol=1e-6)


# --- inputs ----------------------------------------------------------------------------------------------------------


def latents_as(change, tolerance=1e-6):
    """Fitted on and predicting the same latents in another form."""

    def run():
        other = make().fit(change(Z), Y)
        reference = make().fit(np.asarray(change(Z), dtype=np.float64) if tolerance else Z, Y)
        np.testing.assert_allclose(other.predict_proba(change(Z)), reference.predict_proba(Z), atol=tolerance or 0.05)

    return run


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def whole_numbers():
    X = np.round(4 * Z).astype(np.int16)
    same(make().fit(X, Y), make().fit(X.astype(float), Y), X)


def frame():
    table = pd.DataFrame(Z, columns=[f"z{i}" for i in range(6)], index=np.arange(240)[::-1])
    clf = make().fit(table, pd.Series(Y, index=table.index))
    assert clf.n_features_in_ == 6
    assert list(clf.feature_names_in_) == list(table.columns)
    np.testing.assert_allclose(clf.decision_function(table), make().fit(Z, Y).decision_function(Z))


def other_columns():
    table = pd.DataFrame(Z, columns=list("abcdef"))
    make().fit(table, Y).predict(table[list("bacdef")])


def labels_as(change):
    def run():
        values = change(Y)
        clf = make().fit(Z, values)
        assert len(clf.classes_) == 2
        assert set(np.unique(np.asarray(clf.predict(Z)))) <= set(np.unique(np.asarray(values)))
        same(clf, make().fit(Z, Y))

    return run


# --- fitting ---------------------------------------------------------------------------------------------------------


def begins_from_nothing():
    clf = make().fit(np.hstack([Z, Z[:, :2]]), np.arange(240) % 3)
    clf.fit(Z, NAMES[Y])
    fresh = make().fit(Z, NAMES[Y])
    assert list(clf.classes_) == ["land", "water"]
    assert clf.n_features_in_ == 6
    same(clf, fresh)


def after_a_failed_fit():
    clf = make().fit(Z, Y)
    try:
        clf.fit(Z, np.zeros(240))
    except ValueError:
        clf.predict(Z)


def cloned():
    clf = make(class_weight=None).fit(Z, Y)
    fresh = clone(clf)
    assert not hasattr(fresh, "classes_")
    assert fresh.get_params() == clf.get_params()
    same(fresh.fit(Z, Y), clf)


def pickled():
    for clf in (make(), trained("ule"), trained("aifs")):
        clf.fit(Z, Y)
        same(pickle.loads(pickle.dumps(clf)), clf)
        same(copy.deepcopy(clf), clf)


def other_recipe():
    clf = make().fit(Z, Y)
    for recipe, schedule in (("ule", SHORT), ("erm", None), ("jtt", SHORT), ("discovery", None)):
        clf.set_params(recipe=recipe, schedule=schedule).fit(Z, Y)
        same(clf, make(recipe, schedule=schedule).fit(Z, Y))


def probabilities():
    clf = make().fit(Z, Y)
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(Z)), clf.predict_proba(Z), atol=1e-12)
    assert np.isfinite(clf.predict_log_proba(1e6 * Z)).all()
    assert clf.decision_function(Z).shape == (240,)
    np.testing.assert_array_equal(clf.predict(Z), (clf.decision_function(Z) > 0).astype(int))
    assert make().fit(Z, np.arange(240) % 3).decision_function(Z).shape == (240, 3)


# --- weights ---------------------------------------------------------------------------------------------------------


def weighted():
    for recipe in CLOSED:
        plain, heavy = make(recipe).fit(Z, Y), make(recipe).fit(Z, Y, sample_weight=WEIGHTS)
        assert np.abs(plain.coef_ - heavy.coef_).max() > 1e-4
        same(make(recipe).fit(Z, Y, sample_weight=np.ones(240)), plain)
        same(make(recipe).fit(Z, Y, sample_weight=1000.0 * WEIGHTS), heavy)


def zero_weights():
    for recipe in CLOSED:
        kept = make(recipe).fit(Z[:200], Y[:200])
        same(make(recipe).fit(Z, Y, sample_weight=(np.arange(240) < 200).astype(float)), kept)


def through_pipeline():
    pipe = make_pipeline(StandardScaler(), make())
    pipe.fit(Z, Y, aifsclassifier__sample_weight=WEIGHTS)
    alone = make().fit(StandardScaler().fit_transform(Z), Y, sample_weight=WEIGHTS)
    np.testing.assert_allclose(pipe.decision_function(Z), alone.decision_function(StandardScaler().fit_transform(Z)))


def through_routing():
    with sklearn.config_context(enable_metadata_routing=True):
        asked = make("erm").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = cross_validate(asked, Z, Y, cv=3, params={"sample_weight": WEIGHTS}, return_estimator=True)
        left = cross_validate(make("erm"), Z, Y, cv=3, return_estimator=True)
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asked)
        pipe.fit(Z, Y, sample_weight=WEIGHTS)
        hinted = make_pipeline(StandardScaler(), make().set_fit_request(groups=True))
        hinted.fit(Z, Y, groups=np.where(np.arange(240) < 80, A, -1))
    assert np.abs(found["estimator"][0].coef_ - left["estimator"][0].coef_).max() > 1e-4


def routing_refused():
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False), trained().set_fit_request(sample_weight=True)
        )
        pipe.fit(Z, Y, sample_weight=WEIGHTS)


# --- other estimators ------------------------------------------------------------------------------------------------


def searched():
    search = GridSearchCV(make(), {"recipe": list(CLOSED), "class_weight": ["balanced", None]}, cv=3).fit(Z, Y)
    assert len(search.cv_results_["mean_test_score"]) == 4
    assert set(search.predict(Z)) == {0, 1}
    GridSearchCV(make("erm"), {"class_weight": ["balanced"]}, cv=GroupKFold(3)).fit(Z, Y, groups=np.arange(240) // 20)


def validated():
    assert cross_val_score(make(), Z, Y, cv=3).shape == (3,)
    assert cross_val_predict(make(), Z, Y, cv=3, method="predict_log_proba").shape == (240, 2)


def inside(wrap):
    def run():
        model = wrap().fit(Z, Y)
        assert model.score(Z, Y) > 0.6

    return run


INPUTS = [
    Feature("latents in float64, float32, float16", lambda: [latents_as(lambda X, t=t: X.astype(t), 0)()
            for t in (np.float64, np.float32, np.float16)]),
    Feature("latents as whole numbers", whole_numbers),
    Feature("a torch tensor, also in bfloat16", lambda: [latents_as(lambda X, t=t: torch.tensor(X, dtype=t), 0)()
            for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)]),
    Feature("lists, object arrays", lambda: [latents_as(c)() for c in (np.ndarray.tolist, lambda X: X.astype(object))]),
    Feature("read-only and Fortran-ordered arrays", lambda: [latents_as(c)() for c in (frozen, np.asfortranarray)]),
    Feature("a DataFrame, with `feature_names_in_`, and a Series as labels", frame),
    Feature("another order of columns in `predict`", other_columns, "The feature names should match"),
    Feature("sparse matrices and arrays in `fit`", lambda: make().fit(scipy.sparse.csr_matrix(Z), Y),
            "Sparse data was given, a csr_matrix of shape (240, 6): latents are dense. Pass Z.toarray()"),
    Feature("sparse data in `predict`", lambda: make().fit(Z, Y).predict(scipy.sparse.coo_array(Z)),
            "Sparse data was given, a coo_array of shape (240, 6)"),
    Feature("sparse features, reduced first", lambda: make_pipeline(TruncatedSVD(5, random_state=0), make()).fit(
            scipy.sparse.csr_matrix(Z), Y).predict(scipy.sparse.csr_matrix(Z))),
    Feature("NaN or infinite latents", lambda: make().fit(np.where(Z > 2, np.nan, Z), Y), "Input X contains NaN"),
    Feature("complex latents", lambda: make().fit(Z + 1j, Y), "Complex data not supported"),
    Feature("labels as strings, object strings, a list", lambda: [labels_as(c)() for c in (
            lambda y: NAMES[y], lambda y: NAMES[y].astype(object), lambda y: NAMES[y].tolist())]),
    Feature("labels as booleans, whole floats, a torch tensor", lambda: [labels_as(c)() for c in (
            lambda y: y.astype(bool), lambda y: y.astype(float), torch.tensor)]),
    Feature("labels as a categorical or nullable Series", lambda: [labels_as(c)() for c in (
            lambda y: pd.Series(NAMES[y], dtype="category"), lambda y: pd.Series(y, dtype="Int64"))]),
    Feature("labels that are no classes", lambda: make().fit(Z, Z[:, 0]), "Unknown label type: continuous"),
    Feature("missing labels", lambda: make().fit(Z, np.where(Y == 0, np.nan, 1.0)), "Input y contains NaN"),
    Feature("None among labels", lambda: make().fit(Z, np.where(Y == 0, None, "a")), "y is missing (None or NaN) for"),
    Feature("several labels per example", lambda: make().fit(Z, np.eye(2)[Y]), "y should be a 1d array"),
    Feature("one class", lambda: make().fit(Z, np.zeros(240)), "All 240 labels are 0.0: one class was given"),
]  # fmt: skip
FITTING = [
    Feature("`fit` begins from nothing: other classes, width and type of labels", begins_from_nothing),
    Feature("`set_params(recipe=...)` and `fit` again, over all pairs of recipes", other_recipe),
    Feature("prediction after a `fit` that failed", after_a_failed_fit, "This AIFSClassifier instance is not fitted"),
    Feature("`clone`, `get_params`, `set_params`", cloned),
    Feature("`pickle`, `copy.deepcopy`", pickled),
    Feature("`predict_proba`, `predict_log_proba`, `decision_function` (for two classes of shape `(n,)`)",
            probabilities),
    Feature("`sample_weight` in `fit`, recipes `discovery` and `erm`", weighted),
    Feature("examples of weight 0 are as if they were not there", zero_weights),
    Feature("`sample_weight` in `fit`, training methods", lambda: trained().fit(Z, Y, sample_weight=WEIGHTS),
            "recipe='jtt' does not read sample_weight"),
    Feature("`sample_weight` in `fit`, `erm` with a `schedule`",
            lambda: trained("erm").fit(Z, Y, sample_weight=WEIGHTS), "recipe='erm' does not read sample_weight"),
    Feature("negative weights", lambda: make().fit(Z, Y, sample_weight=-WEIGHTS), "Negative values in data"),
    Feature("weights of another length", lambda: make().fit(Z, Y, sample_weight=WEIGHTS[:9]),
            "sample_weight.shape == (9,)"),
    Feature("all weights 0", lambda: make().fit(Z, Y, sample_weight=0 * WEIGHTS),
            "Sample weights must contain at least one non-zero"),
    Feature("a class without any weight", lambda: make().fit(Z, Y, sample_weight=Y), "All 120 labels are 1"),
    Feature("`class_weight` as a mapping, recipes `discovery` and `erm`",
            lambda: [make(r, class_weight={0: 1, 1: 9}).fit(Z, Y) for r in CLOSED]),
    Feature("`class_weight` as a mapping, training methods",
            lambda: trained(class_weight={0: 1, 1: 9}).fit(Z, Y), "recipe='jtt' does not read class_weight"),
    Feature("a misspelt label in `class_weight`", lambda: make("erm", class_weight={0: 2, 7: 1}).fit(Z, Y),
            "class_weight has weights for 7, which is no label, and none for 1"),
    Feature("hints given to a recipe that reads none", lambda: make("erm").fit(Z, Y, groups=A),
            "recipe='erm' does not read groups"),
    Feature("metadata given to a training method", lambda: trained("aifs").fit(Z, Y, metadata={"site": A}),
            "recipe='aifs' does not read metadata"),
    Feature("a column that the method does not read", lambda: trained("aifs").fit(Z, Y, columns={"group": A}),
            "method 'aifs' reads no column 'group'"),
    Feature("true groups of which some are missing, oracles",
            lambda: trained("gdro-oracle").fit(Z, Y, groups=np.where(np.arange(240) < 9, -1, A)),
            "groups is missing (-1, None, NaN or empty) for 9 of 240 examples"),
]  # fmt: skip
OTHERS = [
    Feature("`Pipeline`, with `step__sample_weight`", through_pipeline),
    Feature("metadata routing: `set_fit_request(sample_weight=True, groups=True)`", through_routing),
    Feature("metadata routing of weights to a training method", routing_refused,
            "recipe='jtt' does not read sample_weight"),
    Feature("`GridSearchCV`", searched),
    Feature("`cross_val_score`, `cross_val_predict`", validated),
    Feature("`CalibratedClassifierCV`", inside(lambda: CalibratedClassifierCV(make("erm"), cv=3))),
    Feature("`BaggingClassifier`", inside(lambda: BaggingClassifier(make("erm"), n_estimators=3, random_state=0))),
    Feature("`AdaBoostClassifier`", inside(lambda: AdaBoostClassifier(make("erm"), n_estimators=3, random_state=0))),
    Feature("`VotingClassifier`", inside(lambda: VotingClassifier([("a", make()), ("b", LogisticRegression())],
            voting="soft"))),
    Feature("`StackingClassifier`", inside(lambda: StackingClassifier([("a", make()), ("b", LogisticRegression())],
            cv=3))),
    Feature("`OneVsRestClassifier`", inside(lambda: OneVsRestClassifier(make("erm")))),
]  # fmt: skip
TABLES = {"Inputs": INPUTS, "Fitting and predicting": FITTING, "With other estimators": OTHERS}
