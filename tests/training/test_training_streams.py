"""Streamed training sets: the training of the same examples in memory, bit for bit, or refused by name."""

import doctest
import itertools
from contextlib import nullcontext

import datasets
import pytest
import torch
from test_training_inputs import bert, pictures, processor, tokenizer, vit
from torch.utils.data import IterableDataset
from training_modes import BATCH, SIZE, model_for
from training_zoo import SIZES, lora, make_args, make_data, make_model, shortcut_data, trained
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError, InvalidInputError
from aifs_peft.methods import Method, get, names
from aifs_peft.methods.settings import MethodSettings
from aifs_peft.training import AIFSTrainer, sampling, stream_inputs, stream_parts, streams
from aifs_peft.training.inputs import processed
from aifs_peft.training.processes import Processes
from aifs_peft.training.stream_parts import TrainingPart, shuffled
from aifs_peft.training.streams import Stream, check_streamed
from aifs_peft.tuner import AIFSConfig


class Rows(IterableDataset):
    """A stream of torch that counts what is read of it."""

    def __init__(self, rows):
        self.rows, self.read = rows, 0

    def __iter__(self):
        for row in self.rows:
            self.read += 1
            yield dict(row)


class Endless(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return itertools.cycle(self.rows)


def table(rows):
    """A `datasets.IterableDataset`, whose columns are known and whose tensors come as lists."""
    plain = [{**row, "pixel_values": row["pixel_values"].tolist()} for row in rows]
    return datasets.Dataset.from_list(plain).to_iterable_dataset()


def from_generator(rows):
    """One whose columns are not known."""
    return datasets.IterableDataset.from_generator(lambda: iter([dict(row) for row in rows]))


KINDS = {"torch": Rows, "datasets": table, "generator": from_generator}


def train(folder, data, recipe="paper", regime="LoRA", resume=None, model=None, **options):
    settings = {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH, **options}
    trainer = AIFSTrainer(model or model_for(recipe, regime), make_args(folder, **settings), train_dataset=data)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def assert_same(one, other):
    one, other = trained(one.model), trained(other.model)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture
def in_order(monkeypatch):
    """A set in memory is trained on in its own order, as a stream is."""
    monkeypatch.setattr(sampling.EpochSampler, "order", lambda self: torch.arange(self.size))


@pytest.mark.parametrize("module", [streams, stream_parts, stream_inputs])
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("recipe", "regime"), [("discovery", "LoRA"), ("paper", "LoRA"), ("paper", "frozen"), ("erm", "frozen")]
)
def test_a_stream_trains_as_the_same_examples_in_memory(kind, recipe, regime, tmp_path, in_order):
    rows = shortcut_data(SIZE)
    memory = train(tmp_path / "memory", rows, recipe, regime)
    stream = train(tmp_path / "stream", KINDS[kind](rows), recipe, regime)
    assert_same(memory, stream)
    assert [row.get("loss") for row in memory.state.log_history] == [
        row.get("loss") for row in stream.state.log_history
    ]
    if recipe == "discovery":
        assert stream.layer.state.has_basis
        assert len(stream.layer.state.groups) == SIZE


