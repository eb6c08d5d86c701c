"""The choice of a method's numbers: a budget of settings, Optuna's draws, and rules that read no group labels.

The oracle's rule, by the true groups of the validation split, is scored beside the others on the same fits: what it
chooses is a bound, and stands in a column of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.bench.draws import Draw
from aifs_peft.bench.experiment import ORACLE, Experiment, MethodEntry
from aifs_peft.bench.frozen import Fitted
from aifs_peft.bench.space import suggest, tuned
from aifs_peft.errors import AIFSError, MissingDependencyError

# Cells with fewer validation examples do not vote: of inferred groups, and of true ones.
_SMALLEST = {"worst_inferred_group": 10, ORACLE: 5}
# Optuna's sampler draws at random so often before it learns from what it saw.
_RANDOM_TRIALS = 4
NO_OPTUNA = "settings are drawn by Optuna, which is not installed; pip install 'aifs_peft[search]'"


@dataclass
class Trial:
    """One setting that was tried.

    Args:
        setting: its numbers, by part.
        scores: on the validation split, by rule; empty where the fit failed.
        failed: why it did.
        fitted: the fit; let go of where no rule chose it.
    """

    setting: dict[str, dict[str, Any]]
    scores: dict[str, float] = field(default_factory=dict)
    failed: str | None = None
    fitted: Fitted | None = None


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Args:
        trials: in the order in which they were tried.
        best: by the rule of the experiment; None where every trial failed.
        oracle: by the true groups of the validation split.
    """

    trials: list[Trial]
    best: Trial | None
    oracle: Trial | None


def choose(
    experiment: Experiment, entry: MethodEntry, draw: Draw, fit: Callable[[dict[str, dict[str, Any]]], Fitted]
) -> Choice:
    """Try as many settings as the budget has, the method's defaults first.

    Args:
        experiment: its budget, rule and schedule.
        entry: the method.
        draw: for its validation split; the test split is not looked at.
        fit: from a setting to a fit.

    Raises:
        MissingDependencyError: Optuna is not installed.
    """
    fixed = fixed_of(experiment, entry)
    trials: list[Trial] = []
    best: dict[str, Trial] = {}
    for setting, tell in _settings(experiment, entry, draw, fixed):
        trial = Trial(setting)
        trials.append(trial)
        try:
            trial.fitted = fit(setting)
        except AIFSError as error:
            trial.failed = " ".join(str(error).split())
        else:
            trial.scores = scores(trial.fitted.logits["validation"], draw)
            for rule in (experiment.selection, ORACLE):
                # The first of equal ones stays: settings near the defaults come first.
                if rule not in best or trial.scores[rule] > best[rule].scores[rule]:
                    best[rule] = trial
        tell(trial.scores.get(experiment.selection))
        for other in trials:
            if other not in best.values():
                other.fitted = None
    return Choice(trials, best.get(experiment.selection), best.get(ORACLE))


def fixed_of(experiment: Experiment, entry: MethodEntry) -> dict[str, dict[str, Any]]:
    """What is fixed of a method's numbers, by part.

    Args:
        experiment: for the schedule of all.
        entry: the method, whose own schedule wins.
    """
    schedule = {} if entry.closed else {**experiment.schedule, **entry.schedule}
    return {"schedule": schedule, "options": dict(entry.options), "settings": dict(entry.settings)}


def trials_of(experiment: Experiment, entry: MethodEntry) -> int:
    """How many fits a run of a method is.

    Args:
        experiment: its budget.
        entry: the method.
    """
    nothing = entry.closed or not entry.tune
    free = [] if nothing else tuned(entry.method, experiment.regime, fixed_of(experiment, entry))
    return experiment.budget if free else 1


def scores(logits: NDArray[np.float64], draw: Draw) -> dict[str, float]:
    """What each rule looks at, on the validation split.

    Args:
        logits: `(n, K)`.
        draw: whose validation split it is.
    """
    part = draw.parts["validation"]
    right = logits.argmax(axis=1) == part.y
    return {
        "average": float(right.mean()),
        "worst_class": _worst(right, part.y, 1),
        "worst_inferred_group": _worst(right, 2 * part.y + draw.inferred, _SMALLEST["worst_inferred_group"]),
        ORACLE: _worst(right, part.groups, _SMALLEST[ORACLE]),
    }


def _worst(right: NDArray[np.bool_], cells: NDArray[np.int64], smallest: int) -> float:
    """Lowest accuracy over cells of at least `smallest` examples; the average where there is none."""
    sizes = np.bincount(cells)
    kept = np.flatnonzero(sizes >= smallest)
    return float(min((right[cells == cell].mean() for cell in kept), default=right.mean()))


def _settings(
    experiment: Experiment, entry: MethodEntry, draw: Draw, fixed: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[dict[str, dict[str, Any]], Callable[[float | None], None]]]:
    """Settings one by one, each with what is told its score."""
    yield {part: dict(values) for part, values in fixed.items()}, lambda _score: None
    number = trials_of(experiment, entry)
    if number == 1:
        return
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(NO_OPTUNA) from error
    with _quiet(optuna):
        sampler = optuna.samplers.TPESampler(seed=draw.seed, n_startup_trials=_RANDOM_TRIALS)
        study = optuna.create_study(direction="maximize", sampler=sampler)
    failed = optuna.trial.TrialState.FAIL
    for _ in range(number - 1):
        trial = study.ask()

        def tell(score: float | None, trial: Any = trial) -> None:
            study.tell(trial, score, state=failed if score is None else None)

        yield suggest(trial, entry.method, experiment.regime, fixed), tell


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's line on a new study."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
