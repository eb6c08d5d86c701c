"""Every argument of `Trainer` and every field of `TrainingArguments`: honoured as in transformers, or refused by name.

A field that transformers adds fails `test_every_field_is_known` until it is entered in one of the tables below.

- EQUAL: plain training with `AIFSTrainer` and with `Trainer` gives the same weights, log and files under this value.
- REFUSED: an `InvalidConfigError` that names the field.
- CHECKED: a function of its own, below.
- INHERITED: read by code of transformers that this package neither overrides nor reads; a test looks for the name in
  the source. They concern the network, the terminal, other hardware, or scripts.
"""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_zoo import assert_equal, lora, make_args, make_data, make_model, make_trainer, shortcut_data, trained
from transformers import Trainer, TrainerCallback, TrainingArguments

import aifs_peft.training
from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError, PushFailedError
from aifs_peft.methods import get
from aifs_peft.training import AIFSTrainer, peers
from aifs_peft.training.sharding import check_shardable
from aifs_peft.tuner import AIFSConfig

FIELDS = [field.name for field in dataclasses.fields(TrainingArguments)]
ARGUMENTS = list(inspect.signature(Trainer.__init__).parameters)[1:]
N = 24

# Field -> (arguments, whether the weights change by them).
EQUAL = {
    "output_dir": ({}, False),
    "num_train_epochs": ({"num_train_epochs": 5}, True),
    "max_steps": ({"max_steps": 2}, True),
    "learning_rate": ({"learning_rate": 3e-2}, True),
    "lr_scheduler_type": ({"lr_scheduler_type": "constant"}, True),
    "lr_scheduler_kwargs": ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}}, True),
    "warmup_steps": ({"warmup_steps": 2}, True),
    "optim": ({"optim": "adagrad"}, True),
    "weight_decay": ({"weight_decay": 0.9, "learning_rate": 0.1}, True),
    "adam_beta1": ({"adam_beta1": 0.1}, True),
    "adam_beta2": ({"adam_beta2": 0.5}, True),
    "adam_epsilon": ({"adam_epsilon": 0.1}, True),
    "gradient_accumulation_steps": ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": N // 2}, False),
    "max_grad_norm": ({"max_grad_norm": 1e-3, "optim": "sgd"}, True),
    "label_smoothing_factor": ({"label_smoothing_factor": 0.4}, True),
    "torch_empty_cache_steps": ({"torch_empty_cache_steps": 1}, False),
    "logging_strategy": ({"logging_strategy": "epoch"}, False),
    "logging_steps": ({"logging_steps": 2}, False),
    "logging_first_step": ({"logging_steps": 100, "logging_first_step": True}, False),
    "logging_nan_inf_filter": ({"logging_nan_inf_filter": True}, False),
    "include_num_input_tokens_seen": ({"include_num_input_tokens_seen": "all"}, False),
    "eval_strategy": ({"eval_strategy": "epoch"}, False),
    "eval_steps": ({"eval_strategy": "steps", "eval_steps": 2}, False),
    "eval_delay": ({"eval_strategy": "epoch", "eval_delay": 2}, False),
    "eval_on_start": ({"eval_strategy": "epoch", "eval_on_start": True}, False),
    "per_device_eval_batch_size": ({"eval_strategy": "epoch", "per_device_eval_batch_size": 3}, False),
    "eval_accumulation_steps": ({"eval_strategy": "epoch", "eval_accumulation_steps": 1}, False),
    "eval_do_concat_batches": ({"eval_strategy": "epoch", "eval_do_concat_batches": False}, False),
    "eval_use_gather_object": ({"eval_strategy": "epoch", "eval_use_gather_object": True}, False),
    "save_strategy": ({"save_strategy": "epoch"}, False),
    "save_steps": ({"save_strategy": "steps", "save_steps": 2}, False),
    "save_total_limit": ({"save_strategy": "epoch", "save_total_limit": 1}, False),
    "save_only_model": ({"save_strategy": "epoch", "save_only_model": True}, False),
    "load_best_model_at_end": (
        {
            "load_best_model_at_end": True,
            "save_strategy": "epoch",
            "eval_strategy": "epoch",
            "metric_for_best_model": "eval_loss",
            "learning_rate": 0.5,
        },
        True,
    ),
    "metric_for_best_model": (
        {"metric_for_best_model": "eval_loss", "save_strategy": "best", "eval_strategy": "epoch"},
        False,
    ),
    "greater_is_better": (
        {
            "load_best_model_at_end": True,
            "greater_is_better": True,
            "metric_for_best_model": "eval_loss",
            "save_strategy": "epoch",
            "eval_strategy": "epoch",
        },
        True,
    ),
    "accelerator_config": ({"accelerator_config": {"split_batches": True}}, False),
}

