"""`group_metrics` against scikit-learn, fairlearn and definitions written out."""

import math

import fairlearn.metrics as fairness
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score, roc_auc_score

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics import group_metrics


def binary(n: int = 2000, groups: int = 5, seed: int = 0):
    """Labels, predictions, groups, probabilities of class 1 with ties."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, 2, n)
    group = rng.integers(0, groups, n)
    score = np.round(np.clip(0.35 * y_true + 0.6 * rng.random(n) + 0.03 * group, 0, 1), 2)
    return y_true, (score > 0.5).astype(int), group, score


def multiclass(n: int = 3000, classes: int = 4, groups: int = 3, seed: int = 1):
    """Labels, predictions, groups, class probabilities."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, classes, n)
    group = rng.integers(0, groups, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), y_true] += 1.0 + 0.3 * group
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return y_true, probabilities.argmax(1), group, probabilities


def naive_calibration_error(y_true, y_pred, confidence, bins=15):
    """The definition of Guo et al., bin by bin."""
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if b == 0:
            inside |= confidence == 0
        if inside.any():
            error += inside.mean() * abs((y_true == y_pred)[inside].mean() - confidence[inside].mean())
    return error


def test_binary_equals_sklearn_in_every_group():
    y_true, y_pred, group, score = binary()
    result = group_metrics(y_true, y_pred, group, score)
    assert result["average_accuracy"] == pytest.approx(accuracy_score(y_true, y_pred), abs=1e-12)
    assert result["n"] == 2000
    for g in range(5):
        rows, entry = group == g, result["groups"][str(g)]
        assert entry["n"] == rows.sum()
        assert entry["accuracy"] == pytest.approx(accuracy_score(y_true[rows], y_pred[rows]), abs=1e-12)
        assert entry["roc_auc"] == pytest.approx(roc_auc_score(y_true[rows], score[rows]), abs=1e-12)
        assert entry["true_positive_rate"] == pytest.approx(recall_score(y_true[rows], y_pred[rows]), abs=1e-12)
        assert entry["false_positive_rate"] == pytest.approx(y_pred[rows & (y_true == 0)].mean(), abs=1e-12)
        assert entry["brier_score"] == pytest.approx(brier_score_loss(y_true[rows], score[rows]), abs=1e-8)
    accuracies = [entry["accuracy"] for entry in result["groups"].values()]
    assert result["worst_group_accuracy"] == min(accuracies)
    assert result["worst_group"] == str(int(np.argmin(accuracies)))
    assert result["worst_group_roc_auc"] == min(entry["roc_auc"] for entry in result["groups"].values())


def test_binary_fairness_equals_fairlearn():
    y_true, y_pred, group, _ = binary()
    result = group_metrics(y_true, y_pred, group)
    opportunity = fairness.equal_opportunity_difference(y_true, y_pred, sensitive_features=group)
    odds = fairness.equalized_odds_difference(y_true, y_pred, sensitive_features=group)
    assert result["equal_opportunity_difference"] == pytest.approx(opportunity, abs=1e-12)
    assert result["equalized_odds_difference"] == pytest.approx(odds, abs=1e-12)
    assert odds > 0.02  # otherwise the comparison proves nothing


def test_multiclass_equals_sklearn_and_fairlearn_one_versus_rest():
    y_true, y_pred, group, probabilities = multiclass()
    result = group_metrics(y_true, y_pred, group, probabilities)
    for g in range(3):
        rows, entry = group == g, result["groups"][str(g)]
        expected = roc_auc_score(y_true[rows], probabilities[rows], multi_class="ovr", average="macro")
        assert entry["roc_auc"] == pytest.approx(expected, abs=1e-12)
        recalls = recall_score(y_true[rows], y_pred[rows], average=None)
        np.testing.assert_allclose(entry["true_positive_rate_per_class"], recalls, atol=1e-12)
        assert entry["true_positive_rate"] == pytest.approx(recalls.mean(), abs=1e-12)
        brier = ((probabilities[rows] - np.eye(4)[y_true[rows]]) ** 2).sum(1).mean()
        assert entry["brier_score"] == pytest.approx(brier, abs=1e-8)
    pairs = [(y_true == k, y_pred == k) for k in range(4)]
    opportunity = max(fairness.equal_opportunity_difference(t, p, sensitive_features=group) for t, p in pairs)
    odds = max(fairness.equalized_odds_difference(t, p, sensitive_features=group) for t, p in pairs)
    assert result["equal_opportunity_difference"] == pytest.approx(opportunity, abs=1e-12)
    assert result["equalized_odds_difference"] == pytest.approx(odds, abs=1e-12)


