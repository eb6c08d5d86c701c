"""The small parts: randomness, order of examples, labels, latents, selection, arguments, import."""

# ruff: noqa: NPY002 - the global generators are what is looked after here

import math
import random
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_zoo import make_args

from aifs_peft.errors import InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.explain.reading import attribute_scores, fit_reader
from aifs_peft.methods import Sampling
from aifs_peft.methods.common.draw_rates import balanced_counts, draw_rates
from aifs_peft.training.batches import CarryingCollator, IndexedDataset
from aifs_peft.training.columns import read_column
from aifs_peft.training.labels import read_labels
from aifs_peft.training.latents import LatentStore
from aifs_peft.training.processes import Processes
from aifs_peft.training.rng import isolated_rng, mix
from aifs_peft.training.sampling import Draw, EpochSampler, drawn_by_weight
from aifs_peft.training.selection import selection_metrics


def test_isolated_rng_puts_everything_back_even_after_an_error():
    torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state())
    first = []

    def draw_and_fail():
        with isolated_rng(1):
            first.extend([torch.rand(2), np.random.rand(), random.random()])
            raise KeyError("in the block")

    with pytest.raises(KeyError, match="in the block"):
        draw_and_fail()
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])
    with isolated_rng(1):
        assert torch.equal(torch.rand(2), first[0])
        assert (np.random.rand(), random.random()) == tuple(first[1:])


def test_mix_spreads_neighbours():
    seeds = {mix(a, b, c) for a in range(8) for b in range(8) for c in range(64)}
    assert len(seeds) == 8 * 8 * 64
    assert len({seed & 0xFFFFFFFF for seed in seeds}) > 4090


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.floats(1, 50))
def test_balanced_counts_add_up_and_respect_the_limit(sizes, repeats):
    total = sum(sizes)
    counts = balanced_counts(sizes, total, repeats)
    assert sum(counts) == total
    assert all(count <= repeats * size + 1 for count, size in zip(counts, sizes, strict=True))


def test_draw_rates_are_the_draws_of_the_sampler():
    cells = torch.tensor([5] * 90 + [2] * 8 + [9] * 2)
    rates = draw_rates(cells, 4.0)
    sampler = EpochSampler(100, lambda epoch: Sampling(cells=cells), seed=0, max_repeats=4.0)
    drawn = torch.bincount(torch.tensor(list(sampler)), minlength=100)
    for cell in (5, 2, 9):
        torch.testing.assert_close(rates[cells == cell].sum(), drawn[cells == cell].sum().float())
    assert rates[-1] == 4


@pytest.mark.parametrize(("sizes", "repeats"), [([0, 1], 2.0), ([], 2.0), ([1], 0.5)])
def test_balanced_counts_refuses(sizes, repeats):
    with pytest.raises(InvalidInputError, match="cells must hold examples"):
        balanced_counts(sizes, 4, repeats)


def test_sampler_repeats_itself_and_differs_between_epochs():
    cells = torch.arange(40) % 2 * 2 + (torch.arange(40) < 4)
    plans = [None, Sampling(cells=cells), Sampling(weights=torch.arange(40.0)), Sampling(weights=1.0 * cells)]
    for plan in plans:
        sampler = EpochSampler(40, lambda epoch, plan=plan: plan, seed=1)
        first = list(sampler)
        assert first == list(sampler)
        sampler.set_epoch(1)
        assert first != list(sampler)
        assert len(first) == len(sampler) == 40
    given = EpochSampler(40, lambda epoch: Sampling(order=(torch.arange(40) + epoch) % 40), seed=1)
    assert list(given) == list(range(40))
    with pytest.raises(InvalidInputError, match="positions from 0 to 40, the training set has 40"):
        list(EpochSampler(40, lambda epoch: Sampling(order=torch.arange(40) + (torch.arange(40) > 38)), seed=1))
    with pytest.raises(InvalidInputError, match="needs cells, weights or order"):
        list(EpochSampler(40, lambda epoch: Sampling(), seed=1))
    for plan in (Sampling(cells=torch.zeros(3)), Sampling(weights=torch.ones(3)), Sampling(order=torch.arange(3))):
        with pytest.raises(InvalidInputError, match="of 3 examples, the training set has 40"):
            list(EpochSampler(40, lambda epoch, plan=plan: plan, seed=1))