REFUSED = {
    "fsdp": ("full_shard", "fsdp='full_shard' splits parameters"),
    "deepspeed": ({"zero_optimization": {"stage": 3}}, "deepspeed=.*splits parameters"),
    "parallelism_config": (object(), "parallelism_config=.*splits parameters"),
    "ignore_data_skip": (True, "ignore_data_skip=True"),
    "train_sampling_strategy": ("sequential", "train_sampling_strategy='sequential' has no effect"),
    "use_liger_kernel": (True, "use_liger_kernel=True"),
}

INHERITED = {
    # other hardware, or a whole cluster
    *("tf32", "log_on_each_node", "save_on_each_node", "average_tokens_across_devices", "ddp_bucket_cap_mb"),
    *("ddp_static_graph", "ddp_find_unused_parameters", "ddp_broadcast_buffers"),
    *("fsdp_config", "local_rank"),
    # options of what is refused or optional
    *("liger_kernel_config", "length_column_name", "optim_args", "optim_target_modules", "use_cache"),
    *("torch_compile_backend", "torch_compile_mode"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs"),  # aliases of activation_checkpointing*
    # the process as a whole
    *("full_determinism", "enable_jit_checkpoint", "debug", "skip_memory_metrics"),
    "restore_callback_states_from_checkpoint",
    # the terminal and other services
    *("log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name", "project"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    *("push_to_hub", "hub_token", "hub_private_repo", "hub_strategy"),
    "hub_revision",
    # scripts
    *("do_train", "do_eval", "do_predict"),
}

# Field or argument -> its check.
CHECKED: dict[str, Callable] = {}


def check(*names):
    """Enter a function as the check of these fields or arguments."""

    def enter(function):
        CHECKED.update(dict.fromkeys(names, function))
        return function

    return enter


def erm(folder, *, dropout=0.0, encoder=None, data=None, **options):
    """Plain training by `AIFSTrainer` on batches of the whole training set, whose order does not matter then."""
    config = AIFSConfig(recipe="erm", encoder_adapter=encoder)
    settings = {"per_device_train_batch_size": N, "num_train_epochs": 4, "lr_scheduler_type": "linear", **options}
    extra = {name: settings.pop(name) for name in ARGUMENTS if name in settings}
    data = make_data(N) if data is None else data
    return AIFSTrainer(
        make_model(config, dropout=dropout),
        make_args(folder, **settings),
        **{"train_dataset": data, "eval_dataset": make_data(10, seed=1), **extra},
    )


def upstream(folder, **options):
    """The same training by `Trainer`."""
    ours = erm(folder, **options)
    args = ours.args
    settings = {name: getattr(args, name) for name in FIELDS}
    settings["accelerator_config"] = options.get("accelerator_config")
    plain = TrainingArguments(**settings)
    rows = [{k: v for k, v in row.items() if k != "group"} for row in make_data(N)]
    return Trainer(ours.model, plain, train_dataset=rows, eval_dataset=make_data(10, seed=1))


def rows_of(trainer):
    """What was logged and when, without timings and without metrics that only one of the trainers has."""
    kept = ("loss", "learning_rate", "grad_norm", "eval_loss", "num_input_tokens_seen", "epoch", "step")
    return [{name: row[name] for name in kept if name in row} for row in trainer.state.log_history]


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


@functools.cache
def attributes_read():
    """Names of the attributes that each file of the package's folder `training` reads."""
    files = Path(aifs_peft.training.__file__).parent.glob("*.py")
    return {file.name: {getattr(n, "attr", None) for n in ast.walk(ast.parse(file.read_text()))} for file in files}


def test_every_field_is_known():
    tables = [set(EQUAL), set(REFUSED), set(INHERITED), set(CHECKED) - set(ARGUMENTS)]
    known = set().union(*tables)
    assert known == set(FIELDS), f"new: {set(FIELDS) - known}; gone: {known - set(FIELDS)}"
    assert sum(map(len, tables)) == len(known), "a field stands in two tables"
    assert set(CHECKED) >= set(ARGUMENTS), f"new arguments of Trainer: {set(ARGUMENTS) - set(CHECKED)}"


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    trainer = erm(tmp_path_factory.mktemp("default"))
    trainer.train()
    return trained(trainer.model)


@pytest.mark.parametrize("name", EQUAL)
def test_plain_training_is_that_of_trainer(tmp_path, default, name):
    options, changes = EQUAL[name]
    theirs, ours = upstream(tmp_path / "theirs", **options), erm(tmp_path / "ours", **options)
    theirs.train()
    ours.train()
    weights = trained(ours.model)
    assert_equal(weights, trained(theirs.model), exact=False, tolerance=1e-5)
    same = all(torch.allclose(default[key], value, atol=1e-5) for key, value in weights.items())
    assert same == (not changes)
    for mine, other in zip(rows_of(ours), rows_of(theirs), strict=True):
        assert mine == pytest.approx(other, rel=2e-3, abs=1e-5)
    written = {file for file in files_of(tmp_path / "ours") if not file.endswith("aifs_manifest.json")}
    assert written == files_of(tmp_path / "theirs")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, name):
    value, message = REFUSED[name]
    with pytest.raises(InvalidConfigError, match=message):
        make_args(tmp_path, **{name: value})


@pytest.mark.parametrize("name", sorted(INHERITED))
def test_what_is_inherited_is_read_by_nobody_here(name):
    readers = [file for file, names in attributes_read().items() if name in names]
    assert readers == [], f"{name} is read in {readers}: check what it does there"


@check("use_cpu", "ddp_backend", "ddp_timeout")
def check_meeting(folder, monkeypatch):
    met = []
    monkeypatch.setattr(peers.dist, "init_process_group", lambda *given, **options: met.append((given, options)))
    args = make_args(folder, use_cpu=True, ddp_timeout=90)
    with peers.meeting_processes(args):
        assert met == []  # alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    with peers.meeting_processes(args):
        assert met == [(("gloo",), {"timeout": timedelta(seconds=90)})]
    args.ddp_backend = "mpi"
    with peers.meeting_processes(args):
        assert met[1][0] == ("mpi",)
    args.use_cpu = False
    with peers.meeting_processes(args):
        assert len(met) == 2  # transformers does it


@check("per_device_train_batch_size", "dataloader_drop_last")
def check_batches(folder, monkeypatch):
    trainer = make_trainer(folder, AIFSConfig(), shortcut_data(250), per_device_train_batch_size=40, num_train_epochs=1)
    trainer.train()
    assert trainer.state.global_step == 7
    cut = make_trainer(
        folder, AIFSConfig(), shortcut_data(250), per_device_train_batch_size=40, num_train_epochs=1,
        dataloader_drop_last=True, per_device_eval_batch_size=64,
    )  # fmt: skip
    cut.train()
    assert cut.state.global_step == 6
    # Discovery sees the examples of the last, incomplete batch all the same.
    assert torch.equal(cut.layer.state.groups, trainer.layer.state.groups)


@check("seed", "data_seed")
def check_seeds(folder, monkeypatch):
    def order(**options):
        trainer = make_trainer(folder, data=make_data(16), **options)
        return [i for batch in trainer.get_train_dataloader() for i in batch["aifs_index"].tolist()]

    assert order(seed=1) == order(seed=1) != order(seed=2)
    assert order(seed=1, data_seed=5) == order(seed=2, data_seed=5) != order(seed=1)


@check("bf16")
def check_bf16(folder, monkeypatch):
    ours, theirs = erm(folder, bf16=True), upstream(folder, bf16=True)
    ours.train()
    theirs.train()
    assert_equal(trained(ours.model), trained(theirs.model), exact=False, tolerance=3e-3)


@check("bf16_full_eval", "fp16_full_eval")
def check_full_eval(folder, monkeypatch):
    plain = erm(folder)
    plain.train()
    wanted = plain.evaluate()
    for name in ("bf16_full_eval", "fp16_full_eval"):
        trainer = erm(folder, **{name: True})
        trainer.train()
        assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted["eval_loss"], rel=0.05)
        # As in transformers the model stays in that precision; what the method has learnt does not.
        assert trainer.layer.head.weight.dtype in (torch.bfloat16, torch.float16)
        assert trainer.layer.state.mask.dtype == torch.float32
        assert trainer.layer.state.ema.dtype == torch.float64


