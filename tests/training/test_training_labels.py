"""Labels of every split are checked before anything is trained or evaluated on them."""

import datasets
import numpy as np
import pytest
import torch
from training_zoo import make_data, make_trainer

from aifs_peft.errors import InvalidInputError
from aifs_peft.training.labels import check_labels, find_labels, read_labels
from aifs_peft.tuner import AIFSConfig


def relabelled(rows, label, share=4):
    """Every `share`-th example with another label; `None` takes it away."""
    out = []
    for i, row in enumerate(rows):
        row = dict(row)
        if i % share == 1:
            row.pop("label")
            if label is not None:
                row["label"] = label
        out.append(row)
    return out


def as_table(rows):
    return datasets.Dataset.from_dict(
        {"pixel_values": [row["pixel_values"].tolist() for row in rows], "label": [row.get("label") for row in rows]}
    ).with_format("torch", columns=["pixel_values", "label"])


class Lazy(torch.utils.data.Dataset):
    """Neither a list nor a table: its labels are read example by example."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


# A label that is wrong, and what is said of it.
WRONG = {
    "ignored": (-100, "4 of 16 examples are labelled -1 or -100"),
    "hidden": (-1, "4 of 16 examples are labelled -1 or -100"),
    "out of range": (5, r"must lie in \[0, 2\), got \[0, 5\]"),
    "fraction": (0.5, "example 1 of the .* set has 0.5"),
    "nan": (float("nan"), "example 1 of the .* set has nan"),
    "text": ("cat", "example 1 of the .* set has 'cat'"),
    "several": ([1, 0], r"example 1 of the .* set has \[1, 0\]"),
    "missing": (None, "example 1 of the .* set has no label"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("split", ["training", "evaluation"])
@pytest.mark.parametrize("make", [list, Lazy], ids=["list", "lazy"])
def test_a_wrong_label_is_named_before_training(tmp_path, kind, split, make):
    label, message = WRONG[kind]
    rows, wrong = make_data(16), make(relabelled(make_data(16), label))
    data, held_out = (wrong, rows) if split == "training" else (rows, wrong)
    trainer = make_trainer(tmp_path, data=data, eval_dataset=held_out, eval_strategy="epoch")
    with pytest.raises(InvalidInputError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("label", [-100, -1, 5, 0.5])
def test_a_wrong_label_in_a_table_is_named(tmp_path, label):
    rows = make_data(16)
    wrong = as_table(relabelled(rows, label))
    trainer = make_trainer(tmp_path, data=rows, eval_dataset=wrong)
    with pytest.raises(InvalidInputError, match="evaluation set"):
        trainer.train()
    with pytest.raises(InvalidInputError):
        trainer.evaluate(wrong)
    with pytest.raises(InvalidInputError):
        trainer.predict(wrong)


@pytest.mark.parametrize("label", [-1, -100, None])
@pytest.mark.parametrize("make", [list, Lazy, as_table], ids=["list", "lazy", "table"])
def test_a_set_without_labels_fails_what_needs_them_and_nothing_else(tmp_path, label, make):
    rows = make_data(12)
    hidden = [{"pixel_values": row["pixel_values"], **({} if label is None else {"label": label})} for row in rows]
    hidden = make(hidden) if make is not as_table or label is not None else as_table(hidden).remove_columns("label")
    trainer = make_trainer(tmp_path, AIFSConfig(recipe="erm"), rows)
    trainer.train()
    output = trainer.predict(hidden)
    np.testing.assert_array_equal(output.predictions, trainer.predict(rows).predictions)
    assert output.label_ids is None
    assert not any("loss" in name or "accuracy" in name for name in output.metrics)
    with pytest.raises(InvalidInputError, match=r"use trainer\.predict for a set whose labels are hidden"):
        trainer.evaluate(hidden)
    needs = make_trainer(tmp_path, AIFSConfig(recipe="erm"), rows, eval_dataset=hidden, eval_strategy="epoch")
    with pytest.raises(InvalidInputError, match="the evaluation set has no labels"):
        needs.train()
    # Where nothing is evaluated an unlabelled set does no harm.
    make_trainer(tmp_path, AIFSConfig(recipe="erm"), rows, eval_dataset=hidden).train()


def test_labelled_predictions_come_with_the_metrics_of_an_evaluation(tmp_path):
    rows = make_data(24)
    trainer = make_trainer(tmp_path, AIFSConfig(recipe="erm"), rows)
    trainer.train()
    metrics, wanted = trainer.predict(rows).metrics, trainer.evaluate(rows)
    for name in ("loss", "accuracy", "worst_class_accuracy", "worst_inferred_group_accuracy"):
        assert metrics[f"test_{name}"] == wanted[f"eval_{name}"]


def test_labels_of_a_streamed_set_are_checked_batch_by_batch(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __init__(self, rows):
            self.rows = rows

        def __iter__(self):
            return iter(self.rows)

    rows = make_data(16)
    trainer = make_trainer(tmp_path, data=rows)
    assert trainer.evaluate(Stream(rows))["eval_accuracy"] == trainer.evaluate(rows)["eval_accuracy"]
    with pytest.raises(InvalidInputError, match="labelled -1 or -100"):
        trainer.evaluate(Stream(relabelled(rows, -100)))


def test_labels_are_whole_numbers_of_any_type():
    tensors = [torch.tensor(1), torch.tensor([0])]
    for values in ([1, 0], [True, False], [1.0, 0.0], [np.int8(1), np.float32(0)], [np.True_, np.False_], tensors):
        assert read_labels([{"label": value} for value in values]).tolist() == [1, 0]
    assert find_labels([{"label": -1}, {"label": -100}]) is None
    assert find_labels([{"label": -1}, {"label": 0}]).tolist() == [-1, 0]
    check_labels(torch.tensor([1, 1]), 2, several=False)
    with pytest.raises(InvalidInputError, match="the evaluation set is empty"):
        read_labels([], "evaluation")


WHOLE = {
    "floats": float,
    "float16": np.float16,
    "NumPy integers": np.int64,
    "NumPy booleans": np.bool_,
    "booleans": bool,
    "tensors": torch.tensor,
    "tensors of floats": lambda i: torch.tensor(float(i)),
}


@pytest.mark.parametrize("make", [list, Lazy], ids=["list", "lazy"])
@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_of_any_type_train_and_evaluate_alike(tmp_path, kind, make):
    """`transformers`' collator makes floats of whatever is no `int`."""
    rows = make_data(16)
    other = make([{**row, "label": WHOLE[kind](row["label"])} for row in rows])
    seen = []

    def metrics(prediction):
        seen.append(prediction.label_ids)
        return {}

    found = []
    for data in (rows, other):
        trainer = make_trainer(
            tmp_path, AIFSConfig(recipe="erm"), data, eval_dataset=data, compute_metrics=metrics, num_train_epochs=1
        )
        trainer.train()
        found.append((trainer.state.log_history[0]["loss"], trainer.evaluate()["eval_loss"]))
    assert found[0] == found[1]
    assert seen[0].dtype.kind == seen[1].dtype.kind == "i"
    np.testing.assert_array_equal(*seen)


UNKNOWN = {"-1": -1, "None": None, "NaN": float("nan")}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_unknown_value_of_an_evaluation_column_is_minus_one(tmp_path, kind):
    rows = [{**row, "group": UNKNOWN[kind] if i < 3 else row["group"]} for i, row in enumerate(make_data(12))]
    trainer = make_trainer(tmp_path, AIFSConfig(recipe="erm"), make_data(12), evaluation_columns=["group"])
    _, groups = trainer.predict(rows).label_ids
    assert groups.tolist() == [-1] * 3 + [row["group"] for row in make_data(12)][3:]


@pytest.mark.parametrize("value", ["north", "", 0.5])
def test_an_evaluation_column_of_names_is_refused(tmp_path, value):
    rows = [{**row, "group": value} for row in make_data(12)]
    trainer = make_trainer(tmp_path, AIFSConfig(recipe="erm"), make_data(12), evaluation_columns=["group"])
    with pytest.raises(InvalidInputError, match="the evaluation column 'group' must hold integers or booleans"):
        trainer.predict(rows)