def test_draws_follow_the_weights():
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.0, 1.0, 2.5, 0.25, 0.25])
    drawn = torch.stack([torch.bincount(drawn_by_weight(weights, 8, generator), minlength=5) for _ in range(400)])
    assert bool((drawn.sum(1) == 8).all())
    assert bool((drawn[:, 0] == 0).all())
    torch.testing.assert_close(drawn.double().mean(0), weights.double() * 2, atol=0.08, rtol=0)
    for bad in ([0.0, 0.0], [1.0, -1.0], [1.0, math.nan]):
        with pytest.raises(InvalidInputError, match="finite, at least 0 and not all 0"):
            drawn_by_weight(torch.tensor(bad), 4, generator)


def test_columns_are_read_or_missed_with_a_remedy():
    rows = datasets.Dataset.from_dict({"x": [0.5, 1.0], "environment": [1, 0], "attributes": [[1, 0], [1, 1]]})
    assert read_column(rows, "environment").tolist() == [1, 0]
    assert read_column(rows, "attributes").shape == (2, 2)
    with pytest.raises(InvalidInputError, match="reads a column 'group' of the training set"):
        read_column(rows, "group")
    with pytest.raises(InvalidInputError, match="must hold one integer"):
        read_column(rows, "x")


def test_labels_are_read_from_wherever_they_are():
    class WithTargets:
        targets = torch.tensor([1, 0, 1])

        def __len__(self):
            return 3

        def __getitem__(self, i):
            raise AssertionError("inputs need not be loaded to read labels")

    assert read_labels(WithTargets()).tolist() == [1, 0, 1]
    assert read_labels([{"labels": np.int64(2)}, {"labels": torch.tensor(0)}]).tolist() == [2, 0]
    with pytest.raises(InvalidInputError, match="map-style"):
        read_labels(iter([]))
    with pytest.raises(InvalidInputError, match=r"example 0 of the training set has 'cat' \(str\)"):
        read_labels([{"label": "cat"}])


def test_collator_carries_columns_around():
    batch = CarryingCollator(lambda rows: {"keys": sorted(rows[0])}, ["group"])(
        [{"x": 1, "aifs_index": 4, "group": 2}, {"x": 1, "aifs_index": 0, "group": 3}]
    )
    assert batch["keys"] == ["x"]
    assert (batch["aifs_index"].tolist(), batch["group"].tolist()) == ([4, 0], [2, 3])
    wanted = [{"x": 6, "aifs_index": 1, "aifs_occurrence": n, "aifs_epoch": epoch} for n, epoch in ((0, 0), (2, 5))]
    assert IndexedDataset([{"x": 5}, {"x": 6}]).__getitems__([1, Draw(1, 2, 5)]) == wanted


def test_latents_of_an_example_seen_twice_are_the_later_ones(tmp_path):
    store = LatentStore(total=5, samples=None, seed=0)
    store.add(torch.tensor([3, 1]), torch.tensor([[3.0], [1.0]]), torch.tensor([1, 0]), step=0)
    store.add(torch.tensor([3]), torch.tensor([[30.0]]), torch.tensor([1]), step=4)
    store.save(tmp_path, rank=0)
    loaded = LatentStore(total=5, samples=None, seed=0)
    loaded.load(tmp_path, Processes())
    for latents in (store.gather(Processes(), 1), loaded.gather(Processes(), 1)):
        assert latents.index.tolist() == [1, 3]
        assert latents.z.tolist() == [[1.0], [30.0]]
        assert latents.labels.tolist() == [0, 1]


def gathered(stores):
    """What `gather` makes of the stores of several processes."""
    columns = zip(*(store._concatenate(1) for store in stores), strict=True)
    together = iter([torch.cat(column) for column in columns])
    return stores[0].gather(Processes(gather_rows=lambda rows: next(together)), 1)


@pytest.mark.parametrize("processes", [2, 11])
def test_of_an_example_that_two_processes_saw_in_one_step_the_same_latent_counts_after_a_resume(tmp_path, processes):
    stores = [LatentStore(total=40, samples=None, seed=0) for _ in range(processes)]
    for step in range(3):
        for rank, store in enumerate(stores):
            # Example 7 is drawn by every process in every step, now first and now last.
            index = torch.tensor([7, 10 + rank] if rank % 2 else [10 + rank, 7])
            store.add(index, torch.full((2, 1), 10.0 * step + 100.0 * rank), index % 2, step)
    for rank, store in enumerate(stores):
        store.save(tmp_path, rank)
    resumed = [LatentStore(total=40, samples=None, seed=0) for _ in range(processes)]
    for rank, store in enumerate(resumed):
        store.load(tmp_path, Processes(rank=rank, world_size=processes))
    before, after = gathered(stores), gathered(resumed)
    assert before.z[0].item() == 20 + 100 * (processes - 1)
    assert torch.equal(before.z, after.z)
    assert torch.equal(before.index, after.index)


