"""What is expected of `transformers.Trainer` beyond its documentation: a release that moves it fails here first.

Each private name is listed with what is leaned on. A test at the end reads the source, so that the list is complete.
"""

import ast
import inspect
from pathlib import Path

import datasets
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

import aifs_peft.training
from aifs_peft.training import _transformers

# Name -> what is expected of it, and the parameters that are passed (None for an attribute of an instance).
PRIVATE = {
    "_get_dataloader": (
        "builds and shards a loader of a data set with a given sampler",
        ["dataset", "description", "batch_size", "sampler_fn", "is_training"],
    ),
    "_train_batch_size": ("examples per process and forward pass, set by __init__", None),
    "_set_signature_columns_if_needed": ("fills `_signature_columns` once and leaves it alone later", []),
    "_signature_columns": ("list of column names that survive `remove_unused_columns`", None),
    "_remove_unused_columns": ("a `datasets.Dataset` without the columns that nobody reads", ["dataset"]),
    "_get_collator_with_removed_columns": ("a collator that drops them from examples", ["data_collator"]),
    "_load_from_checkpoint": (
        "called by `train(resume_from_checkpoint=...)` to load the model",
        ["resume_from_checkpoint", "model"],
    ),
    "_push_from_checkpoint": ("called after each checkpoint with `push_to_hub`", ["checkpoint_folder"]),
    "_hp_search_setup": ("sets the arguments of a trial, and may be called twice for it", ["trial"]),
    "_get_output_dir": ("the folder of the run; `_save_checkpoint` writes its folder into it", ["trial"]),
    "_save_checkpoint": ("writes `checkpoint-<step>` whole into `_get_output_dir`", ["model", "trial"]),
    "_run_epoch": ("all steps of one epoch; not called again once `control.should_training_stop` is set", []),
    "_load_best_model": ("called at the end with `load_best_model_at_end`, reads `state.best_model_checkpoint`", []),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Rows(Dataset):
    def __init__(self, n=6):
        self.n, self.asked = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.asked.append(i)
        return {"x": torch.tensor([float(i)]), "labels": i % 2, "extra": 7}


def make(folder, cls=Trainer, data=None, **options):
    defaults = {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
    }
    extra = {name: options.pop(name) for name in ("callbacks", "eval_dataset") if name in options}
    args = TrainingArguments(output_dir=str(folder), **{**defaults, **options})
    return cls(Net(), args, train_dataset=Rows() if data is None else data, **extra)


@pytest.mark.parametrize("name", PRIVATE)
def test_each_private_name_is_there_with_the_parameters_that_are_passed(tmp_path, name):
    expected, parameters = PRIVATE[name]
    trainer = make(tmp_path)
    assert hasattr(trainer, name), f"transformers has no Trainer.{name} any more: {expected}"
    if parameters is not None:
        known = inspect.signature(getattr(Trainer, name)).parameters
        assert set(parameters) <= set(known), f"Trainer.{name} takes {list(known)} now, {parameters} are passed"


def test_a_loader_keeps_the_order_of_the_sampler_it_is_given(tmp_path):
    class Backwards(Sampler):
        def __iter__(self):
            return iter(range(5, -1, -1))

        def __len__(self):
            return 6

    trainer = make(tmp_path)
    loader = _transformers.training_loader(trainer, trainer.train_dataset, Backwards())
    assert [batch["x"].flatten().tolist() for batch in loader] == [[5.0, 4.0], [3.0, 2.0], [1.0, 0.0]]
    assert len(loader) == 3
    assert _transformers.device_batch_size(trainer) == 2


def test_columns_are_kept_once_they_are_named(tmp_path):
    trainer = make(tmp_path)
    table = datasets.Dataset.from_dict({"x": [[0.0]], "labels": [1], "extra": [7], "other": [8]})
    assert set(_transformers.without_unused_columns(trainer, table).column_names) == {"x", "labels"}
    _transformers.keep_columns(trainer, ["extra"])
    _transformers.keep_columns(trainer, ["extra"])
    assert trainer._signature_columns.count("extra") == 1
    assert set(_transformers.without_unused_columns(trainer, table).column_names) == {"x", "labels", "extra"}
    assert _transformers.without_unused_columns(trainer, trainer.train_dataset) is trainer.train_dataset
    example = {"x": torch.zeros(1), "labels": 1, "extra": 7, "other": 8}
    assert set(_transformers.removing_collator(trainer)([example])) == {"x", "labels", "extra"}


def test_loaders_of_checkpoints_are_called_where_they_were(tmp_path):
    calls = []

    class Spy(Trainer):
        def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
            calls.append(("resume", Path(resume_from_checkpoint).name, model))
            super()._load_from_checkpoint(resume_from_checkpoint, model)

        def _load_best_model(self):
            calls.append(("best", Path(self.state.best_model_checkpoint).name))
            super()._load_best_model()

    options = {"save_strategy": "epoch", "eval_strategy": "epoch", "eval_dataset": Rows()}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "learning_rate": 1e-3}
    trainer = make(tmp_path, Spy, **options, **best)
    trainer.train()
    assert calls == [("best", Path(trainer.state.best_model_checkpoint).name)]
    calls.clear()
    make(tmp_path, Spy).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert calls == [("resume", "checkpoint-3", None)]