@pytest.mark.parametrize("kind", ["torch", "datasets"])
def test_plain_training_on_a_stream_is_that_of_trainer(kind, tmp_path):
    rows = [{"pixel_values": row["pixel_values"], "label": row["label"]} for row in make_data(40)]
    ours = train(tmp_path / "ours", KINDS[kind](rows), "erm", per_device_train_batch_size=8, max_steps=10)
    torch.manual_seed(0)
    model = model_for("erm", "LoRA")
    args = TrainingArguments(
        str(tmp_path / "theirs"), per_device_train_batch_size=8, max_steps=10, learning_rate=1e-2, use_cpu=True,
        lr_scheduler_type="cosine", seed=7, disable_tqdm=True, save_strategy="no", report_to="none",
        label_names=["labels"],
    )  # fmt: skip
    theirs = Trainer(model, args, train_dataset=KINDS[kind](rows))
    theirs.train()
    for name, value in trained(ours.model).items():
        torch.testing.assert_close(trained(theirs.model)[name], value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("method", ["aifs", "jtt", "erm-balanced", "lff"])
def test_a_frozen_encoder_encodes_a_stream_once_and_every_method_trains_on_it(method, tmp_path):
    rows = shortcut_data(SIZE)
    config = AIFSConfig(
        recipe="discovery" if method == "aifs" else "erm", auxiliary="linear" if method == "lff" else "none"
    )
    trainers = []
    for data in (rows, Rows(rows)):
        trainers.append(
            train(tmp_path / str(len(trainers)), data, model=make_model(config), cache_latents=True, method=method)
        )
    assert_same(*trainers)
    # Labels, two looks at the first ones for augmentation, one pass of the encoder: whatever the number of epochs.
    assert data.read <= 2 * SIZE + 2 * 16 + 2


def test_methods_that_draw_examples_say_so():
    drawing = {name for name in names() if get(name).sampling is not Method.sampling} - {"ags"}  # which counts epochs
    assert {name for name in names() if get(name).draws != "never"} == drawing


@pytest.mark.parametrize("name", names())
def test_a_method_that_draws_examples_is_refused_by_name_before_the_first_pass(name, tmp_path):
    method = get(name)(MethodSettings.for_method(name))
    rows = Rows(shortcut_data(32))
    if method.draws == "never":
        check_streamed(method, encoder_trains=True, num_labels=2)
        return
    with pytest.raises(InvalidConfigError) as caught:
        check_streamed(method, encoder_trains=False, num_labels=2)
    message = str(caught.value)
    assert message.startswith(f"a streamed training set gives each example once per epoch, and method {name!r} draws")
    assert "Dataset.from_generator" in message
    assert "cache_latents=True" in message
    config = AIFSConfig(recipe=method.recipe)
    with pytest.raises(InvalidConfigError, match=f"method '{name}' draws"):
        train(tmp_path, rows, model=make_model(config), method=name)
    assert rows.read == 0


def test_balancing_by_logits_is_what_the_refusal_offers(tmp_path, in_order):
    rows, options = shortcut_data(SIZE), {"method_options": {"balance": "logits"}}
    memory = train(tmp_path / "memory", rows, "discovery", "frozen", **options)
    assert_same(memory, train(tmp_path / "stream", Rows(rows), "discovery", "frozen", **options))


def test_a_method_that_asks_for_another_order_after_all_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(get("erm-balanced"), "draws", "never")
    with pytest.raises(InvalidConfigError, match="method 'erm-balanced' draws"):
        train(tmp_path, Rows(shortcut_data(32)), model=make_model(AIFSConfig(recipe="erm")), method="erm-balanced")


@pytest.mark.parametrize("persistent", [False, True])
def test_a_worker_reads_the_same(persistent, tmp_path):
    rows, options = shortcut_data(48), {"num_train_epochs": 3, "stream_shuffle_buffer": 16}
    here = train(tmp_path / "a", Rows(rows), **options)
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": persistent}
    assert_same(here, train(tmp_path / "b", Rows(rows), **options, **workers))


def test_several_workers_are_refused(tmp_path):
    with pytest.raises(InvalidConfigError, match="dataloader_num_workers=2 with a streamed training set"):
        train(tmp_path, Rows(shortcut_data(32)), dataloader_num_workers=2)


class Augmented(Rows):
    def __iter__(self):
        for row in super().__iter__():
            yield {**row, "pixel_values": row["pixel_values"] + 0.1 * torch.randn(3, 8, 8)}


@pytest.mark.parametrize(("recipe", "kind"), [("discovery", Augmented), ("paper", Augmented), ("paper", table)])
def test_a_resumed_run_is_the_uninterrupted_one(recipe, kind, tmp_path):
    rows = shortcut_data(SIZE)
    options = {"save_strategy": "steps", "save_steps": 5, "stream_shuffle_buffer": 32}
    whole = train(tmp_path / "whole", kind(rows), recipe, **options)
    for step in (5, 10) if recipe == "paper" else (15,):  # within an epoch, at its end
        again = train(
            tmp_path / f"again{step}", kind(rows), recipe, **options,
            resume=str(tmp_path / "whole" / f"checkpoint-{step}"),
        )  # fmt: skip
        assert_same(whole, again)
    if recipe == "paper":
        with pytest.raises(CheckpointMismatchError, match="shuffle buffer of the streamed training set 32 then, 8 now"):
            train(
                tmp_path / "other", kind(rows), recipe, **{**options, "stream_shuffle_buffer": 8},
                resume=str(tmp_path / "whole" / "checkpoint-5"),
            )  # fmt: skip


def test_the_buffer_shuffles_anew_in_each_epoch_and_keeps_every_example():
    stream = Stream(Rows([{"x": i, "label": i % 2} for i in range(40)]))
    orders = []
    for epoch in (0, 1, 0):
        part = TrainingPart(stream, 4, Processes(), buffer=10, order_seed=3)
        part.set_epoch(epoch)
        orders.append([row["aifs_index"] for row in part])
        assert all(row["x"] == row["aifs_index"] for row in part)
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == list(range(40)) != orders[0]
    # No example comes before it can have been read.
    assert all(position <= place + 10 for place, position in enumerate(orders[0]))
    assert list(shuffled(range(4), 1, torch.Generator())) == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [32, 29, 16, 5, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_parts_of_all_processes_are_those_of_accelerate(n, drop_last):
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    stream = Stream(Rows([{"x": i, "label": i % 2} for i in range(n)]))
    for rank in range(2):
        part = TrainingPart(stream, 4, Processes(rank=rank, world_size=2), drop_last=drop_last)
        theirs = BatchSamplerShard(BatchSampler(range(n), 4, drop_last), num_processes=2, process_index=rank)
        wanted = [position for batch in theirs for position in batch]
        assert [row["x"] for row in part] == wanted
        assert len(part) == len(wanted)


@pytest.mark.parametrize("kind", [Endless, Rows])
def test_max_steps_reads_no_further_than_it_needs(kind, tmp_path):
    data = kind(shortcut_data(100))
    trainer = train(tmp_path, data, max_steps=4, per_device_train_batch_size=8, gradient_accumulation_steps=2)
    assert trainer.state.global_step == 4
    assert trainer.state.epoch == 1.0
    assert len(trainer.train_dataset) == 64


class Reshuffled(Rows):
    def __init__(self, rows):
        super().__init__(rows)
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(self.passes))
        return iter([self.rows[i] for i in order.tolist()])


class Shrinking(Reshuffled):
    def __iter__(self):
        self.passes += 1
        return iter(self.rows[: -self.passes])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda rows: Reshuffled(rows), "is another one on this pass: example .* shuffle"),
        (lambda rows: Shrinking(rows), "ended after 30 examples on this pass, and had 31"),
        (lambda rows: Rows([]), "the streamed training set is empty"),
        (lambda rows: Rows([{"pixel_values": row["pixel_values"]} for row in rows]), "no label: an example needs"),
        (lambda rows: Rows([{**row, "label": 0.5} for row in rows]), "labels must be integers"),
        (lambda rows: Rows([{**row, "label": 0} for row in rows]), "all 32 labels of the training set are 0"),
        (lambda rows: Rows([{**row, "label": row["label"] * 5} for row in rows]), "must lie in"),
    ],
    ids=["reshuffled", "shrinking", "empty", "unlabelled", "fraction", "one class", "no such class"],
)
def test_what_is_no_repeatable_stream_of_labels_is_refused(data, words, tmp_path):
    with pytest.raises(InvalidInputError, match=words):
        train(tmp_path, data(shortcut_data(32)))