@check("activation_checkpointing", "activation_checkpointing_kwargs")
def check_activation_checkpointing(folder, monkeypatch):
    plain = erm(folder, encoder=lora())
    plain.train()
    saving = erm(folder, encoder=lora(), activation_checkpointing=True)
    before = trained(saving.model)
    saving.train()
    assert_equal(trained(saving.model), trained(plain.model), exact=False, tolerance=1e-6)
    assert any(not torch.equal(value, before[key]) for key, value in trained(saving.model).items() if "lora" in key)
    reentrant = erm(
        folder, encoder=lora(), activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True}
    )
    reentrant.train()
    assert_equal(trained(reentrant.model), trained(saving.model))


@check("fp16")
def check_fp16(folder, monkeypatch):
    with pytest.raises(InvalidConfigError, match="fp16 does nothing on a CPU"):
        erm(folder, fp16=True)


@check("dataloader_in_order")
def check_order_of_workers(folder, monkeypatch):
    make_args(folder, dataloader_in_order=False)  # without workers, or with one, there is one order only
    make_args(folder, dataloader_in_order=False, dataloader_num_workers=1)
    with pytest.raises(InvalidConfigError, match="dataloader_in_order=False with dataloader_num_workers=2"):
        make_args(folder, dataloader_in_order=False, dataloader_num_workers=2)


