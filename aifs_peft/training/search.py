"""Hyperparameter search: every trial begins from nothing, and is judged by a metric that needs no group labels."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from peft import PeftConfig
from torch import nn
from transformers import Trainer

from aifs_peft._checks import check_choice, check_names
from aifs_peft.errors import InvalidConfigError, MissingDependencyError
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.from_names import build_model
from aifs_peft.training.selection import SELECTION_METRICS

if TYPE_CHECKING:
    import optuna

Space = Callable[["optuna.Trial"], dict[str, Any]]
Objective = Callable[[dict[str, float]], float]


def check_search(trainer: Trainer, backend: str | None, directions: Any, options: Mapping[str, Any]) -> None:
    """Refuse a search that cannot be made.

    Args:
        trainer: that would run the trials.
        backend: as the user gave it.
        directions: "maximize", "minimize", a list of them, or None.
        options: what else was given for the backend.

    Raises:
        InvalidConfigError: naming the argument.
        MissingDependencyError: if Optuna is not installed.
    """
    if backend is not None:
        name = getattr(backend, "value", backend)
        check_choice("backend", name, ["optuna"])
    if find_spec("optuna") is None:
        raise MissingDependencyError("hyperparameter_search needs Optuna: pip install 'aifs_peft[search]'")
    if trainer.model_init is None:
        raise InvalidConfigError(
            "hyperparameter_search trains a new model in every trial, and this trainer has one that was made before; "
            "pass AIFSTrainer(model_init=...), a function that builds it"
        )
    if trainer.args.world_size > 1:
        raise InvalidConfigError(
            f"hyperparameter_search runs its trials in one process, and there are {trainer.args.world_size}; start it "
            "without torchrun, and train the best trial's settings on all of them"
        )
    if options.get("n_jobs", 1) != 1:
        raise InvalidConfigError(
            f"n_jobs={options['n_jobs']} would run trials in threads that share this one trainer; leave it at 1, and "
            "give several processes one study: storage=..., study_name=..., load_if_exists=True"
        )
    if trainer.eval_dataset is None:
        raise InvalidConfigError("a trial is judged on an evaluation set; pass AIFSTrainer(eval_dataset=...)")
    for direction in [directions] if isinstance(directions, str) or directions is None else directions:
        check_choice("direction", direction, ["maximize", "minimize", None])


def label_free_objective(args: AIFSTrainingArguments, direction: Any) -> Objective:
    """The metric that also chooses the best model of a training: `metric_for_best_model`, else that of `selection`.

    Args:
        args: of the trainer.
        direction: as the user gave it; None goes with the metric.

    Returns:
        A function of an evaluation's metrics.

    Raises:
        InvalidConfigError: for a direction that would look for the worst trial.

    Example:
        >>> args = AIFSTrainingArguments(output_dir="run", use_cpu=True)
        >>> label_free_objective(args, None)({"eval_loss": 0.4, "eval_worst_inferred_group_accuracy": 0.75})
        0.75
    """
    name = args.metric_for_best_model or SELECTION_METRICS[args.selection]
    name = name if name.startswith("eval_") else f"eval_{name}"
    wanted = objective_direction(args)
    if direction not in (None, wanted):
        raise InvalidConfigError(
            f"direction={direction!r} was given, and the objective is {name!r}, for which it is {wanted!r}; leave it "
            "out, or pass compute_objective=..., a function of the metrics"
        )

    def objective(metrics: dict[str, float]) -> float:
        check_names([name], metrics, "the objective is the metric")
        return metrics[name]

    return objective


def objective_direction(args: AIFSTrainingArguments) -> str:
    """Whether more of the default objective is better.

    Args:
        args: of the trainer.
    """
    if args.metric_for_best_model is None:
        return "maximize"
    greater = args.greater_is_better
    if greater is None:
        greater = not args.metric_for_best_model.endswith("loss")
    return "maximize" if greater else "minimize"


def checked_space(space: Space, args: AIFSTrainingArguments) -> Space:
    """The search space; a name that is no training argument is refused, where upstream goes on without it.

    Args:
        space: of the user.
        args: of the trainer.
    """
    known = [field.name for field in dataclasses.fields(args)]

    def checked(trial: optuna.Trial) -> dict[str, Any]:
        found = space(trial)
        check_names(found, known, "hp_space sets no training argument")
        return found

    return checked


def settings_of(args: AIFSTrainingArguments) -> dict[str, Any]:
    """Every field of the arguments, to begin each trial with.

    Args:
        args: of the trainer.
    """
    return {field.name: copy.copy(getattr(args, field.name)) for field in dataclasses.fields(args)}


def restore(args: AIFSTrainingArguments, settings: Mapping[str, Any]) -> None:
    """Take back what a trial has set.

    Args:
        args: of the trainer.
        settings: what `settings_of` gave.
    """
    for name, value in settings.items():
        setattr(args, name, copy.copy(value))


def adapting(model_init: Callable[..., nn.Module], peft_config: PeftConfig) -> Callable[..., nn.Module]:
    """A function that builds a bare model, as one that builds it with an adapter.

    Args:
        model_init: of the user, of no argument or of the trial.
        peft_config: an `AIFSConfig`, or the configuration of the encoder's adapter.
    """
    takes_trial = bool(inspect.signature(model_init).parameters)

    def build(trial: Any = None) -> nn.Module:
        model, _ = build_model(model_init(trial) if takes_trial else model_init(), peft_config, None, None)
        assert model is not None  # noqa: S101 - it is None for None alone
        return model

    return build