def test_group_accuracies_equal_fairlearns_frame_and_sklearns_weights():
    y_true, y_pred, group, _ = multiclass()
    shares = np.array([0.7, 0.2, 0.1])
    result = group_metrics(y_true, y_pred, group, group_shares=shares)
    frame = fairness.MetricFrame(metrics=accuracy_score, y_true=y_true, y_pred=y_pred, sensitive_features=group)
    assert result["worst_group_accuracy"] == pytest.approx(frame.group_min(), abs=1e-12)
    assert result["average_accuracy"] == pytest.approx(frame.overall, abs=1e-12)
    weights = (shares / np.bincount(group))[group]
    weighted = accuracy_score(y_true, y_pred, sample_weight=weights)
    assert result["adjusted_average_accuracy"] == pytest.approx(weighted, abs=1e-12)
    assert abs(weighted - frame.overall) > 0.01  # otherwise the comparison proves nothing


def test_calibration_equals_the_definition():
    y_true, y_pred, group, score = binary()
    result = group_metrics(y_true, y_pred, group, score)
    confidence = np.where(y_pred == 1, score, 1 - score)
    expected = naive_calibration_error(y_true, y_pred, confidence)
    assert result["expected_calibration_error"] == pytest.approx(expected, abs=1e-8)
    assert result["brier_score"] == pytest.approx(brier_score_loss(y_true, score), abs=1e-8)
    rows = group == 2
    expected = naive_calibration_error(y_true[rows], y_pred[rows], confidence[rows])
    assert result["groups"]["2"]["expected_calibration_error"] == pytest.approx(expected, abs=1e-8)
    y_true, y_pred, group, probabilities = multiclass()
    result = group_metrics(y_true, y_pred, group, probabilities, calibration_bins=10)
    expected = naive_calibration_error(y_true, y_pred, probabilities.max(1), 10)
    assert result["expected_calibration_error"] == pytest.approx(expected, abs=1e-8)


def test_adjusted_average_weights_by_training_shares():
    y_true, y_pred, group = [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]
    result = group_metrics(y_true, y_pred, group, group_shares=[10, 30])
    assert result["average_accuracy"] == 0.75
    assert result["adjusted_average_accuracy"] == pytest.approx(0.25)
    assert "adjusted_average_accuracy" not in result["reasons"]
    without = group_metrics(y_true, y_pred, group)
    assert math.isnan(without["adjusted_average_accuracy"])
    assert "group_shares" in without["reasons"]["adjusted_average_accuracy"]


def test_adjusted_average_with_test_shares_is_the_average():
    y_true, y_pred, group, _ = binary()
    result = group_metrics(y_true, y_pred, group, group_shares=np.bincount(group))
    assert result["adjusted_average_accuracy"] == pytest.approx(result["average_accuracy"], abs=1e-12)


def test_empty_group_is_named_and_never_the_worst():
    result = group_metrics([0, 1], [0, 1], [0, 2], [0.1, 0.9], num_groups=4, group_shares=[1, 1, 1, 0])
    assert result["worst_group_accuracy"] == 1.0
    assert result["empty_groups"] == ["1", "3"]
    assert result["groups"]["1"]["n"] == 0
    assert math.isnan(result["groups"]["1"]["accuracy"])
    assert "no example" in result["groups"]["1"]["reasons"]["accuracy"]
    assert "1, 3" in result["reasons"]["worst_group_accuracy"]
    assert result["adjusted_average_accuracy"] == 1.0
    assert result["reasons"]["adjusted_average_accuracy"].endswith(": 1")