@check("dataloader_persistent_workers")
def check_persistent_workers(folder, monkeypatch):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(make_data(N))

    for data, streamed in ((make_data(N), False), (Stream(), True)):
        for persistent in (False, True):
            options = {"dataloader_num_workers": 1, "dataloader_persistent_workers": persistent}
            trainer = erm(folder, data=data, max_steps=1, **options)
            assert trainer.get_train_dataloader().persistent_workers == persistent, streamed


@check("torch_compile")
def check_compiled(folder, monkeypatch):
    args = make_args(
        folder, torch_compile=True
    )  # what compiles is upstream's; docs/compatibility.md has what comes of it
    with pytest.raises(InvalidConfigError, match="shard_base_model=True and torch_compile"):
        check_shardable(erm(folder, encoder=lora()).model, args, 2)


@check("neftune_noise_alpha")
def check_neftune(folder, monkeypatch):
    with pytest.raises(InvalidConfigError, match="neftune_noise_alpha"):
        erm(folder, neftune_noise_alpha=5.0)
    erm(folder, encoder=lora(), neftune_noise_alpha=5.0)


@check("auto_find_batch_size")
def check_batch_size_finder(folder, monkeypatch):
    compute_loss = AIFSTrainer.compute_loss

    def small_machine(self, model, inputs, *args, **kwargs):
        if len(inputs["labels"]) > 12:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 PiB")
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AIFSTrainer, "compute_loss", small_machine)
    trainer = make_trainer(
        folder, AIFSConfig(), shortcut_data(), per_device_train_batch_size=16, auto_find_batch_size=True, max_steps=3
    )
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.runner.contexts.batch_size == trainer.state.train_batch_size <= 12
    assert trainer.layer.state.has_basis


@check("prediction_loss_only")
def check_loss_only(folder, monkeypatch):
    assert erm(folder, prediction_loss_only=True).predict(make_data(8)).predictions is None
    assert erm(folder).predict(make_data(8)).predictions.shape == (8, 2)


@check("include_for_metrics", "batch_eval_metrics", "compute_metrics", "preprocess_logits_for_metrics")
def check_metrics(folder, monkeypatch):
    seen = []

    def whole(prediction):
        seen.append((prediction.predictions.shape, prediction.inputs.shape, prediction.losses.shape))
        return {"own": 0.5}

    trainer = erm(
        folder, compute_metrics=whole, include_for_metrics=["inputs", "loss"],
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(1),
    )  # fmt: skip
    assert trainer.evaluate()["eval_own"] == 0.5
    assert seen == [((10,), (10, 3, 8, 8), (10,))]
    finished = []

    def by_batch(prediction, compute_result):
        finished.append(compute_result)
        return {"own": 1.0} if compute_result else {}

    trainer = erm(folder, compute_metrics=by_batch, batch_eval_metrics=True, per_device_eval_batch_size=4)
    assert trainer.evaluate()["eval_own"] == 1.0
    assert finished == [False, False, True]


