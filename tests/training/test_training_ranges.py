"""Numbers of transformers' own arguments that it takes as they are: each out of its range is refused by name."""

import pytest

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training import AIFSTrainingArguments
from aifs_peft.training.arguments import _RANGES

WRONG = [(name, low - 1) for name, (low, _, _) in _RANGES.items()]
WRONG += [(name, float("nan")) for name in _RANGES]
WRONG += [(name, 1.5) for name, (_, whole, _) in _RANGES.items() if whole]
WRONG += [("num_train_epochs", 0), ("learning_rate", float("inf"))]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_number_out_of_its_range_is_refused(name, value, tmp_path):
    with pytest.raises(InvalidConfigError, match=name):
        AIFSTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{name: value})


def test_limits_themselves_are_taken(tmp_path):
    least = {name: low for name, (low, _, _) in _RANGES.items() if name not in ("num_train_epochs", "logging_steps")}
    least |= {"eval_steps": 1, "save_steps": 1, "dataloader_prefetch_factor": None}
    args = AIFSTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **least)
    assert args.learning_rate == 0
    assert args.num_train_epochs == 3


def test_no_epochs_are_fine_where_steps_are_given(tmp_path):
    args = AIFSTrainingArguments(output_dir=str(tmp_path), use_cpu=True, num_train_epochs=0, max_steps=3)
    assert args.max_steps == 3