def test_one_class_group_has_no_area_and_is_not_the_minimum():
    y_true, group = np.array([0, 1, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1])
    score = np.array([0.1, 0.8, 0.6, 0.4, 0.2, 0.3])
    result = group_metrics(y_true, (score > 0.5).astype(int), group, score)
    assert math.isnan(result["groups"]["1"]["roc_auc"])
    assert "only class 1" in result["groups"]["1"]["reasons"]["roc_auc"]
    assert result["worst_group_roc_auc"] == 0.75
    assert result["worst_roc_auc_group"] == "0"
    assert "1" in result["reasons"]["worst_group_roc_auc"]
    assert math.isnan(result["groups"]["1"]["false_positive_rate"])


def test_half_a_comparison_is_not_fairness():
    # only one group has negatives: equalised odds cannot compare false positive rates
    result = group_metrics([1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1])
    assert result["equal_opportunity_difference"] == 0.0
    assert math.isnan(result["equalized_odds_difference"])
    assert "no comparison" in result["reasons"]["equalized_odds_difference"]
    alone = group_metrics([1, 0], [1, 0], [0, 0])
    assert math.isnan(alone["equal_opportunity_difference"])


def test_undefined_rate_is_left_out_and_named_where_fairlearn_counts_zero():
    y_true, y_pred, group = [1, 1, 0, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 2, 2]
    result = group_metrics(y_true, y_pred, group)
    assert result["equal_opportunity_difference"] == 0.5
    assert result["reasons"]["equal_opportunity_difference"].endswith(": 2")


def test_class_by_attribute_groups_compare_attributes():
    y_true, y_pred, attribute, score = binary(groups=3)
    cells = y_true * 3 + attribute
    by_attribute = group_metrics(y_true, y_pred, attribute, score, n_boot=20, random_state=0)
    result = group_metrics(y_true, y_pred, cells, score, attributes=attribute)
    for key in ("equal_opportunity_difference", "equalized_odds_difference", "worst_group_roc_auc"):
        assert result[key] == by_attribute[key]
    assert result["compared_over"] == "attributes"
    assert by_attribute["compared_over"] == "groups"
    assert list(result["attributes"]) == ["0", "1", "2"]
    assert by_attribute["attributes"] == {}
    assert result["worst_group_accuracy"] == min(e["accuracy"] for e in result["groups"].values())
    alone = group_metrics(y_true, y_pred, cells, score)  # every group has one class
    assert math.isnan(alone["worst_group_roc_auc"])
    assert alone["equal_opportunity_difference"] == result["equal_opportunity_difference"]


def test_overlapping_groups_equal_each_column_alone():
    y_true, y_pred, _, score = binary()
    member = np.random.default_rng(3).random((2000, 4)) < [0.5, 0.2, 0.9, 0.0]
    result = group_metrics(y_true, y_pred, member, score)
    for g in range(3):
        rows = member[:, g]
        alone = group_metrics(y_true[rows], y_pred[rows], np.zeros(rows.sum(), int), score[rows])
        np.testing.assert_equal(result["groups"][str(g)], alone["groups"]["0"])
    assert result["empty_groups"] == ["3"]
    assert result["n"] == 2000  # each example once, in no group or in four
    assert result["average_accuracy"] == accuracy_score(y_true, y_pred)
    one_hot = np.arange(5) == binary()[2][:, None]
    np.testing.assert_equal(
        group_metrics(y_true, y_pred, one_hot, score), group_metrics(y_true, y_pred, binary()[2], score)
    )