@check(
    "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
    "dataloader_pin_memory",
)  # fmt: skip
def check_workers(folder, monkeypatch):
    from aifs_peft.training import encoding

    asked = []

    class Noted(Exception):  # noqa: N818 - ends the pass before any worker starts
        pass

    def note(dataset, **options):
        asked.append(options)
        raise Noted

    monkeypatch.setattr(encoding, "DataLoader", note)
    trainer = erm(
        folder, dataloader_num_workers=2, dataloader_prefetch_factor=3, dataloader_multiprocessing_context="spawn"
    )
    loader = trainer.get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor) == (2, 3)
    with pytest.raises(Noted):
        trainer.runner.contexts.offered.encode()
    (options,) = asked
    assert (options["num_workers"], options["prefetch_factor"], options["pin_memory"]) == (2, 3, False)
    assert options["multiprocessing_context"] == "spawn"


@check("remove_unused_columns", "label_names", "train_dataset")
def check_columns(folder, monkeypatch):
    for remove in (True, False):  # the data have a column `group`, which the model takes among its other arguments
        trainer = erm(folder, remove_unused_columns=remove)
        given = []
        trainer.model.get_base_model().register_forward_pre_hook(
            lambda module, args, kwargs, given=given: given.append("group" in kwargs), with_kwargs=True
        )
        trainer.train()
        assert set(given) == {not remove}
    trainer = erm(folder, label_names=["labels", "group"])
    trainer.train()
    labels, groups = trainer.predict(make_data(8)).label_ids
    assert groups.tolist() == [row["group"] for row in make_data(8)]
    assert labels.tolist() == [row["label"] for row in make_data(8)]
    with pytest.raises(InvalidConfigError, match=r"label_names=\['target'\]"):
        make_args(folder, label_names=["target"])


@check("resume_from_checkpoint")
def check_resuming_is_asked_of_train(folder, monkeypatch):
    trainer = erm(folder, resume_from_checkpoint="nowhere")  # for scripts, as in transformers
    trainer.train()
    assert trainer.state.global_step == 4
    with pytest.raises(CheckpointMismatchError, match="nowhere"):
        trainer.train(resume_from_checkpoint=str(folder / "nowhere"))


@check("model", "args")
def check_model_and_arguments(folder, monkeypatch):
    args = make_args(folder, evaluation_columns=["group"], early_stopping_patience=3, eval_strategy="epoch")
    before = args.to_dict()
    data = make_data(N)
    for _ in range(2):  # one object of arguments, two trainers
        trainer = AIFSTrainer(make_model(), args, train_dataset=data, eval_dataset=data)
        trainer.train()
        assert trainer.args is args
        assert len(trainer.predict(data).label_ids) == 2
    assert args.to_dict() == before
    with pytest.raises(InvalidConfigError, match="args must be AIFSTrainingArguments, got TrainingArguments"):
        AIFSTrainer(make_model(), TrainingArguments(str(folder), use_cpu=True), train_dataset=data)


@check("data_collator", "processing_class")
def check_collator_and_processor(folder, monkeypatch):
    class Processor:
        model_input_names = ("pixel_values",)

        def save_pretrained(self, folder):
            Path(folder, "processor.json").write_text("{}")

    def collate(examples):
        assert set(examples[0]) == {"pixel_values", "label"}
        return {
            "pixel_values": torch.stack([row["pixel_values"] for row in examples]),
            "labels": torch.tensor([row["label"] for row in examples]),
        }

    trainer = erm(folder, data_collator=collate, processing_class=Processor(), save_strategy="epoch")
    trainer.train()
    assert (folder / "checkpoint-4" / "processor.json").is_file()
    # By position, as `Trainer` takes it.
    data = make_data(N)
    AIFSTrainer(make_model(), make_args(folder, num_train_epochs=1), collate, data).train()