def test_store_keeps_a_fixed_sample():
    def kept():
        store = LatentStore(total=100, samples=10, seed=2)
        store.add(torch.arange(100), torch.zeros(100, 2), torch.zeros(100, dtype=torch.int64), step=0)
        return store.gather(Processes(), 2).index.tolist()

    assert len(kept()) == 10
    assert kept() == kept()


def test_non_finite_latents_name_the_example():
    store = LatentStore(total=3, samples=None, seed=0)
    store.add(torch.tensor([2]), torch.tensor([[float("inf")]]), torch.tensor([0]), step=0)
    with pytest.raises(NonFiniteError, match="first: example 2"):
        store.gather(Processes(), 1)


def test_selection_finds_the_worst_inferred_cell():
    labels = torch.tensor([0] * 12 + [1] * 12)
    attribute = torch.tensor(([0] * 8 + [1] * 4) + ([1] * 8 + [0] * 4))
    scores = 20.0 * torch.nn.functional.one_hot(attribute).double()
    correct = attribute == labels
    metrics = selection_metrics(correct, labels, scores, min_cell=4)
    assert metrics["worst_inferred_group_accuracy"] == 0.0
    assert metrics["worst_class_accuracy"] == pytest.approx(8 / 12)
    assert metrics["inferred_conflicting_share"] == pytest.approx(8 / 24)
    # With the small cells left out only the aligned ones are judged.
    assert selection_metrics(correct, labels, scores, min_cell=5)["worst_inferred_group_accuracy"] == 1.0


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5, 0.8, 0.98, 1.0])
def test_selection_reads_groups_at_any_share_of_conflicting_ones(share):
    """Also where the bias of training is reversed."""
    rng = np.random.default_rng(2)

    def draw(n, conflicting):
        y = np.arange(n) % 2
        a = np.where(rng.random(n) < conflicting, 1 - y, y)
        z = 0.7 * rng.normal(size=(n, 8))
        z[:, 0] += 4 * a
        z[:, 1] += 5 * y
        return torch.as_tensor(z).float(), torch.as_tensor(y), torch.as_tensor(a)

    z, y, a = draw(1000, 0.05)
    beta = torch.zeros(2, 8)
    beta[:, 0] = torch.tensor([-2.0, 2.0])
    reader = fit_reader(z, y, a, beta)[1]
    z, y, a = draw(600, share)
    metrics = selection_metrics(a == y, y, attribute_scores(z, reader), min_cell=1)
    assert metrics["inferred_conflicting_share"] == pytest.approx(float((a != y).double().mean()), abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "best"}, "selection must be one of 'worst_inferred_group'"),
        ({"mask_update_every": 0}, "mask_update_every must be an integer of at least 1"),
        ({"mask_samples": 0}, "mask_samples must be an integer of at least 1"),
        ({"directions": "left"}, "directions must be"),
        ({"early_stopping_patience": 2}, "early_stopping_patience needs evaluations"),
        ({"max_repeats": 0.0}, "max_repeats must be a finite number of at least 1"),
    ],
)
def test_arguments_that_contradict_are_refused(tmp_path, options, message):
    with pytest.raises(InvalidConfigError, match=message):
        make_args(tmp_path, **options)


def test_import_changes_no_global_state():
    code = (
        "import warnings, logging, random, torch, numpy as np\n"
        "import transformers, peft, accelerate, datasets, sklearn, scipy\n"
        "from transformers import Trainer, EarlyStoppingCallback\n"
        "def state():\n"
        "    return (list(warnings.filters), logging.getLogger().level, torch.get_num_threads(), random.getstate(),\n"
        "            np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist(),\n"
        "            torch.is_grad_enabled())\n"
        "before = state()\n"
        "import aifs_peft, aifs_peft.training, aifs_peft.methods.aifs.discovery\n"
        "assert state() == before, [a == b for a, b in zip(state(), before)]\n"
        "print('unchanged')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.endswith("unchanged\n"), done.stdout + done.stderr
