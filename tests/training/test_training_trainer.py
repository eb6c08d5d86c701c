"""One run after another on a tiny ViT: what is computed, how often, and what is left alone."""

import pytest
import torch
from training_zoo import assert_equal, lora, make_data, make_trainer, trained

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.tuner import AIFSConfig


@pytest.mark.parametrize("config", [AIFSConfig.paper(), AIFSConfig(recipe="erm")], ids=["paper", "erm"])
def test_trains_and_logs_each_term_under_its_own_name(tmp_path, config):
    trainer = make_trainer(tmp_path, config)
    before = trained(trainer.model)
    trainer.train()
    head = next(name for name in before if name.endswith("weight"))
    assert not torch.equal(before[head], trained(trainer.model)[head])
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 16
    assert all("cross_entropy" in row for row in rows)
    if config.recipe == "paper":
        last = rows[-1]
        assert last["loss"] == pytest.approx(last["cross_entropy"] + last["invariance"] + last["sensitivity"], rel=1e-5)
        assert last["invariance"] > 0
        assert last["sensitivity"] < 0
        assert "invariance" not in rows[0]
        assert int(trainer.layer.state.num_updates) == 2
    else:
        assert rows[-1]["loss"] == pytest.approx(rows[-1]["cross_entropy"], rel=1e-5)
        assert int(trainer.layer.state.num_updates) == 0


def test_encoder_runs_once_per_batch(tmp_path):
    trainer = make_trainer(tmp_path, AIFSConfig.paper(encoder_adapter=lora()))
    calls = []
    encoder = trainer.model.get_base_model().vit
    handle = encoder.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs)))
    trainer.train()
    handle.remove()
    assert len(calls) == trainer.state.global_step == 16


@pytest.mark.parametrize("recipe", ["paper", "erm"])
def test_accumulation_equals_one_large_batch(tmp_path, recipe):
    results = []
    for batch, steps in ((1, 8), (8, 1)):
        # 60 examples: the last group of 8 is incomplete.
        config = AIFSConfig(recipe=recipe, mask_scale="max", encoder_adapter=lora())
        trainer = make_trainer(
            tmp_path,
            config,
            make_data(60),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            optim="sgd",
            mask_samples=60,
        )
        trainer.train()
        results.append(trained(trainer.model))
    assert_equal(*results, exact=False, tolerance=2e-6)


@pytest.mark.parametrize("options", [{"alpha": 0.0, "beta": 0.0}, {"mask_update_every": 9}], ids=["weights", "mask"])
def test_nothing_to_do_is_erm_bit_for_bit(tmp_path, options):
    erm = make_trainer(tmp_path, AIFSConfig(recipe="erm", encoder_adapter=lora(0.1)))
    erm.train()
    off = make_trainer(tmp_path, AIFSConfig.paper(encoder_adapter=lora(0.1)), **options)
    off.train()
    weights = {name: value for name, value in trained(erm.model).items() if "aifs_state" not in name}
    assert_equal(weights, {name: value for name, value in trained(off.model).items() if name in weights})


def test_a_term_changes_the_trajectory(tmp_path):
    erm = make_trainer(tmp_path, AIFSConfig(recipe="erm"))
    erm.train()
    paper = make_trainer(tmp_path, AIFSConfig.paper(mask_scale="max"))
    paper.train()
    name = next(name for name in trained(erm.model) if name.endswith("weight"))
    assert not torch.equal(trained(erm.model)[name], trained(paper.model)[name])


def test_group_columns_reach_metrics_and_never_the_model(tmp_path):
    seen, label_ids = [], []

    def compute_metrics(prediction):
        label_ids.append(prediction.label_ids)
        return {"groups": len(set(prediction.label_ids[1].tolist()))}

    data = make_data(40)
    trainer = make_trainer(
        tmp_path,
        AIFSConfig.paper(),
        data,
        eval_dataset=data,
        evaluation_columns=["group"],
        compute_metrics=compute_metrics,
        eval_strategy="epoch",
    )
    handle = trainer.model.get_base_model().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(set(kwargs)), with_kwargs=True
    )
    trainer.train()
    output = trainer.predict(data)
    handle.remove()
    assert seen
    assert all(keys <= {"pixel_values"} for keys in seen)
    assert trainer.state.log_history[-2]["eval_groups"] == 4
    labels, groups = output.label_ids
    assert output.predictions.shape == (40, 2)
    assert groups.tolist() == [row["group"] for row in data]
    assert labels.tolist() == [row["label"] for row in data]


def test_missing_evaluation_column_is_an_error(tmp_path):
    data = make_data(16)
    trainer = make_trainer(tmp_path, data=data, eval_dataset=data, evaluation_columns=["region"])
    with pytest.raises(InvalidInputError, match="region"):
        trainer.evaluate()


def test_bare_model_is_refused(tmp_path):
    model = make_trainer(tmp_path).model.get_base_model()
    with pytest.raises(HeadError, match="get_peft_model"):
        make_trainer(tmp_path, model=model)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty"),
        ([{"pixel_values": torch.zeros(3, 8, 8), "label": 0}] * 4, "nothing to tell apart"),
        ([{"pixel_values": torch.zeros(3, 8, 8), "label": i} for i in range(4)], r"\[0, 2\), got \[0, 3\]"),
        ([{"pixel_values": torch.zeros(3, 8, 8), "label": i - 1} for i in range(2)], r"got \[-1, 0\]"),
        ([{"pixel_values": torch.zeros(3, 8, 8), "label": 0.5}] * 4, "integers"),
        ([{"pixel_values": torch.zeros(3, 8, 8)}] * 4, "no label"),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path, data, message):
    trainer = make_trainer(tmp_path, data=data)
    with pytest.raises(InvalidInputError, match=message):
        trainer.train()


def test_nan_latents_are_named_before_any_step(tmp_path):
    data = make_data(16)
    for row in data:
        row["pixel_values"] = row["pixel_values"] * float("nan")
    trainer = make_trainer(tmp_path, data=data)
    with pytest.raises(NonFiniteError, match="latents of 8 of 8"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_non_finite_term_is_named(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, AIFSConfig(recipe="erm"))
    monkeypatch.setattr(
        type(trainer.method),
        "loss",
        lambda self, output, labels, context: {
            "cross_entropy": output.logits.sum(),
            "penalty": output.logits.sum() / 0,
        },
    )
    with pytest.raises(NonFiniteError, match="loss term penalty"):
        trainer.train()


def test_data_parallel_is_refused(tmp_path, monkeypatch):
    from aifs_peft.training import AIFSTrainingArguments

    monkeypatch.setattr(AIFSTrainingArguments, "n_gpu", 2)
    with pytest.raises(InvalidConfigError, match="torchrun --nproc_per_node 2"):
        make_trainer(tmp_path)