@check("eval_dataset")
def check_several_evaluation_sets(folder, monkeypatch):
    sets = {"near": make_data(20, seed=1), "far": make_data(20, seed=2)}
    trainer = erm(folder, eval_dataset=sets, eval_strategy="epoch")
    trainer.train()
    names = set().union(*trainer.state.log_history)
    assert {"eval_near_accuracy", "eval_far_worst_class_accuracy", "eval_far_loss"} <= names
    alone = trainer.evaluate(sets["far"])
    assert alone["eval_accuracy"] == trainer.evaluate()["eval_far_accuracy"]
    best = {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"}
    with pytest.raises(InvalidConfigError, match="eval_near_worst_inferred_group_accuracy' or 'eval_far_worst"):
        erm(folder, eval_dataset=sets, **best).train()
    chosen = erm(folder, eval_dataset=sets, metric_for_best_model="eval_far_worst_class_accuracy", **best)
    chosen.train()
    assert chosen.state.best_metric == max(
        row["eval_far_worst_class_accuracy"] for row in chosen.state.log_history if "eval_far_loss" in row
    )


@check("model_init")
def check_model_init(folder, monkeypatch):
    made = []

    def init(trial=None):
        made.append(make_model(AIFSConfig(recipe="erm")))
        return made[-1]

    args = make_args(folder, per_device_train_batch_size=N, num_train_epochs=2)
    trainer = AIFSTrainer(None, args, train_dataset=make_data(N), model_init=init)
    results = []
    for _ in range(2):
        trainer.train()
        assert trainer.adapted is made[-1]
        assert trainer.layer is not None
        assert trainer.runner.contexts.head is made[-1].get_base_model().classifier.aifs_head["default"]
        results.append(trained(trainer.model))
    assert len(made) == 3  # one in the constructor, one for each training
    assert_equal(*results)


@check("hub_model_id")
def check_hub_model_id(folder, monkeypatch):
    def unreachable(self, *given, **named):
        raise OSError("nobody listens")

    monkeypatch.setattr(Trainer, "init_hf_repo", unreachable)
    with pytest.raises(PushFailedError, match=r"me/mine.*nobody listens"):
        make_trainer(folder, AIFSConfig(), shortcut_data(50), push_to_hub=True, hub_model_id="me/mine")


@check("hub_always_push")
def check_pushes_during_training(folder, monkeypatch):
    pushed = []
    monkeypatch.setattr("aifs_peft.report.push_checkpoint", lambda trainer, where: pushed.append(where) or [])
    for always, done, expected in ((False, False, 0), (False, True, 1), (True, False, 1)):
        trainer = erm(folder, hub_always_push=always)
        trainer.push_in_progress = SimpleNamespace(is_done=lambda done=done: done)
        pushed.clear()
        trainer._push_from_checkpoint(str(folder))
        assert len(pushed) == expected


@check("callbacks")
def check_callbacks(folder, monkeypatch):
    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1

    count = Count()
    erm(folder, callbacks=[count]).train()
    assert count.steps == 4


@check("compute_loss_func")
def check_own_loss(folder, monkeypatch):
    weights = torch.tensor([1.0, 5.0])

    def weighted(outputs, labels, num_items_in_batch=None):
        each = torch.nn.functional.cross_entropy(outputs["logits"], labels, weight=weights, reduction="none")
        return each.sum() / num_items_in_batch

    results = []
    for batch, steps in ((N, 1), (N // 4, 4)):
        trainer = erm(
            folder, compute_loss_func=weighted, per_device_train_batch_size=batch, gradient_accumulation_steps=steps
        )
        trainer.train()
        results.append(trained(trainer.model))
    assert_equal(*results, exact=False, tolerance=1e-6)
    theirs = upstream(folder)
    theirs.compute_loss_func = weighted
    theirs.train()
    assert_equal(results[0], trained(theirs.model), exact=False, tolerance=1e-5)
    data = make_data(10, seed=1)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], rel=1e-3)
    # The method's other terms stay; a method that weighs examples itself refuses it before the first step.
    paper = make_trainer(folder, AIFSConfig.paper(mask_scale="max"), data, compute_loss_func=weighted)
    paper.train()
    assert "invariance" in paper.state.log_history[-2]
    for method in (name for name in ("gdro-oracle", "lff", "rsc")):
        config = AIFSConfig(recipe="erm", auxiliary=get(method).auxiliary)
        rows = Rows(make_data(N))
        trainer = AIFSTrainer(
            make_model(config), make_args(folder, method=method), train_dataset=rows, compute_loss_func=weighted
        )
        with pytest.raises(InvalidConfigError, match=f"compute_loss_func was given, but method '{method}'"):
            trainer.train()
        assert trainer.state.global_step == 0


class Rows(torch.utils.data.Dataset):
    """Examples with the column of true groups that oracles read."""

    def __init__(self, rows):
        self.rows = rows
        self.columns = {"group": [row["group"] for row in rows]}
        self.labels = [row["label"] for row in rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {name: self.rows[i][name] for name in ("pixel_values", "label")}


@check("optimizers", "optimizer_cls_and_kwargs")
def check_optimizers(folder, monkeypatch):
    def run(method="ule", **given):
        torch.manual_seed(0)
        config = AIFSConfig(recipe="erm", auxiliary=get(method).auxiliary, head="mlp")
        model = make_model(config)
        args = make_args(folder, method=method, per_device_train_batch_size=N, num_train_epochs=2)
        made = {name: value(model) for name, value in given.items()}
        trainer = AIFSTrainer(model, args, train_dataset=make_data(N), **made)
        trainer.train()
        return trainer

    def pair(model):
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trainable, lr=0.1)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - 0.5 * step)

    trainer = run(optimizers=pair)
    assert len(trainer.optimizer.param_groups) == 1  # the user's optimizer and schedule, as they are
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)
    logged = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    assert logged == pytest.approx([0.1, 0.05])

    def without_second_head(model):
        head = [p for name, p in model.named_parameters() if "aifs_head" in name]
        return torch.optim.SGD(head, lr=0.1), None

    with pytest.raises(InvalidConfigError, match=r"does not hold 2 parameter\(s\) of the second head"):
        run(optimizers=without_second_head)
    made = run(optimizer_cls_and_kwargs=lambda model: (torch.optim.SGD, {"lr": 0.2}))
    assert isinstance(made.optimizer.optimizer, torch.optim.SGD)
    assert made.optimizer.param_groups[-1]["weight_decay"] == 0.0  # the second head's own group