def test_large_overlapping_matrix_is_chunked():
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.integers(0, 2, (2, 30000))
    member = rng.random((30000, 40)) < 0.3
    result = group_metrics(y_true, y_pred, member)
    expected = [(y_true == y_pred)[member[:, g]].mean() for g in range(40)]
    np.testing.assert_allclose([e["accuracy"] for e in result["groups"].values()], expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_tensors_and_low_precision(dtype):
    y_true, y_pred, group, score = binary()
    tensor = torch.from_numpy(score).to(dtype).requires_grad_()
    result = group_metrics(torch.from_numpy(y_true), torch.from_numpy(y_pred), torch.from_numpy(group), tensor)
    rounded = tensor.detach().double().numpy()
    np.testing.assert_equal(result, group_metrics(y_true, y_pred, group, rounded))
    assert result["groups"]["0"]["roc_auc"] == pytest.approx(roc_auc_score(y_true[group == 0], rounded[group == 0]))


def test_two_columns_of_probabilities_are_the_second_one():
    y_true, y_pred, group, score = binary()
    columns = np.stack([1 - score, score], axis=1)
    np.testing.assert_equal(group_metrics(y_true, y_pred, group, columns), group_metrics(y_true, y_pred, group, score))


def test_logits_rank_but_do_not_calibrate():
    y_true, y_pred, group, score = binary()
    result = group_metrics(y_true, y_pred, group, 5 * score - 2)
    assert result["worst_group_roc_auc"] == pytest.approx(
        group_metrics(y_true, y_pred, group, score)["worst_group_roc_auc"]
    )
    assert math.isnan(result["expected_calibration_error"])
    assert "no probability" in result["reasons"]["expected_calibration_error"]
    assert "no probability" in result["groups"]["0"]["reasons"]["brier_score"]


def test_padding_is_excluded_whatever_it_holds():
    y_true, y_pred, group, score = binary(50)
    valid = np.array([True] * 50 + [False] * 3)
    padded = group_metrics(
        np.append(y_true, [-100, 7, 0]),
        np.append(y_pred, [0, 0, -1]),
        np.append(group, [99, -1, 0]),
        np.append(score, [np.nan, np.inf, 0.5]),
        valid=valid,
    )
    np.testing.assert_equal(padded, group_metrics(y_true, y_pred, group, score))


def keys(value):
    """The nested keys of a result, without the texts of `reasons`."""
    return {k: keys(v) for k, v in value.items() if k != "reasons"} if isinstance(value, dict) else None


def test_keys_do_not_depend_on_the_data():
    y_true, y_pred, group, score = binary()
    full = group_metrics(y_true, y_pred, group, score, n_boot=5, random_state=0)
    sparse = group_metrics([1], [1], [3], num_groups=5)
    nothing = group_metrics([], [], [], num_groups=5)
    assert keys(full) == keys(sparse) == keys(nothing)
    assert nothing["n"] == 0
    assert math.isnan(nothing["average_accuracy"])
    assert nothing["reasons"]["average_accuracy"] == "there is no example"
    assert nothing["worst_group"] is None


def test_every_nan_has_a_reason():
    result = group_metrics([1, 1, 0], [1, 0, 0], [0, 0, 1], num_groups=3)
    headline = [k for k, v in result.items() if isinstance(v, float) and math.isnan(v)]
    assert "worst_group_roc_auc" in headline
    assert set(headline) <= set(result["reasons"])
    for entry in result["groups"].values():
        assert {k for k, v in entry.items() if isinstance(v, float) and math.isnan(v)} <= set(entry["reasons"])


def test_fixed_keys_of_the_interface():
    result = group_metrics([0, 1], [0, 1], [0, 0])
    fixed = {
        "average_accuracy", "adjusted_average_accuracy", "worst_group_accuracy", "worst_group_roc_auc",
        "equal_opportunity_difference", "equalized_odds_difference", "expected_calibration_error", "n", "groups",
    }  # fmt: skip
    assert fixed <= set(result)
    assert {"n", "accuracy", "roc_auc", "true_positive_rate", "accuracy_interval"} <= set(result["groups"]["0"])


def test_small_groups_are_flagged():
    result = group_metrics([0] * 31, [0] * 31, [0] * 30 + [1])
    assert result["small_groups"] == ["1"]
    assert not result["groups"]["0"]["small"]


def test_names_are_kept_in_order():
    result = group_metrics([0, 1], [0, 0], [1, 0], group_names=["water", "land"])
    assert list(result["groups"]) == ["water", "land"]
    assert result["worst_group"] == "water"


def test_the_number_of_groups_of_nothing_is_unknown():
    with pytest.raises(InvalidInputError, match="num_groups"):
        group_metrics([], [], [])
