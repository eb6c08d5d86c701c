"""Streaming, merging and order: the result is the same to the last bit."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics import GroupMetricAccumulator, group_metrics
from aifs_peft.metrics import statistics as statistics_module

GROUPS = 4


@st.composite
def samples(draw, classes=2, min_size=0):
    """Arrays of one evaluation, with ties, empty groups and one-class groups."""
    n = draw(st.integers(min_size, 40))
    ids = st.integers(0, classes - 1)
    y_true, y_pred = (np.array(draw(st.lists(ids, min_size=n, max_size=n)), int) for _ in range(2))
    allowed = draw(st.sets(st.integers(0, GROUPS - 1), min_size=1))
    group = np.array(draw(st.lists(st.sampled_from(sorted(allowed)), min_size=n, max_size=n)), int)
    levels = np.array(draw(st.lists(st.integers(0, 7), min_size=n * classes, max_size=n * classes)), float)
    table = levels.reshape(n, classes) + 0.5
    table /= table.sum(1, keepdims=True)
    return y_true, y_pred, group, table[:, 1] if classes == 2 else table


def accumulator(classes=2, **options):
    return GroupMetricAccumulator(GROUPS, classes, group_shares=[1, 2, 3, 4], **options)


def result(total):
    return total.compute(n_boot=8, random_state=1)


def streamed(data, cuts, classes=2, **options):
    total = accumulator(classes, **options)
    for part in np.split(np.arange(len(data[0])), sorted(cuts)):
        total.update(*(array[part] for array in data))
    return total


any_data = st.sampled_from([2, 3]).flatmap(lambda classes: st.tuples(st.just(classes), samples(classes=classes)))


@settings(max_examples=60, deadline=None)
@given(any_data, st.lists(st.integers(0, 40), max_size=6), st.sampled_from([None, 16]))
def test_any_batching_equals_one_shot(case, cuts, score_bins):
    classes, data = case
    one_shot = group_metrics(
        *data, n_boot=8, random_state=1, num_groups=GROUPS, num_classes=classes, group_shares=[1, 2, 3, 4],
        score_bins=score_bins,
    )  # fmt: skip
    cuts = [min(cut, len(data[0])) for cut in cuts]
    if len(data[0]) == 0:  # nothing was given, so whether scores exist is unknown
        assert one_shot["n"] == 0
    np.testing.assert_equal(result(streamed(data, cuts, classes, score_bins=score_bins)), one_shot)


@settings(max_examples=40, deadline=None)
@given(samples(min_size=1), st.data(), st.integers(0, 40))
def test_overlapping_groups_and_attributes_stream(data, draw, cut):
    y_true, y_pred, attribute, score = data
    n = len(y_true)
    bits = draw.draw(st.lists(st.booleans(), min_size=n * GROUPS, max_size=n * GROUPS))
    member = np.array(bits).reshape(n, GROUPS)
    one_shot = group_metrics(
        y_true, y_pred, member, score, attributes=attribute, num_attributes=GROUPS, n_boot=8, random_state=1
    )
    total = GroupMetricAccumulator(GROUPS, num_attributes=GROUPS)
    for part in np.split(np.arange(n), [min(cut, n)]):
        total.update(y_true[part], y_pred[part], member[part], score[part], attributes=attribute[part])
    np.testing.assert_equal(result(total), one_shot)
    for g in range(GROUPS):
        assert one_shot["groups"][str(g)]["n"] == member[:, g].sum()
        assert one_shot["attributes"][str(g)]["n"] == (attribute == g).sum()


@settings(max_examples=40, deadline=None)
@given(any_data, st.randoms(use_true_random=False))
def test_order_does_not_matter(case, random):
    classes, data = case
    order = list(range(len(data[0])))
    random.shuffle(order)
    shuffled = tuple(array[np.array(order, int)] for array in data)
    np.testing.assert_equal(result(streamed(shuffled, [], classes)), result(streamed(data, [], classes)))


@settings(max_examples=40, deadline=None)
@given(samples(), samples(), samples())
def test_merge_is_associative_and_commutative(a, b, c):
    def build(*parts):
        return [streamed(part, []) for part in parts]

    x, y, z = build(a, b, c)
    left = x.merge(y).merge(z)
    x, y, z = build(a, b, c)
    right = x.merge(y.merge(z))
    x, y, z = build(a, b, c)
    reversed_order = z.merge(y).merge(x)
    whole = streamed(tuple(np.concatenate(parts) for parts in zip(a, b, c, strict=True)), [])
    for other in (right, reversed_order, whole):
        np.testing.assert_equal(result(other), result(left))


@settings(max_examples=40, deadline=None)
@given(samples(min_size=1), st.permutations(range(GROUPS)))
def test_renaming_groups_renames_the_result(data, names):
    y_true, y_pred, group, score = data
    plain = group_metrics(y_true, y_pred, group, score, num_groups=GROUPS)
    renamed = group_metrics(y_true, y_pred, np.array(names)[group], score, num_groups=GROUPS)
    for g in range(GROUPS):
        np.testing.assert_equal(renamed["groups"][str(names[g])], plain["groups"][str(g)])
    for key in ("worst_group_accuracy", "worst_group_roc_auc", "equalized_odds_difference"):
        np.testing.assert_equal(renamed[key], plain[key])


@settings(max_examples=40, deadline=None)
@given(samples(min_size=1))
def test_an_empty_slot_changes_nothing_else(data):
    plain = group_metrics(*data, num_groups=GROUPS)
    wider = group_metrics(*data, num_groups=GROUPS + 3)
    for g in range(GROUPS):
        np.testing.assert_equal(wider["groups"][str(g)], plain["groups"][str(g)])
    for key in ("average_accuracy", "worst_group_accuracy", "worst_group_roc_auc", "equalized_odds_difference"):
        np.testing.assert_equal(wider[key], plain[key])


@settings(max_examples=40, deadline=None)
@given(samples(min_size=1), st.integers(1, 7))
def test_padded_shards_equal_one_process(data, world):
    n = len(data[0])
    padded = -(-n // world) * world
    index = np.arange(padded) % n  # a distributed sampler repeats the first rows to fill the last round
    valid = np.arange(padded) < n
    shards = []
    for rank in range(world):
        mine = np.arange(rank, padded, world)
        shard = accumulator()
        shard.update(*(array[index[mine]] for array in data), valid=valid[mine])
        shards.append(shard)
    total = shards[0]
    for shard in shards[1:]:
        total.merge(shard)
    np.testing.assert_equal(result(total), result(streamed(data, [])))


def big(n=5000, seed=0):
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, 2, n)
    return y_true, rng.integers(0, 2, n), rng.integers(0, GROUPS, n), rng.random(n)


def _shard(seed):
    total = accumulator()
    total.update(*big(seed=seed))
    return total


@pytest.mark.slow
def test_processes_equal_one_process():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(_shard, [1, 2])
    data = tuple(np.concatenate(parts) for parts in zip(big(seed=1), big(seed=2), strict=True))
    np.testing.assert_equal(result(first.merge(second)), result(streamed(data, [])))


def test_chunks_do_not_matter(monkeypatch):
    whole = result(streamed(big(), []))
    monkeypatch.setattr("aifs_peft.metrics.accumulator.CHUNK", 97)
    monkeypatch.setattr("aifs_peft.metrics.ranking.BLOCK", 1009)
    np.testing.assert_equal(result(streamed(big(), [])), whole)


def test_chunk_sums_stay_exact_integers():
    # the largest entry is 4 (a squared Brier score of 2) in the fixed-point unit
    assert statistics_module.CHUNK * 4 * statistics_module.FIXED <= 2**53


def test_many_cells_and_small_batches_count_alike():
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.integers(0, 30, (2, 500))
    group = rng.integers(0, GROUPS, 500)
    total = GroupMetricAccumulator(GROUPS, 30)
    for i in range(500):
        total.update(y_true[i : i + 1], y_pred[i : i + 1], group[i : i + 1])
    np.testing.assert_equal(total.compute(), group_metrics(y_true, y_pred, group, num_classes=30))


def test_mixed_ids_and_matrices_stream_together():
    data = big()
    one_hot = np.arange(GROUPS) == data[2][:, None]
    total = accumulator()
    total.update(*(array[:100] for array in data))
    total.update(data[0][100:], data[1][100:], one_hot[100:], data[3][100:])
    np.testing.assert_equal(result(total), result(streamed(data, [])))


def test_compute_is_repeatable_and_buffers_may_be_reused():
    buffer = np.array([0.2, 0.8])
    total = accumulator()
    total.update([0, 1], [0, 1], [0, 0], buffer)
    first = result(total)
    buffer[:] = 0.5
    np.testing.assert_equal(result(total), first)
    np.testing.assert_equal(result(pickle.loads(pickle.dumps(total))), first)
    total.update([1], [0], [1], [0.1])
    assert result(total)["n"] == 3


def test_merge_leaves_the_other_as_it_was():
    left, right = streamed(big(seed=1), []), streamed(big(seed=2), [])
    before = copy.deepcopy(right)
    left.merge(right)
    left.update(*big(seed=3))
    np.testing.assert_equal(result(right), result(before))


def test_a_refused_update_leaves_no_trace():
    total = accumulator()
    total.update([0, 1], [0, 1], [0, 0], [0.2, 0.8])
    before = result(total)
    with pytest.raises(InvalidInputError, match=r"groups must lie in 0\.\.3; got values from 0 to 4"):
        total.update([0, 1], [0, 1], [0, 4], [0.2, 0.8])
    with pytest.raises(InvalidInputError, match="every update, or in none"):
        total.update([0], [0], [0])
    np.testing.assert_equal(result(total), before)


def test_accumulators_of_other_options_do_not_merge():
    with pytest.raises(InvalidInputError, match="equal options"):
        accumulator().merge(GroupMetricAccumulator(GROUPS))
    with pytest.raises(InvalidInputError, match="equal options"):
        accumulator().merge({"n": 3})
    scored, plain = streamed(big(), []), accumulator()
    plain.update([0], [0], [0])
    with pytest.raises(InvalidInputError, match="every update, or in none"):
        scored.merge(plain)


@pytest.mark.parametrize("score_bins", [None, 16])
def test_two_parts_merged_are_the_whole(score_bins):
    left, right = big(seed=1), big(seed=2)
    whole = streamed([np.concatenate(pair) for pair in zip(left, right, strict=True)], [], score_bins=score_bins)
    merged = streamed(left, [], score_bins=score_bins).merge(streamed(right, [], score_bins=score_bins))
    np.testing.assert_equal(result(merged), result(whole))


def test_attribute_ids_are_those_that_occur():
    y, group, attribute = [0, 1, 0, 1], [0, 0, 1, 1], [7, 100_000, 7, 100_000]
    found = group_metrics(y, [0, 1, 1, 1], group, attributes=attribute)
    assert sorted(found["attributes"]) == ["100000", "7"]
    assert found["attributes"]["7"]["accuracy"] == 0.5