CHECKS = sorted(set(CHECKED.values()), key=lambda function: function.__name__)


@pytest.mark.parametrize("function", CHECKS, ids=[function.__name__.removeprefix("check_") for function in CHECKS])
def test_it_is_honoured(tmp_path, monkeypatch, function):
    function(tmp_path, monkeypatch)


def test_the_loader_can_be_looked_at_before_training_and_changes_nothing(tmp_path):
    data = shortcut_data()
    results = []
    for look in (False, True):
        trainer = make_trainer(tmp_path, AIFSConfig(), data)
        if look:
            seen = np.concatenate([batch["aifs_index"].numpy() for batch in trainer.get_train_dataloader()])
            assert sorted(seen) == list(range(len(data)))
        trainer.train()
        results.append(trained(trainer.model))
    assert_equal(*results)


@pytest.mark.parametrize("recipe", ["erm", "paper", "discovery"])
def test_a_second_training_begins_anew_from_the_weights_as_they_are(tmp_path, recipe):
    data = shortcut_data()
    options = {"optim": "sgd", "mask_samples": 60}

    def config():
        return AIFSConfig(recipe=recipe, encoder_adapter=lora())

    twice = make_trainer(tmp_path, config(), data, **options)
    twice.train()
    half = {name: value.clone() for name, value in twice.model.state_dict().items()}
    twice.train()
    assert twice.state.global_step == 60
    fresh = make_model(config())
    fresh.load_state_dict(half)
    once = make_trainer(tmp_path, model=fresh, data=data, **options)
    once.train()
    assert_equal(trained(twice.model), trained(once.model))


def test_arguments_and_data_that_are_changed_before_training_count(tmp_path):
    trainer = make_trainer(tmp_path, AIFSConfig.paper(mask_scale="max"))
    trainer.args.alpha, trainer.args.learning_rate, trainer.train_dataset = 0.0, 3e-3, make_data(32)
    trainer.train()
    assert trainer.method.settings.alpha == 0.0
    assert not any("invariance" in row for row in trainer.state.log_history)
    assert trainer.state.global_step == 8
    assert trainer.state.log_history[0]["learning_rate"] == pytest.approx(3e-3)
    wanted = make_trainer(
        tmp_path, AIFSConfig.paper(mask_scale="max"), make_data(32), alpha=0.0, learning_rate=3e-3
    )  # fmt: skip
    wanted.train()
    assert_equal(trained(trainer.model), trained(wanted.model))
