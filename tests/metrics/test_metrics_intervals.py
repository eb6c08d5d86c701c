"""Intervals against SciPy, against resampled rows, and by their coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics import clopper_pearson, group_metrics, mean_interval
from aifs_peft.metrics.intervals import bootstrap_interval, minimum_interval
from aifs_peft.metrics.result import normal_interval


@given(
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_clopper_pearson_equals_scipy(counts, confidence):
    successes, n = counts
    low, high = clopper_pearson(successes, n, confidence)
    if n == 0:
        assert math.isnan(low)
        assert math.isnan(high)
        return
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    assert float(low) == pytest.approx(expected.low, abs=1e-9)
    assert float(high) == pytest.approx(expected.high, abs=1e-9)


def test_clopper_pearson_broadcasts_and_knows_its_ends():
    low, high = clopper_pearson(np.array([0, 5, 10]), 10)
    assert low[0] == 0.0
    assert high[2] == 1.0
    assert low.shape == (3,)
    assert high[0] == pytest.approx(1 - 0.025**0.1)


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (1, math.inf), (math.nan, 2)])
def test_clopper_pearson_refuses_impossible_counts(successes, n):
    with pytest.raises(InvalidInputError, match="between 0 and n"):
        clopper_pearson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.1, math.nan])
def test_confidence_must_be_a_probability(confidence):
    with pytest.raises(InvalidInputError, match=r"a finite number in \(0, 1\); got"):
        clopper_pearson(1, 2, confidence)
    with pytest.raises(InvalidInputError, match=r"a finite number in \(0, 1\); got"):
        group_metrics([0], [0], [0], confidence=confidence)


def test_mean_interval_equals_scipy():
    values = [0.71, 0.74, 0.69, 0.77]
    mean, low, high = mean_interval(values, 0.9)
    expected = stats.t.interval(0.9, 3, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(expected)


def test_mean_interval_of_one_seed_has_no_width_to_report():
    mean, low, high = mean_interval([0.5])
    assert mean == 0.5
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [[0.1, 0.2]], 0.3])
def test_mean_interval_refuses_what_is_no_list_of_numbers(values):
    with pytest.raises(InvalidInputError, match="non-empty list of finite numbers"):
        mean_interval(values)


def test_minimum_interval_covers_the_true_minimum():
    # the naive interval of the group that looks worst misses far more often than one time in ten
    rng = np.random.default_rng(0)
    truth, n, repeats = np.full(20, 0.8), np.full(20, 50), 400
    hits = naive = 0
    for _ in range(repeats):
        right = rng.binomial(n, truth)
        low, high = minimum_interval(right, n, 0.9)
        hits += low <= 0.8 <= high
        worst = right.argmin()
        bounds = clopper_pearson(right[worst], 50, 0.9)
        naive += bounds[0] <= 0.8 <= bounds[1]
    assert hits / repeats >= 0.9
    assert naive / repeats < 0.6


def test_minimum_interval_of_one_group_is_clopper_pearson():
    assert minimum_interval(np.array([7]), np.array([9]), 0.9) == [float(b) for b in clopper_pearson(7, 9, 0.9)]
    assert all(math.isnan(bound) for bound in minimum_interval(np.array([0]), np.array([0]), 0.9))


def test_bootstrap_interval_forms():
    replicates = np.linspace(0.2, 0.6, 401)
    assert bootstrap_interval(0.3, replicates, 0.9) == pytest.approx([0.22, 0.58])
    assert bootstrap_interval(0.3, replicates, 0.9, reflect=True) == pytest.approx([0.02, 0.38])
    assert bootstrap_interval(0.1, replicates, 0.9, reflect=True)[0] == 0.0  # clipped to the range
    assert bootstrap_interval(0.9, replicates, 0.9)[1] == 0.9  # always holds the estimate
    holes = np.append(replicates, [np.nan] * 50)
    assert bootstrap_interval(0.3, holes, 0.9) == pytest.approx([0.22, 0.58])
    for arguments in ((0.3, None), (math.nan, replicates), (0.3, np.array([np.nan]))):
        assert all(math.isnan(bound) for bound in bootstrap_interval(*arguments, 0.9))


def test_normal_interval_is_clipped_and_undefined_without_an_error():
    assert normal_interval(0.001, 0.01, 0.95)[0] == 0.0
    assert all(math.isnan(bound) for bound in normal_interval(0.1, math.nan, 0.95))


def sample(n, seed=0, groups=2):
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, 2, n)
    score = np.clip(0.3 * y_true + 0.7 * rng.random(n), 0, 1)
    return y_true, (score > 0.5).astype(int), rng.integers(0, groups, n), score


@pytest.mark.parametrize("n", [150, 6000])
def test_multinomial_bootstrap_equals_resampled_rows(n):
    """Same spread as resampling the rows of each group, for every kind of statistic."""
    y_true, y_pred, group, score = sample(n)
    result = group_metrics(y_true, y_pred, group, score, n_boot=2000, random_state=0)
    rng = np.random.default_rng(1)
    rows = [np.flatnonzero(group == g) for g in range(2)]
    area, error, odds = [], [], []
    for _ in range(300):
        drawn = np.concatenate([rng.choice(index, len(index)) for index in rows])
        one = group_metrics(y_true[drawn], y_pred[drawn], group[drawn], score[drawn])
        area.append(one["groups"]["0"]["roc_auc"])
        error.append(one["groups"]["0"]["expected_calibration_error"])
        odds.append(one["equalized_odds_difference"])
    entry = result["groups"]["0"]
    for values, interval in (
        (area, entry["roc_auc_interval"]),
        (error, entry["expected_calibration_error_interval"]),
        (odds, result["equalized_odds_difference_interval"]),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        # 300 resamples leave the width uncertain by about a tenth; clipping at zero can cut the reflected one
        if interval[0] > 0:
            assert interval[1] - interval[0] == pytest.approx(high - low, rel=0.25)


def test_bootstrap_area_of_a_small_group_uses_the_exact_cells():
    y_true, y_pred, group, score = sample(200, groups=1)
    result = group_metrics(y_true, y_pred, group, score, n_boot=4000, random_state=0)
    rng = np.random.default_rng(0)
    areas = []
    while len(areas) < 1500:
        drawn = rng.integers(0, 200, 200)
        areas.append(roc_auc_score(y_true[drawn], score[drawn]))
    expected = np.quantile(areas, [0.025, 0.975])
    np.testing.assert_allclose(result["groups"]["0"]["roc_auc_interval"], expected, atol=0.012)


def test_intervals_cover_the_truth():
    """Equal opportunity between two groups and worst area, at 90 %, over repeated samples."""
    rng = np.random.default_rng(5)
    repeats, hits = 150, np.zeros(3)
    true_gap, shift = 0.15, 1.0
    true_area = stats.norm.cdf(shift / np.sqrt(2))
    for repeat in range(repeats):
        n = 600
        y_true, group = rng.integers(0, 2, n), rng.integers(0, 2, n)
        y_pred = (rng.random(n) < np.where(y_true == 1, 0.85 - true_gap * group, 0.2)).astype(int)
        score = rng.normal(size=n) + shift * y_true
        result = group_metrics(y_true, y_pred, group, score, n_boot=300, confidence=0.9, random_state=repeat)
        intervals = (
            (true_gap, result["equal_opportunity_difference_interval"]),
            (true_area, result["worst_group_roc_auc_interval"]),
            (true_area, result["groups"]["0"]["roc_auc_interval"]),
        )
        hits += [low <= truth <= high for truth, (low, high) in intervals]
    # a binomial of 150 at 0.9 stays above 0.83 in 99 of 100 runs; the seed is fixed
    assert (hits / repeats > 0.83).all()


def test_macro_area_interval_is_not_too_narrow():
    """Several classes: at least as wide as the spread of resampled rows, by the conservative coupling."""
    rng = np.random.default_rng(2)
    n = 400
    y_true = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), y_true] += 1.0
    table = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    result = group_metrics(y_true, table.argmax(1), np.zeros(n, int), table, n_boot=1000, random_state=0)
    areas = []
    for _ in range(300):
        drawn = rng.integers(0, n, n)
        areas.append(roc_auc_score(y_true[drawn], table[drawn], multi_class="ovr"))
    low, high = np.quantile(areas, [0.025, 0.975])
    width = np.diff(result["groups"]["0"]["roc_auc_interval"])[0]
    assert 0.95 * (high - low) < width < 2.5 * (high - low)


def test_every_headline_number_has_its_interval():
    y_true, y_pred, group, score = sample(500)
    result = group_metrics(y_true, y_pred, group, score, n_boot=50, random_state=0, group_shares=[1, 1])
    for key in [k.removesuffix("_interval") for k in result if k.endswith("_interval")]:
        low, high = result[f"{key}_interval"]
        assert low <= result[key] <= high
        assert low < high
    assert sum(key.endswith("_interval") for key in result) == 8
    for entry in result["groups"].values():
        for key in [k.removesuffix("_interval") for k in entry if k.endswith("_interval")]:
            assert entry[f"{key}_interval"][0] <= entry[key] <= entry[f"{key}_interval"][1]


def test_seed_fixes_the_bootstrap_and_no_global_generator_moves():
    data = sample(300)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = group_metrics(*data, n_boot=20, random_state=3)
    np.testing.assert_equal(first, group_metrics(*data, n_boot=20, random_state=np.random.default_rng(3)))
    assert first != group_metrics(*data, n_boot=20, random_state=4)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_replicates_are_drawn_in_bounded_chunks(monkeypatch):
    data = sample(300)
    monkeypatch.setattr("aifs_peft.metrics.bootstrap._CELL_BUDGET", 24)  # three replicates at a time
    result = group_metrics(*data, n_boot=200, random_state=0)
    low, high = result["equal_opportunity_difference_interval"]
    assert 0 <= low <= result["equal_opportunity_difference"] <= high