def test_a_checkpoint_says_by_which_name_generators_are_saved_and_that_the_call_is_internal(tmp_path):
    folders = []

    class Spy(Trainer):
        def save_model(self, output_dir=None, _internal_call=False):
            folders.append((Path(output_dir).name, _internal_call))
            super().save_model(output_dir, _internal_call)

    trainer = make(tmp_path, Spy, save_strategy="epoch")
    trainer.train()
    assert folders == [("checkpoint-3", True), ("checkpoint-6", True)]
    name = _transformers.rng_file(trainer.args)
    assert (tmp_path / "checkpoint-3" / name).is_file()
    source = inspect.getsource(Trainer._save_rng_state)
    assert '"rng_state.pth"' in source
    assert 'f"rng_state_{self.args.process_index}.pth"' in source


def test_a_checkpoint_is_written_into_the_folder_that_is_asked_for(tmp_path):
    class Own(Trainer):
        def _get_output_dir(self, trial):
            return str(tmp_path / "elsewhere")

    trainer = make(tmp_path / "run", Own, save_strategy="epoch", num_train_epochs=1)
    trainer.train()
    written = {path.name for path in (tmp_path / "elsewhere" / "checkpoint-3").iterdir()}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= written
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_events_come_in_the_order_that_the_epoch_callback_needs(tmp_path):
    """The state of a step's checkpoint must hold what `on_step_end` changed; `on_epoch_end` would be too late."""
    events = []

    class Spy(TrainerCallback):
        def __getattribute__(self, name):
            if not name.startswith("on_"):
                return super().__getattribute__(name)

            def note(args, state, control, **kwargs):
                events.append((name.removeprefix("on_"), state.epoch))
                if name == "on_train_begin":
                    assert len(kwargs["train_dataloader"]) == 3

            return note

    data = Rows()
    trainer = make(tmp_path, data=data, callbacks=[Spy()], save_strategy="epoch", logging_steps=1, num_train_epochs=1)
    trainer.train()
    names = [name for name, _ in events if name not in ("pre_optimizer_step", "optimizer_step", "init_end")]
    assert names == [
        *("train_begin", "epoch_begin"),
        *("step_begin", "step_end", "log") * 3,
        *("epoch_end", "save", "log", "train_end"),
    ]
    ends = [epoch for name, epoch in events if name == "step_end"]
    assert ends == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert ends[-1].is_integer()
    assert not any(epoch.is_integer() for epoch in ends[:-1])
    begin = next(epoch for name, epoch in events if name == "epoch_begin")
    assert int(begin or 0) == 0


def test_the_order_of_an_epoch_is_drawn_after_on_epoch_begin(tmp_path):
    order = []

    class Noting(Sampler):
        def __iter__(self):
            order.append("drawn")
            return iter(range(6))

        def __len__(self):
            return 6

    class Spy(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            order.append("begin")

    class Own(Trainer):
        def get_train_dataloader(self):
            return _transformers.training_loader(self, self.train_dataset, Noting())

    make(tmp_path, Own, callbacks=[Spy()]).train()
    assert order == ["begin", "drawn"] * 2


def test_attributes_that_steer_the_loss_mean_what_they_did(tmp_path):
    """`loss_is_scaled_for_ga = False`: a plain mean is divided by the number of accumulated batches."""
    trainer = make(tmp_path)
    assert Trainer.loss_is_scaled_for_ga is None
    assert trainer.model_accepts_loss_kwargs is False
    assert trainer.label_names == ["labels"]
    trainer.current_gradient_accumulation_steps = 4
    batch = {"x": torch.ones(2, 1), "labels": torch.tensor([0, 1])}
    trainer.loss_is_scaled_for_ga = False
    quarter = trainer.training_step(trainer.model, dict(batch))
    trainer.loss_is_scaled_for_ga = True
    torch.testing.assert_close(trainer.training_step(trainer.model, dict(batch)), 4 * quarter)
    assert (trainer.is_fsdp_enabled, trainer.is_deepspeed_enabled) == (False, False)


def private_names(tree):
    """Every attribute with one leading underscore that a file reads, writes or calls."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }


def test_no_other_file_touches_a_private_name_of_the_trainer(tmp_path):
    theirs = {name for name in (*dir(Trainer), *vars(make(tmp_path))) if name.startswith("_")}
    folder = Path(aifs_peft.training.__file__).parent
    used = {path.name: private_names(ast.parse(path.read_text())) & theirs for path in folder.glob("*.py")}
    assert used.pop("_transformers.py") == set(PRIVATE)
    assert {name: names for name, names in used.items() if names} == {}
