"""Latents that are read in blocks give what an array in memory gives, and are never held whole."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from aifs_peft.discovery import DiscoveryConfig, LatentBatches, LatentSource, ShardedLatents, discover, discover_stream
from aifs_peft.discovery.config import HintConfig, InputConfig
from aifs_peft.discovery.streaming.arrays import ArrayLatents
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.errors import InvalidInputError

WHOLE, SAMPLED = DiscoveryConfig(), DiscoveryConfig(inputs=InputConfig(held_rows=9000))
N = 20_000


def planted(n=N, d=24, classes=2, share=0.95, strength=5.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    a = np.where(rng.random(n) < share, y, rng.integers(0, classes, n) if classes > 2 else 1 - y)
    Z = rng.normal(size=(n, d)).astype(np.float32)
    Z[:, :classes] += strength * np.eye(classes)[a]
    Z[:, classes : 2 * classes] += 2.5 * np.eye(classes)[y]
    return Z, y, a


class Slices:
    """An array that only gives slices of rows, as a data set of HDF5 does, and remembers the longest."""

    def __init__(self, Z):
        self._rows, self.shape, self.dtype, self.longest = Z, Z.shape, Z.dtype, 0

    def __getitem__(self, part):
        assert isinstance(part, slice)
        block = self._rows[part]
        self.longest = max(self.longest, len(block))
        return block


def batches(Z, y, size=777):
    return lambda: ((Z[i : i + size], y[i : i + size]) for i in range(0, len(Z), size))


def vectors(Z):
    return pa.FixedSizeListArray.from_arrays(pa.array(Z.ravel()), Z.shape[1])


def memory_map(Z, folder):
    np.save(folder / "Z.npy", Z)
    return np.load(folder / "Z.npy", mmap_mode="r")


SOURCES = {
    "memory map": lambda Z, y, folder: memory_map(Z, folder),
    "tensor": lambda Z, y, folder: torch.as_tensor(Z),
    "slices": lambda Z, y, folder: Slices(Z),
    "column": lambda Z, y, folder: Dataset(pa.table({"z": vectors(Z), "y": y}))["z"],
    "chunked column": lambda Z, y, folder: pa.chunked_array([vectors(Z[:5000]), vectors(Z[5000:])]),
    "batches": lambda Z, y, folder: LatentBatches(batches(Z, y)),
    "loader": lambda Z, y, folder: LatentBatches(
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.as_tensor(Z), torch.as_tensor(y)), 3000)
    ),
    "shard": lambda Z, y, folder: ShardedLatents(Z),
}


@pytest.fixture(scope="module")
def in_memory():
    Z, y, a = planted()
    return Z, y, a, {name: discover(Z, y, random_state=0, config=config) for name, config in CONFIGS.items()}


CONFIGS = {"all rows searched": WHOLE, "a sample searched": SAMPLED}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_source_gives_what_the_array_gives(source, name, in_memory, tmp_path):
    Z, y, a, results = in_memory
    found = discover(SOURCES[source](Z, y, tmp_path), y, random_state=0, config=CONFIGS[name])
    wanted = results[name]
    assert found.found
    assert found.message_ == wanted.message_
    assert np.mean(found.groups_ == a) > 0.99
    np.testing.assert_allclose(found.responsibilities_, wanted.responsibilities_, atol=1e-6)
    for field in ("basis_", "displacements_", "class_displacements_"):
        np.testing.assert_allclose(getattr(found, field), getattr(wanted, field), atol=1e-6)


def test_half_precision_gives_what_the_array_gives():
    Z, y, _ = planted()
    Z = Z.astype(np.float16)
    wanted = discover(Z, y, random_state=0, config=SAMPLED)
    found = discover_stream(batches(Z, y), random_state=0, config=SAMPLED)
    assert np.array_equal(found.responsibilities_, wanted.responsibilities_)


def test_a_sample_finds_what_all_rows_show(in_memory):
    _, y, a, results = in_memory
    whole, sampled = results.values()
    assert "sample of 9000 of 20000" in sampled.message_
    assert "sample" not in whole.message_
    assert abs(np.mean(sampled.groups_ == a) - np.mean(whole.groups_ == a)) < 0.001
    # Offsets are those of all rows: as near to the truth as without a sample.
    apart = [np.diff(found.displacements_[:, :2], axis=0)[0] for found in (whole, sampled)]
    np.testing.assert_allclose(apart[0], apart[1], atol=0.05)
    np.testing.assert_allclose(apart[1], [-5.0, 5.0], atol=0.3)
    # The search's own numbers are of the rows it looked at, the counts of all.
    assert f"{np.mean(sampled.groups_ != y):.1%} of {N} examples" in sampled.message_
    assert len(sampled.groups_) == len(sampled.to_frame()) == N


def test_never_more_than_a_block_is_read():
    Z, y, _ = planted(30_000)
    source = Slices(Z)
    assert discover(source, y, random_state=0, config=SAMPLED).found
    assert source.longest == 8192


def test_offsets_are_sums_over_all_rows():
    # Two copies, one of which is searched: with sums over all rows the offsets stay what they are of one.
    Z, y, _ = planted(N // 2)
    once = discover(Z, y, random_state=0, config=SAMPLED)
    rare = np.flatnonzero(once.conflicting_)
    more = np.concatenate([Z, np.repeat(Z[rare], 3, axis=0)])
    found = discover(more, np.concatenate([y, np.repeat(y[rare], 3)]), random_state=0, config=SAMPLED)
    # Four times as many conflicting examples, of which a sample of 9,000 holds a part: their share is that of all.
    assert f"{4 * len(rare) / len(more):.0%}" == f"{np.mean(found.conflicting_):.0%}"
    np.testing.assert_allclose(found.displacements_, once.displacements_, atol=0.15)


def test_two_attributes_of_a_sample():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, N)
    a, b = (np.where(rng.random(N) < share, y, 1 - y) for share in (0.95, 0.93))
    Z = rng.normal(size=(N, 24)).astype(np.float32)
    Z[:, :3] += np.stack([5 * a, 2 * y, 5 * b], axis=1)
    found = discover(Z, y, random_state=0, config=SAMPLED)
    assert len(found.parts_) == 2
    assert found.responsibilities_.shape == (N, 4)
    values = [max(np.mean(part.groups_ == truth) for part in found.parts_) for truth in (a, b)]
    assert min(values) > 0.99
    assert found.basis_.shape == (24, 2)
    streamed = discover_stream(batches(Z, y), random_state=0, config=SAMPLED)
    assert np.array_equal(found.responsibilities_, streamed.responsibilities_)


def test_many_classes_of_a_sample():
    Z, y, a = planted(classes=4, share=0.9, strength=4.0)
    found = discover(Z, y, random_state=0, config=SAMPLED)
    assert found.found
    assert np.mean(found.groups_ == a) > 0.98


def test_a_rough_partition_of_a_sample():
    # Class and attribute interact and tails are heavy: no mixture confirms the partition.
    rng = np.random.default_rng(0)
    Z, y, a = planted(classes=5, d=32, share=0.9, strength=0.0)
    Z *= np.where((rng.random(N) < 0.3)[:, None], 1.6, 1.0).astype(np.float32)
    Z[:, :5] += 3.4 * np.eye(5)[a] * rng.gamma(6, 1 / 6, (N, 1))
    Z[:, 10:15] += 1.5 * np.eye(5)[(a + y) % 5]
    whole, sampled = (discover(Z, y, random_state=0, config=config) for config in (WHOLE, SAMPLED))
    assert whole.rough_
    assert sampled.rough_
    for found in (whole, sampled):
        hits = found.conflicting_ & (a != y)
        assert hits.sum() > 0.9 * found.conflicting_.sum()
    counts = [np.count_nonzero(found.conflicting_) for found in (whole, sampled)]
    assert 0.8 < counts[1] / counts[0] < 1.25


@pytest.mark.parametrize("kind", ["groups", "metadata", "attributes", "few"])
def test_hints_of_a_sample(kind):
    Z, y, a = planted(8000, strength=0.0)
    Z[:, 0] += 2.2 * a
    short = HintConfig(sweeps=80, chains=2, held_out_sweeps=40, held_out_chains=2)
    config = DiscoveryConfig(inputs=InputConfig(held_rows=4000), hints=short)
    few = np.full(8000, -1)
    for cell in range(4):
        rows = np.flatnonzero(2 * y + a == cell)[:40]
        few[rows] = a[rows]
    wrong = np.where(np.random.default_rng(1).random(8000) < 0.03, 1 - a, a)
    hints = {
        "groups": {"groups": a},
        "metadata": {"metadata": {"scanner": wrong}},
        "attributes": {"attributes": {"scanner": np.eye(24)[0]}},
        "few": {"groups": few},
    }[kind]
    assert not discover(Z, y, random_state=0, config=config).found
    found = discover(Z, y, random_state=0, config=config, **hints)
    assert found.source_.startswith("hint:")
    # Values that are known of all rows count for rows that were not searched, too.
    right = {"groups": 1.0, "metadata": 0.985, "attributes": 0.95, "few": 0.95}[kind]
    assert np.mean(found.groups_ == a) >= right
    if kind == "few":
        assert np.array_equal(found.groups_[few >= 0], few[few >= 0])


def test_nothing_found_in_a_sample_is_said_of_all():
    Z, y, _ = planted(strength=0.0)
    found = discover(Z, y, random_state=0, config=SAMPLED)
    assert not found.found
    assert np.array_equal(found.groups_, y)
    assert found.responsibilities_.shape == (N, 2)
    assert found.message_.endswith("The search looked at a sample of 9000 of 20000 examples.")


def test_a_rare_class_is_searched_whole():
    Z, y, _ = planted(classes=3, share=0.9)
    rare = np.flatnonzero(y == 2)[:60]
    kept = np.sort(np.concatenate([np.flatnonzero(y != 2), rare]))
    found = discover(Z[kept], y[kept], random_state=0, config=SAMPLED)
    assert "too few" not in found.message_


def test_own_sources_need_shape_dtype_and_blocks():
    Z, y, _ = planted(2000)

    class Own(LatentSource):
        shape, dtype = Z.shape, Z.dtype

        def blocks(self):
            for start in range(0, 2000, 700):
                yield slice(start, min(start + 700, 2000)), Z[start : start + 700]

    found = discover(Own(), y, random_state=0)
    np.testing.assert_allclose(found.responsibilities_, discover(Z, y, random_state=0).responsibilities_, atol=1e-6)


def test_rows_are_taken_in_order_across_blocks():
    Z = np.arange(20_000, dtype=np.float32)[:, None] * np.ones(2, dtype=np.float32)
    rows = np.array([0, 8191, 8192, 12_345, 19_999])
    for source in (ArrayLatents(Z), as_source(Slices(Z)), LatentBatches(batches(Z, np.zeros(20_000)))):
        assert source.take(rows)[:, 0].tolist() == rows.tolist()
        some = source.selected(rows)
        assert some.take(np.array([1, 4]))[:, 0].tolist() == [8191, 19_999]


def test_selected_rows_of_a_data_set_are_followed():
    Z, y, _ = planted(3000)
    data = Dataset(pa.table({"z": vectors(Z), "y": y})).shuffle(seed=0).select(range(2000))
    found = discover(data["z"], data["y"], random_state=0)
    wanted = discover(np.array(data["z"], dtype=np.float32), np.array(data["y"]), random_state=0)
    assert np.array_equal(found.responsibilities_, wanted.responsibilities_)


def test_a_generator_is_refused():
    Z, y, _ = planted(100)
    with pytest.raises(InvalidInputError, match=r"gone through only once.*Pass the function that makes them"):
        discover_stream((Z[i : i + 10], y[i : i + 10]) for i in range(0, 100, 10))
    generator = batches(Z, y, 10)()
    with pytest.raises(InvalidInputError, match=r"0 rows, and 100 in the first pass.*makes the batches anew"):
        discover_stream(lambda: generator)


def test_shuffled_batches_are_refused():
    Z, y, _ = planted(2000)
    data = torch.utils.data.TensorDataset(torch.as_tensor(Z), torch.as_tensor(y))
    with pytest.raises(InvalidInputError, match=r"other labels from row.*no shuffling"):
        discover_stream(torch.utils.data.DataLoader(data, 100, shuffle=True))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "hold no rows"),
        ([{"z": 1}], "Batch 0 is a dict; needed are pairs"),
        ([(np.zeros((3, 2)), [0, 1, 0]), (np.zeros((3, 4)), [0, 1, 0])], r"Batch 1 .*needed are \(3, 2\) numbers"),
        ([(np.zeros((3, 2)), [0, 1])], "Batch 0 holds latents of shape"),
        ([(np.zeros(3), [0, 1, 0])], "Batch 0 holds latents of shape"),
        ([(np.full((60, 2), np.nan), [0, 1] * 30)], "60 of 60 rows of Z hold NaN"),
    ],
)
def test_batches_that_cannot_be_read_are_refused(made, message):
    with pytest.raises(InvalidInputError, match=message):
        discover_stream(made)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.chunked_array([pa.array([[1.0, 2.0], [3.0]])]), "different lengths"),
        (pa.chunked_array([pa.array([[1.0, 2.0], None])]), "missing or of different lengths"),
        (pa.chunked_array([pa.array([[1.0, 2.0], [1.0, None]])]), "missing or of different lengths"),
        (pa.chunked_array([pa.array([1.0, 2.0])]), "A column of double"),
        (pa.chunked_array([], type=pa.list_(pa.float32())), "no rows"),
        (pa.chunked_array([pa.array([["a"], ["b"]])]), "dtype object"),
    ],
)
def test_columns_without_vectors_are_refused(column, message):
    with pytest.raises(InvalidInputError, match=message):
        discover(column, [0, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_counted(bad, dtype):
    Z, y, _ = planted(10_000)
    Z = Z.astype(dtype)
    Z[[3, 9000]] = bad
    with pytest.raises(InvalidInputError, match="2 of 10000 rows of Z hold NaN or infinite values"):
        discover(Slices(Z), y)


def test_labels_of_another_number_of_rows_are_refused():
    Z, y, _ = planted(200)
    with pytest.raises(InvalidInputError, match=r"Labels of shape \(199,\) were given for 200 latents"):
        discover(Slices(Z), y[:-1])
