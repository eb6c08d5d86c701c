"""Who is hurt: plain training on folds, and given predictions of models that lean on the shortcut or do not."""

import json

import numpy as np
import pytest
from planted_audit import planted
from scipy import stats
from sklearn.linear_model import LogisticRegression

from aifs_peft import audit
from aifs_peft.audit.harm import GIVEN, Rate, measure_harm, percent, plain_predictions


@pytest.fixture(scope="module")
def marked():
    return planted(n=1500, contrast=7.0, core=3.0)


def judged(predicted, y, inferred, classes=2, seed=0):
    carries, names = np.eye(classes, dtype=bool), [str(i) for i in range(classes)]
    return measure_harm(
        predicted, y, inferred, carries, (names, names), source=GIVEN, rng=np.random.default_rng(seed)
    )  # fmt: skip


def test_plain_training_is_harmed_and_says_so(marked):
    Z, y, _ = marked
    harm = audit(Z, y).harm
    assert harm.leans
    assert harm.conflicting.accuracy < 0.7 < 0.95 < harm.aligned.accuracy
    assert harm.conflicting.low < harm.conflicting.accuracy < harm.conflicting.high
    assert harm.aligned.n + harm.conflicting.n == 1500
    assert harm.cells["n"].sum() == 1500
    assert harm.to_inferred > 0.6 > 0.2 > harm.to_inferred_chance
    assert harm.to_inferred_p_value < 0.001
    assert f"of {harm.conflicting.n} conflicting examples" in harm.sentence
    assert "held-out folds" in harm.sentence
    json.dumps(harm.to_dict(), allow_nan=False)


def test_a_biased_and_an_unbiased_model_are_told_apart(marked):
    Z, y, _ = marked
    biased = LogisticRegression().fit(*planted(n=1500, contrast=7.0, core=3.0, seed=1)[:2])
    fair = LogisticRegression().fit(*planted(n=4000, contrast=7.0, core=3.0, seed=2, aligned=0.5)[:2])
    leaning, straight = (audit(Z, y, predictions=model.predict(Z), harm=False).model_harm for model in (biased, fair))
    assert leaning.leans
    assert leaning.source == "the given predictions"
    assert "more often than chance allows" in leaning.sentence
    assert not straight.leans
    assert straight.conflicting.accuracy > leaning.conflicting.accuracy + 0.2
    assert "no more mistakes on conflicting ones than chance allows" in straight.sentence


def test_predictions_may_be_labels_scores_or_probabilities(marked):
    Z, y, _ = marked
    names = np.array(["cat", "dog"])
    model = LogisticRegression().fit(Z, names[y])
    scores = model.predict_proba(Z)
    given = (model.predict(Z), scores, scores[:, 1], np.log(scores), [str(p) for p in model.predict(Z)])
    rates = {audit(Z, names[y], predictions=p, harm=False).model_harm.conflicting for p in given}
    assert len(rates) == 1
    unknown = np.where(np.arange(len(y)) % 2 == 0, "cow", names[y])
    half = audit(Z, names[y], predictions=unknown, harm=False).model_harm
    assert half.aligned.accuracy == pytest.approx(0.5, abs=0.02)


def test_predictions_without_a_shortcut_are_told_not_judged():
    Z, y, _ = planted(n=400, contrast=0.0)
    result = audit(Z, y, predictions=y)
    assert result.model_harm is None
    assert any("no shortcut was found to judge them by" in text for text in result.looked_at["warnings"])


def test_the_gap_is_judged_within_classes():
    # One class is hard and has all the conflicting examples: within it they are no worse than others.
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 1000)
    inferred = y.copy()
    inferred[:300] = 1
    wrong = (y == 0) & (rng.random(2000) < 0.4)
    harm = judged(np.where(wrong, 1 - y, y), y, inferred)
    assert harm.conflicting.accuracy < harm.aligned.accuracy - 0.15
    assert not harm.leans
    expected = stats.fisher_exact(
        [[np.sum(wrong[:300]), np.sum(~wrong[:300])], [np.sum(wrong[300:1000]), np.sum(~wrong[300:1000])]],
        alternative="greater",
    ).pvalue
    assert harm.p_value == pytest.approx(expected, abs=0.02)


def test_mistakes_are_compared_with_chance_by_many_classes():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 4000)
    inferred = np.where(rng.random(4000) < 0.2, rng.integers(0, 4, 4000), y)
    wrong = rng.random(4000) < 0.3
    blind = np.where(wrong, (y + rng.integers(1, 4, 4000)) % 4, y)
    drawn = np.where(wrong & (inferred != y), inferred, blind)
    by_chance, pointed = judged(blind, y, inferred, 4), judged(drawn, y, inferred, 4)
    assert by_chance.to_inferred == pytest.approx(by_chance.to_inferred_chance, abs=0.02)
    assert by_chance.to_inferred_p_value > 0.01
    assert pointed.to_inferred > pointed.to_inferred_chance + 0.05
    assert pointed.to_inferred_p_value < 0.001


def test_nothing_wrong_and_nothing_conflicting_are_no_division():
    y = np.array([0, 1] * 20)
    perfect = judged(y, y, np.where(np.arange(40) < 4, 1 - y, y))
    assert (perfect.to_inferred, perfect.to_inferred_chance, perfect.to_inferred_p_value) == (None, None, None)
    assert not perfect.leans
    aligned = judged(1 - y, y, y)
    assert aligned.p_value is None
    assert aligned.conflicting == Rate(0, 0, None, None, None)
    assert "no conflicting example" in aligned.sentence
    json.dumps([perfect.to_dict(), aligned.to_dict()], allow_nan=False)


def test_held_out_means_held_out():
    # Labels are noise: training accuracy in 60 dimensions would be far above one half.
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(300, 60)), rng.integers(0, 2, 300)
    rows, predicted = plain_predictions(Z, y, y, folds=5, seed=0)
    assert np.array_equal(rows, np.arange(300))
    assert abs(np.mean(predicted == y) - 0.5) < 0.12


def test_small_cells_and_classes_do_not_break_the_folds():
    Z, y, mark = planted(n=400)
    y[:] = 0
    y[:7] = 1
    mark = y.copy()
    mark[[0, 100]] = 1 - y[[0, 100]]
    rows, predicted = plain_predictions(Z, y, mark, folds=20, seed=0)
    assert len(rows) == len(predicted) == 400


def test_percent_says_all_only_of_all():
    assert [percent(x) for x in (0.0, 1e-5, 0.001, 0.5, 0.998, 0.99999, 1.0)] == [
        "0", "under 0.1", "0.1", "50", "99.8", "over 99.9", "100",
    ]  # fmt: skip
