"""`shard_base_model`: FSDP2 on the frozen base, bit for bit the training of a whole one; what is refused."""

import doctest
from pathlib import Path

import pytest
import torch
from processes import free_port, launch
from training_modes import TABLES
from training_zoo import make_args, make_data, make_model, make_trainer

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments, sharded
from aifs_peft.training.sharding import check_shardable

SCRIPT = Path(__file__).with_name("sharded_run.py")


def test_examples_run():
    result = doctest.testmod(sharded)
    assert result.attempted
    assert not result.failed


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_a_split_base_model_trains_as_a_whole_one(processes, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", free_port()]
    results = launch(SCRIPT, [*launcher, str(SCRIPT), str(tmp_path / "out"), str(processes)], tmp_path / "out", 600)
    mine, whole = results["held"].tolist()
    assert mine < whole


def test_one_process_has_nothing_to_split(tmp_path):
    with pytest.raises(InvalidConfigError, match="splits the base model over processes, and there is one"):
        make_trainer(tmp_path, data=make_data(16), shard_base_model=True).train()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"torch_compile_backend": "eager"}, "torch_compile"),
        ({"accelerator_config": {"even_batches": False}}, "even_batches"),
    ],
)
def test_what_was_not_shown_to_work_is_refused_by_name(options, words, tmp_path):
    with pytest.raises(InvalidConfigError, match=words):
        check_shardable(make_model(), make_args(tmp_path, shard_base_model=True, **options), world_size=2)


def test_a_base_in_few_bits_is_refused(tmp_path):
    model = make_model()
    weight = model.get_base_model().vit.layernorm.weight
    weight.requires_grad_(False)
    model.get_base_model().vit.layernorm.weight = torch.nn.Parameter(weight.to(torch.uint8), requires_grad=False)
    with pytest.raises(InvalidConfigError, match="4 or 8 bits"):
        check_shardable(model, make_args(tmp_path, shard_base_model=True), world_size=2)


def spread(model, monkeypatch):
    model.get_base_model().hf_device_map = {"vit": 0, "classifier": "cpu"}


def split_tensors(model, monkeypatch):
    """A parameter as `tp_plan` and `device_mesh` leave it, without a group of processes."""

    class DTensor(torch.nn.Parameter):
        pass

    norm = model.get_base_model().vit.layernorm
    norm.weight = DTensor(norm.weight.data, requires_grad=False)


def launched(engine):
    return lambda _model, monkeypatch: monkeypatch.setenv(f"ACCELERATE_USE_{engine.upper()}", "true")


def two_gpus(_model, monkeypatch):
    monkeypatch.setattr(AIFSTrainingArguments, "n_gpu", 2)


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("`device_map` over several devices", spread),
        ("`tp_plan`, `device_mesh`", split_tensors),
        ("several GPUs in one process (`DataParallel`)", two_gpus),
        ("FSDP by `accelerate launch`", launched("fsdp")),
        ("DeepSpeed by `accelerate launch`", launched("deepspeed")),
    ],
)
def test_other_ways_to_use_several_devices_are_refused_by_name(name, prepare, tmp_path, monkeypatch):
    (mode,) = [row for row in TABLES["Several devices"] if row.name == name]
    model, args = make_model(), make_args(tmp_path)
    prepare(model, monkeypatch)
    with pytest.raises(InvalidConfigError) as caught:
        AIFSTrainer(model, args, train_dataset=make_data(16))
    assert str(caught.value).startswith(mode.outcome("LoRA"))
