"""Every recipe of `AIFSClassifier` against scikit-learn's `check_estimator`: which checks fail, and why.

A test holds each recipe to this table, in both directions; `docs/compatibility.md` shows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.estimator_checks import check_estimator

from aifs_peft import AIFSClassifier
from aifs_peft.methods import get, names
from aifs_peft.training.latent_trainer import LatentSchedule

CLOSED = ("discovery", "erm")
# "paper" is "aifs-paper" under another name.
TRAINED = tuple(n for n in names() if get(n).on_latents and n != "aifs-paper" and not n.startswith("doctest-"))
TRAINED = ("paper", *TRAINED)
RECIPES = (*CLOSED, *(f"{name} (trained)" if name in CLOSED else name for name in TRAINED))

# Numbers with which the checks take seconds; everything else is the default.
SCHEDULE = LatentSchedule(epochs=4, learning_rate=0.1)
OPTIONS: dict[str, dict[str, Any]] = {
    "afr": {"steps": 50},
    "leia": {"steps": 50},
    "irm": {"environments": "given", "min_examples": 1},
    "xrm-gdro": {"twins": {"draws": 2, "steps": 50}},
}

_REPEATED = "an example of weight 2 lies in one of the folds that choose the penalty, two equal examples may lie in two"
_NO_WEIGHTS = "sample_weight is refused by name, training methods take none"
_NO_CLASS_WEIGHT = "a mapping as class_weight is refused by name, training methods take none"
_MISTAKES = "examples that plain training gets wrong weigh more, which costs accuracy where classes overlap"
_NOISE = "the environments that the checks are given are noise, and the penalty for differences costs accuracy"
_HELD_OUT = "at least 2 examples of each group are needed in the held-out fifth; the checks have fewer"
_FEW = "at least 4 training examples of each class are needed, and the message says that first"

_WEIGHT_CHECKS = (
    "check_sample_weights_pandas_series",
    "check_sample_weights_not_an_array",
    "check_sample_weights_list",
    "check_all_zero_sample_weights_error",
    "check_sample_weights_shape",
    "check_sample_weights_not_overwritten",
    "check_sample_weight_equivalence_on_dense_data",
    "check_classifiers_one_label_sample_weights",
)
_SMALL_CHECKS = (
    "check_fit_score_takes_y",
    "check_estimators_overwrite_params",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_readonly_memmap_input",
    "check_n_features_in_after_fitting",
    "check_dtype_object",
    "check_pipeline_consistency",
    "check_estimators_nan_inf",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_classifiers_classes",
    "check_supervised_y_2d",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_fit2d_1feature",
    "check_dict_unchanged",
    "check_fit_check_is_fitted",
    "check_fit2d_predict1d",
    "check_classifier_data_not_an_array",
)


def expected_failed_checks(recipe: str) -> dict[str, str]:
    """Name of each check that fails for a recipe -> why; what `check_estimator` takes under this name."""
    if recipe in CLOSED:
        return {"check_sample_weight_equivalence_on_dense_data": _REPEATED}
    out = dict.fromkeys(_WEIGHT_CHECKS, _NO_WEIGHTS) | {"check_class_weight_classifiers": _NO_CLASS_WEIGHT}
    if recipe in ("jtt", "shortcutprobe"):
        out["check_classifiers_train"] = _MISTAKES
    if recipe == "irm":
        out["check_classifiers_train"] = _NOISE
    if recipe == "dfr-oracle":
        out |= dict.fromkeys(_SMALL_CHECKS, _HELD_OUT)
    if recipe == "shortcutprobe":
        out["check_fit2d_1feature"] = _FEW
    return out


class Given(AIFSClassifier):
    """A recipe that needs a column, which the checks know nothing of: every second example has the attribute."""

    def fit(self, Z, y, *, sample_weight=None):
        second = None if y is None else np.arange(len(np.asarray(y))) % 2
        given = {"columns": {"environment": second}} if self.recipe == "irm" else {"groups": second}
        return super().fit(Z, y, sample_weight=sample_weight, **given)


def estimator(recipe: str) -> AIFSClassifier:
    """The estimator that the checks are run on."""
    if recipe in CLOSED:
        return AIFSClassifier(recipe, random_state=0)
    name = recipe.removesuffix(" (trained)")
    needs = name == "irm" or (name != "paper" and get(name).supervision == "groups")
    cls = Given if needs else AIFSClassifier
    return cls(name, recipe_options=OPTIONS.get(name), schedule=SCHEDULE, random_state=0)


def failed_checks(recipe: str) -> dict[str, Exception]:
    """Name of each check that fails -> its error."""
    done = check_estimator(estimator(recipe), on_fail=None, on_skip=None)
    return {entry["check_name"]: entry["exception"] for entry in done if entry["status"] == "failed"}