def test_random_augmentation_cannot_be_cached(tmp_path):
    with pytest.raises(InvalidConfigError, match="example 0 of the training set is another one each time"):
        train(tmp_path, Augmented(shortcut_data(32)), "paper", "frozen", cache_latents=True)


def test_latents_of_several_layers_are_scaled_by_a_stream_as_in_memory(tmp_path, in_order):
    rows, config = shortcut_data(64), AIFSConfig.paper(latents="multi", encoder_adapter=lora())
    memory = train(tmp_path / "a", rows, model=make_model(config))
    assert_same(memory, train(tmp_path / "b", Rows(rows), model=make_model(config)))


def test_a_method_reads_its_columns_from_a_stream(tmp_path, in_order):
    """`gdro-oracle` without drawing: group labels come from the stream's column."""
    rows, config = shortcut_data(64), AIFSConfig(recipe="erm", encoder_adapter=lora())
    options = {"method": "gdro-oracle", "balance_groups": False}
    memory = train(tmp_path / "a", datasets.Dataset.from_list(list(table(rows))), model=make_model(config), **options)
    assert_same(memory, train(tmp_path / "b", table(rows), model=make_model(config), **options))


def test_streamed_pictures_and_texts_are_processed_as_those_in_memory():
    images = pictures(["dog", "cat", "dog"])
    texts = datasets.Dataset.from_dict({"text": ["a b", "b", "a a a a a a a a"], "label": [1, 0, 1]})
    for rows, process, model in ((images, processor(), vit()), (texts, tokenizer(), bert(6))):
        with pytest.warns(UserWarning, match="were cut") if rows is texts else nullcontext():
            memory = processed(rows, process, model, "training", keep=["site"])
        stream = processed(rows.to_iterable_dataset(), process, model, "training", keep=["site"])
        assert list(stream.label_values()) == [1, 0, 1]
        for one, other in zip(memory, stream, strict=True):
            assert {name: torch.as_tensor(value).tolist() for name, value in one.items()} == {
                name: torch.as_tensor(value).tolist() for name, value in other.items()
            }


