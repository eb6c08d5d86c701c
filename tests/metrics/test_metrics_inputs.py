"""Every argument that does not fit is refused by name."""

import numpy as np
import pytest
import torch

from aifs_peft.errors import AIFSError, InvalidInputError
from aifs_peft.metrics import GroupMetricAccumulator, group_metrics

OK = [0, 1]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([0.0, 1.0], OK, OK), "y_true must hold integers; got float64"),
        ((OK, [0.2, 0.8], OK), "y_pred must hold integers"),
        ((OK, OK, [0.0, 1.0]), "groups must hold integers"),
        (([[0, 1]], OK, OK), "one length"),
        (([[0], [1]], OK, OK), r"y_true must have shape \(n,\); got \(2, 1\)"),
        ((OK, OK, [0]), "one length"),
        ((OK, OK, 1), "one length"),
        (([0, 2], OK, OK), r"y_true must lie in 0\.\.1; got values from 0 to 2"),
        ((OK, [-1, 1], OK), r"y_pred must lie in 0\.\.1; got values from -1"),
        ((OK, OK, [0, 3]), r"groups must lie in 0\.\.2; got values from 0 to 3"),
        ((["a", "b"], OK, OK), "must hold numbers or booleans"),
        ((None, OK, OK), "must hold numbers or booleans"),
        (([[0], [1, 2]], OK, OK), "rectangular"),
        ((OK, OK, [[1, 0, 0], [0, 1, 0]]), "must be boolean"),
        ((OK, OK, np.ones((2, 4), bool)), "4 columns; 3 slots"),
        ((OK, OK, OK, [0.1, np.nan]), "1 NaN or infinite"),
        ((OK, OK, OK, [np.inf, -np.inf]), "2 NaN or infinite"),
        ((OK, OK, OK, np.ones((2, 3)) / 3), r"2 classes need \(n,\) or \(n, 2\)"),
        ((OK, OK, OK, [[0.5, 0.9], [0.5, 0.5]]), "apply a softmax"),
        ((OK, OK, OK, [[-1.0, 2.0], [0.5, 0.5]]), "apply a softmax"),
    ],
)
def test_bad_arrays(arguments, match):
    with pytest.raises(InvalidInputError, match=match):
        GroupMetricAccumulator(3).update(*arguments)


@pytest.mark.parametrize("valid", [[1, 0], [[True, False]] * 2])
def test_a_mask_must_be_boolean(valid):
    with pytest.raises(InvalidInputError, match="valid must be boolean"):
        GroupMetricAccumulator(3).update(OK, OK, OK, valid=valid)


def test_multiclass_scores_need_one_column_per_class():
    with pytest.raises(InvalidInputError, match=r"3 classes need \(n, 3\)"):
        GroupMetricAccumulator(3, 3).update(OK, OK, OK, [0.1, 0.2])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_groups": 0}, "num_groups must be an integer of at least 1"),
        ({"num_groups": 2.0}, "num_groups"),
        ({"num_groups": "2"}, "num_groups"),
        ({"num_groups": True}, "num_groups"),
        ({"num_groups": 2, "num_classes": 1}, "num_classes must be an integer of at least 2"),
        ({"num_groups": 2, "num_attributes": -1}, "num_attributes"),
        ({"num_groups": 2, "calibration_bins": 0}, "calibration_bins"),
        ({"num_groups": 2, "score_bins": 1}, "score_bins"),
        ({"num_groups": 2, "min_group_size": -1}, "min_group_size"),
        ({"num_groups": 2, "group_names": ["a"]}, "group_names must be 2 different names"),
        ({"num_groups": 2, "group_names": ["a", "a"]}, "group_names"),
        ({"num_groups": 2, "attribute_names": ["a"]}, "attribute_names must be 0 different"),
        ({"num_groups": 2, "group_shares": [1.0]}, "group_shares must be 2"),
        ({"num_groups": 2, "group_shares": [1.0, -1.0]}, "group_shares"),
        ({"num_groups": 2, "group_shares": [0, 0]}, "group_shares"),
        ({"num_groups": 2, "group_shares": [np.nan, 1]}, "group_shares"),
        ({"num_groups": 5000, "num_classes": 1000}, "evaluate fewer groups at once"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(InvalidInputError, match=match):
        GroupMetricAccumulator(**options)


@pytest.mark.parametrize("n_boot", [-1, 1.5, True])
def test_bad_replicates(n_boot):
    with pytest.raises(InvalidInputError, match="n_boot must be an integer"):
        group_metrics(OK, OK, OK, n_boot=n_boot)


def test_unknown_keywords_are_not_dropped():
    with pytest.raises(TypeError, match="n_boots"):
        group_metrics(OK, OK, OK, n_boots=3)


def test_attributes_and_their_number_belong_together():
    with pytest.raises(InvalidInputError, match="0 attributes are configured, and attributes were given"):
        GroupMetricAccumulator(3).update(OK, OK, OK, attributes=OK)
    with pytest.raises(InvalidInputError, match="2 attributes are configured, and attributes were not given"):
        GroupMetricAccumulator(3, num_attributes=2).update(OK, OK, OK)
    with pytest.raises(InvalidInputError, match="attributes must lie in"):
        GroupMetricAccumulator(3, num_attributes=2).update(OK, OK, OK, attributes=[0, 2])


def test_errors_are_value_errors_of_this_package():
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(InvalidInputError, AIFSError)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_every_integer_type_is_read(dtype):
    ids = torch.tensor(OK).to(dtype)
    assert group_metrics(ids, ids, ids)["average_accuracy"] == 1.0


def test_small_integer_types_do_not_overflow():
    ids = np.arange(200, dtype=np.uint8)  # 199 * 200 + 199 does not fit the type of the ids
    result = group_metrics(ids, ids, ids)
    assert result["worst_group_accuracy"] == 1.0
    assert result["groups"]["199"]["n"] == 1
