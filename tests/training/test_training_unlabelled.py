"""`AIFSTrainer(unlabelled_dataset=)`: encoded by the encoder that is trained, given to discovery, and nothing else."""

import datasets
import numpy as np
import pytest
import torch
from training_zoo import assert_equal, lora, make_args, make_data, make_model, make_trainer, shortcut_data, trained

import aifs_peft.discovery
from aifs_peft.audit.encoding import encode
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.training import AIFSTrainer
from aifs_peft.tuner import AIFSConfig


@pytest.fixture
def given(monkeypatch):
    """What every call of `discover` was given as unlabelled latents."""
    calls, real = [], aifs_peft.discovery.discover

    def spy(*args, **kwargs):
        calls.append(kwargs.get("unlabelled"))
        return real(*args, **kwargs)

    monkeypatch.setattr(aifs_peft.discovery, "discover", spy)
    return calls


def with_pool(folder, pool, config=None, data=None, **options):
    return AIFSTrainer(
        make_model(config or AIFSConfig()),
        make_args(folder, **options),
        train_dataset=shortcut_data() if data is None else data,
        unlabelled_dataset=pool,
    )


def test_it_is_encoded_once_by_a_frozen_encoder_and_its_labels_are_ignored(tmp_path, given):
    pool = shortcut_data(90, seed=3, rate=2)
    bare = [{"pixel_values": row["pixel_values"]} for row in pool]
    odd = [{**row, "label": "no class"} for row in pool]
    results = []
    for each in (pool, bare, odd):
        trainer = with_pool(tmp_path, each)
        expected = encode(trainer.adapted, bare, batch_size=8).Z
        trainer.train()
        results.append(trained(trainer.model))
        np.testing.assert_allclose(given[-1], expected, atol=1e-5)
    assert len(given) == 3
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


def test_a_set_that_shows_nothing_leaves_training_as_it_is_bit_for_bit(tmp_path, given):
    noise = [{"pixel_values": torch.randn(3, 8, 8)} for _ in range(60)]
    plain = make_trainer(tmp_path, AIFSConfig(encoder_adapter=lora(0.1)), shortcut_data())
    plain.train()
    helped = with_pool(tmp_path, noise, AIFSConfig(encoder_adapter=lora(0.1)))
    helped.train()
    assert given[0] is None
    assert given[1].shape == (60, 16)
    assert_equal(trained(plain.model), trained(helped.model))


def test_rediscovery_encodes_it_again(tmp_path, given):
    config = AIFSConfig(encoder_adapter=lora())
    with_pool(tmp_path, shortcut_data(60, seed=3), config, directions="rediscover", num_train_epochs=1).train()
    looked = [pool for pool in given if pool is not None]  # several layers are searched without the pool
    assert len(looked) == 2
    assert not np.array_equal(*looked)


def test_a_resumed_run_goes_on_without_looking_at_it_again(tmp_path, given):
    pool = shortcut_data(60, seed=3)
    whole = with_pool(tmp_path / "a", pool, save_strategy="epoch", num_train_epochs=2)
    whole.train()
    looked = len(given)
    first = str(tmp_path / "a" / f"checkpoint-{whole.state.max_steps // 2}")
    resumed = with_pool(tmp_path / "b", pool, num_train_epochs=2)
    resumed.train(resume_from_checkpoint=first)
    assert len(given) == looked
    assert_equal(trained(whole.model), trained(resumed.model))


def test_a_table_of_a_datasets_library(tmp_path, given):
    rows = shortcut_data(60, seed=3)
    table = datasets.Dataset.from_dict(
        {"pixel_values": [row["pixel_values"].tolist() for row in rows], "label": [-1] * len(rows)}
    ).with_format("torch")
    with_pool(tmp_path, table, num_train_epochs=1).train()
    assert given[0].shape == (60, 16)


@pytest.mark.parametrize(
    ("pool", "config", "error", "message"),
    [
        ([], None, InvalidInputError, "unlabelled set is empty"),
        (iter([]), None, InvalidInputError, "unlabelled"),
        (make_data(60), AIFSConfig(recipe="erm"), InvalidConfigError, "has no use for unlabelled examples"),
    ],
    ids=["empty", "streamed", "method"],
)
def test_sets_that_are_refused(tmp_path, pool, config, error, message):
    with pytest.raises(error, match=message):
        with_pool(tmp_path, pool, config)


def test_too_few_are_refused_when_training_begins(tmp_path):
    with pytest.raises(InvalidInputError, match="at least 50"):
        with_pool(tmp_path, make_data(20)).train()