@pytest.mark.parametrize(
    ("rows", "process", "words"),
    [
        ({"text": ["a", None], "label": [0, 1]}, tokenizer, "row 1 of column 'text' of the training set holds None"),
        ({"text": ["a", "b"], "label": ["cat", "cow"]}, tokenizer, "has the label 'cow', and the model's classes are"),
        ({"text": ["a", "b"], "label": [0, 1]}, lambda: None, "pass processing_class="),
        ({"text": ["a", "b"], "label": [0, 1]}, processor, "images need an image processor"),
    ],
)
def test_streamed_rows_that_cannot_be_processed_are_named(rows, process, words):
    with pytest.raises(InvalidInputError, match=words):
        list(processed(datasets.Dataset.from_dict(rows).to_iterable_dataset(), process(), vit(), "training"))


def test_a_streamed_data_set_of_this_package_trains(tmp_path):
    from aifs_peft.data import load

    splits = load("spurious_scenes", n_train=48, n_validation=16, n_test=16, streaming=True)
    splits = splits.remove_columns("features")  # of a tabular model
    torch.manual_seed(0)
    classes = splits["train"].features["label"].num_classes
    base = ViTForImageClassification(ViTConfig(num_labels=classes, **SIZES))
    args = make_args(tmp_path, num_train_epochs=1, eval_strategy="epoch")
    config = AIFSConfig.paper(encoder_adapter=lora())
    trainer = AIFSTrainer(
        base, args, peft_config=config, train_dataset=splits["train"], eval_dataset=splits["validation"],
        processing_class=processor(),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 6
    assert any("eval_loss" in row for row in trainer.state.log_history)


def test_an_audit_of_a_stream_is_refused_by_name(tmp_path):
    trainer = train(tmp_path, Rows(shortcut_data(32)))
    with pytest.raises(InvalidInputError, match="a streamed"):
        trainer.audit()
