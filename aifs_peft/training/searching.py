"""Hyperparameter search as a part of `AIFSTrainer`; the rules are in `search.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers.trainer_utils import BestRun, default_hp_space_optuna

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training import search
from aifs_peft.training.base import TrainerBase


class SearchingTrainer(TrainerBase):
    """The part of `AIFSTrainer` that searches for settings."""

    # The arguments as they were before the search; None outside of one.
    _settings: dict[str, Any] | None = None

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As upstream; a function that gives the same model twice, trained already, is refused."""
        model: nn.Module = super().call_model_init(trial)
        if model is self._adopted:
            raise InvalidConfigError(
                "model_init returned the model of the last training again, whose adapter is trained already; build "
                "the base model and its adapter inside the function"
            )
        return model

    def hyperparameter_search(
        self,
        hp_space: search.Space | None = None,
        compute_objective: search.Objective | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        backend: str | None = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """Search with Optuna for settings, those of the method among them, without group labels.

        As in `Trainer`, with these differences. Each trial starts from the arguments as they were given and from a new
        model, made with the trial's own seed. It is judged by an evaluation of its finished model. The arguments are
        as before when the search ends: set those of `best_run.hyperparameters`, and `train()` repeats that run.

        Args:
            hp_space: the trial to a dictionary of training arguments, such as `{"alpha": trial.suggest_float(...)}` or
                `{"method_options": {...}}`; None as upstream (learning rate, epochs, seed, batch size).
            compute_objective: of an evaluation's metrics; None takes the metric by which the best model of a training
                is chosen: `metric_for_best_model`, else that of `selection` (by default the accuracy of the worst
                group that was inferred, or of the worst class where nothing was found).
            n_trials: how many.
            direction: "maximize" or "minimize", or one for each of several objectives; None goes with the default
                objective, and with one of your own is "minimize", as upstream.
            backend: "optuna" or None.
            hp_name: names a trial's run.
            **kwargs: of `optuna.create_study` and `Study.optimize`, but `n_jobs`.

        Returns:
            The best run: `run_id`, `objective` and `hyperparameters`; several runs for several objectives.

        Raises:
            InvalidConfigError: for arguments that cannot be worked with, no `model_init`, several processes, or a name
                in `hp_space` that is no training argument.
            MissingDependencyError: if Optuna is not installed.
        """
        search.check_search(self, backend, direction, kwargs)
        if compute_objective is None:
            compute_objective = search.label_free_objective(self.args, direction)
            direction = search.objective_direction(self.args)
        space = default_hp_space_optuna if hp_space is None else hp_space
        self._settings = search.settings_of(self.args)
        try:
            return super().hyperparameter_search(
                search.checked_space(space, self.args), compute_objective, n_trials, direction or "minimize", "optuna",
                hp_name, **kwargs,
            )  # fmt: skip
        finally:
            search.restore(self.args, self._settings)
            self._settings, self.hp_search_backend = None, None
