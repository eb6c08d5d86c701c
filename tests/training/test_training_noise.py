"""Noise that belongs to a draw of an example: what it depends on, what it does not, and how it is distributed."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader
from training_zoo import assert_equal, make_trainer, shortcut_data, trained

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import sample_noise
from aifs_peft.latent.noise import NOISE_KINDS
from aifs_peft.methods import Sampling
from aifs_peft.training.batches import CarryingCollator, IndexedDataset
from aifs_peft.training.rng import ExampleNoise
from aifs_peft.training.sampling import Draw, EpochSampler, occurrences
from aifs_peft.tuner import AIFSConfig

KINDS = pytest.mark.parametrize("kind", NOISE_KINDS)


@KINDS
@pytest.mark.parametrize("width", [1, 2, 7, 64, 769])
def test_a_row_does_not_depend_on_its_batch(kind, width):
    index = torch.tensor([5, 9, 2, 9, 10**9, 0, 9])
    occurrence = torch.tensor([0, 0, 0, 1, 0, 3, 2])
    whole = ExampleNoise(0, 3, index, occurrence)(width, kind)
    assert whole.shape == (7, width)
    assert whole.dtype == torch.float32
    order = torch.tensor([6, 0, 3, 5, 1, 4, 2])
    assert torch.equal(whole[order], ExampleNoise(0, 3, index[order], occurrence[order])(width, kind))
    alone = [ExampleNoise(0, 3, index[i : i + 1], occurrence[i : i + 1])(width, kind) for i in range(7)]
    assert torch.equal(whole, torch.cat(alone))


@KINDS
def test_seed_step_example_and_occurrence_all_count(kind):
    index = torch.arange(4)
    base = ExampleNoise(0, 3, index)(16, kind)
    others = [
        ExampleNoise(1, 3, index),
        ExampleNoise(0, 4, index),
        ExampleNoise(0, 3, index + 1),
        ExampleNoise(0, 3, index, torch.ones(4, dtype=torch.int64)),
    ]
    assert torch.equal(base, ExampleNoise(0, 3, index, torch.zeros(4, dtype=torch.int64))(16, kind))
    for other in others:
        assert not bool((base == other(16, kind)).all(1).any())


def test_gaussian_noise_is_the_beginning_of_wider_noise():
    noise = ExampleNoise(2, 0, torch.arange(5))
    for width in (1, 2, 3, 8):
        assert torch.equal(noise(width, "gaussian"), noise(9, "gaussian")[:, :width])


@pytest.mark.parametrize(
    "draws",
    [
        lambda n: ExampleNoise(0, 0, torch.arange(n)),
        lambda n: ExampleNoise(0, 0, torch.full((n,), 3), torch.arange(n)),
    ],
    ids=["examples", "occurrences"],
)
def test_gaussian_noise_is_standard_normal_and_independent(draws):
    noise = draws(20_000)(3, "gaussian").numpy().astype(np.float64)
    for column in noise.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    # Neither the numbers nor their sizes know of each other, within a row or between neighbours.
    neighbours = np.column_stack([noise[:-1], noise[1:]])
    for values in (neighbours, neighbours**2):
        correlation = np.corrcoef(values.T) - np.eye(6)
        assert np.abs(correlation).max() < 5 / np.sqrt(len(noise))


def test_steps_and_seeds_give_independent_noise():
    for made in (lambda i: ExampleNoise(0, i, torch.tensor([3])), lambda i: ExampleNoise(i, 0, torch.tensor([3]))):
        values = np.array([made(i)(1, "gaussian").item() for i in range(4000)])
        assert stats.kstest(values, "norm").pvalue > 1e-3
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 5 / np.sqrt(4000)


@KINDS
@pytest.mark.parametrize("width", [1, 3, 12])
def test_each_kind_is_distributed_as_sample_noise_draws_it(kind, width):
    ours = ExampleNoise(0, 0, torch.arange(20_000))(width, kind)
    theirs = sample_noise((20_000, width), kind, generator=torch.Generator().manual_seed(0))
    if kind != "gaussian":
        order = 1 if kind == "l1" else 2
        torch.testing.assert_close(ours.norm(order, dim=1), theirs.norm(order, dim=1), rtol=1e-5, atol=0)
    if width == 1 and kind != "gaussian":
        assert set(ours.sign().unique().tolist()) == {-1.0, 1.0}
        assert abs(ours.sign().mean().item()) < 5 / np.sqrt(20_000)
        return
    for column in range(min(width, 2)):
        assert stats.ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 1e-3


def test_unknown_kind_is_refused():
    with pytest.raises(InvalidConfigError, match="'gaussian', 'l1', 'l2'"):
        ExampleNoise(0, 0, torch.arange(2))(3, "l3")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=30))
def test_occurrences_count_what_came_before(values):
    wanted = [values[:i].count(value) for i, value in enumerate(values)]
    assert occurrences(torch.tensor(values, dtype=torch.int64)).tolist() == wanted


def test_draws_of_one_example_stay_apart_on_their_way_through_a_loader():
    sampler = EpochSampler(6, lambda epoch: Sampling(cells=torch.tensor([0, 1, 1, 1, 1, 1])), seed=0)
    assert list(sampler).count(0) == 3
    assert pickle.loads(pickle.dumps(Draw(4, 2))).occurrence == 2
    data = IndexedDataset([{"x": float(i)} for i in range(6)])
    seen = []
    collator = CarryingCollator(lambda rows: {"x": torch.tensor([row["x"] for row in rows])})
    for batch in DataLoader(data, batch_size=4, sampler=sampler, collate_fn=collator):
        assert batch["x"].tolist() == batch["aifs_index"].tolist()
        seen += zip(batch["aifs_index"].tolist(), batch["aifs_occurrence"].tolist(), strict=True)
    assert len(seen) == 6
    assert {(0, 0), (0, 1), (0, 2)} <= set(seen)
    assert len(set(seen)) == 6


def test_repeated_draws_of_a_balanced_batch_get_noise_of_their_own(tmp_path):
    config = AIFSConfig(noise="gaussian")
    trainer = make_trainer(tmp_path, config, shortcut_data(), max_steps=3, per_device_train_batch_size=80)
    rows = []
    intervention = trainer.method.intervention

    def spy(context):
        rows.append((context.index, context.draw(4, "gaussian")))
        return intervention(context)

    trainer.method.intervention = spy
    trainer.train()
    assert len(rows) == 3
    repeated = 0
    for index, noise in rows:
        repeated += len(index) - len(index.unique())
        assert len(noise.unique(dim=0)) == len(index)
    assert repeated > 20


def test_accumulation_equals_one_large_batch_with_repeated_draws(tmp_path):
    results = []
    for batch, steps in ((5, 8), (40, 1)):
        trainer = make_trainer(
            tmp_path,
            AIFSConfig(noise="gaussian"),
            shortcut_data(),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            optim="sgd",
        )
        trainer.train()
        assert trainer.layer.state.has_basis
        results.append(trained(trainer.model))
    assert_equal(*results, exact=False, tolerance=2e-6)
