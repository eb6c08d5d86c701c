"""`hyperparameter_search` and `model_init`: every trial from nothing, judged without group labels, repeatable."""

import os
import subprocess
import sys

import optuna
import pytest
import torch
from training_zoo import assert_equal, lora, make_args, make_model, shortcut_data, trained

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training import AIFSTrainer
from aifs_peft.training import search as search_module
from aifs_peft.tuner import AIFSConfig

WORST = "eval_worst_inferred_group_accuracy"


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Noted(AIFSTrainer):
    """Keeps what each training came to."""

    def train(self, *given, **options):
        out = super().train(*given, **options)
        self.runs = [*getattr(self, "runs", []), (trained(self.model), self.evaluate(), self.state.global_step)]
        return out


def searcher(folder, init=None, data=None, cls=Noted, **options):
    """A trainer whose models come from `init`."""

    def build():
        return make_model(AIFSConfig(encoder_adapter=lora()))

    extra = {name: options.pop(name) for name in ("peft_config",) if name in options}
    args = make_args(folder, **{"num_train_epochs": 2, "per_device_train_batch_size": 16, **options})
    data = shortcut_data(80) if data is None else data
    return cls(None, args, train_dataset=data, eval_dataset=shortcut_data(60, seed=1, rate=4),
               model_init=init or build, **extra)  # fmt: skip


def space(trial):
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True),
        "alpha": trial.suggest_categorical("alpha", [0.0, 1.0]),
        "seed": trial.suggest_int("seed", 1, 99),
    }


def sampler():
    return optuna.samplers.RandomSampler(seed=0)


def test_each_trial_begins_from_nothing_and_the_best_one_can_be_repeated(tmp_path):
    trainer = searcher(tmp_path / "search")
    before = trainer.args.to_dict()
    best = trainer.hyperparameter_search(space, n_trials=3, backend="optuna", sampler=sampler())
    assert trainer.args.to_dict() == before
    assert len(trainer.runs) == 3
    values = [metrics[WORST] for _, metrics, _ in trainer.runs]
    assert best.objective == max(values)
    assert {steps for _, _, steps in trainer.runs} == {10}
    # The same run, alone and in a new trainer, and again in the one that searched.
    alone = searcher(tmp_path / "alone", **best.hyperparameters)
    alone.train()
    chosen = trainer.runs[int(best.run_id)]
    assert_equal(alone.runs[0][0], chosen[0])
    for name, value in best.hyperparameters.items():
        setattr(trainer.args, name, value)
    trainer.train()
    assert_equal(trainer.runs[-1][0], chosen[0])
    assert trainer.evaluate()[WORST] == best.objective


def test_what_one_trial_sets_another_does_not_inherit(tmp_path):
    def odd(trial):
        return {"num_train_epochs": 1, "alpha": 0.0} if trial.number == 0 else {"learning_rate": 1e-3}

    trainer = searcher(tmp_path, num_train_epochs=2)
    trainer.hyperparameter_search(odd, n_trials=2)
    assert [steps for _, _, steps in trainer.runs] == [5, 10]
    assert trainer.method.settings.alpha == AIFSConfig().alpha


def test_the_settings_of_the_method_are_searched_and_unknown_names_are_refused(tmp_path):
    def of_the_method(trial):
        return {"method": "jtt", "method_options": {"lambda_up": trial.suggest_int("up", 2, 4)}}

    def build():
        return make_model(AIFSConfig(recipe="erm"))

    trainer = searcher(tmp_path, build)
    trainer.hyperparameter_search(of_the_method, n_trials=1)
    assert trainer.method.options.lambda_up in (2, 3, 4)
    with pytest.raises(InvalidConfigError, match=r"hp_space sets no training argument 'lr' .*did you mean|known"):
        trainer.hyperparameter_search(lambda trial: {"lr": 0.1}, n_trials=1)
    with pytest.raises(InvalidConfigError, match="mask_update_every must be an integer of at least 1"):
        trainer.hyperparameter_search(lambda trial: {"mask_update_every": 0}, n_trials=1)
    assert trainer.args.mask_update_every == 1
    trainer.train()  # works after a search that failed


def test_a_method_that_finishes_after_training_is_judged_when_it_has(tmp_path):
    def build():
        return make_model(AIFSConfig(recipe="erm"))

    trainer = searcher(
        tmp_path, build, method="afr", method_options={"steps": 30}, eval_strategy="epoch", num_train_epochs=1
    )
    best = trainer.hyperparameter_search(lambda trial: {"learning_rate": 0.02}, n_trials=1)
    assert best.objective == trainer.runs[0][1][WORST]


def test_a_bare_model_init_with_a_configuration_and_one_that_reads_the_trial(tmp_path):
    def bare(trial):
        torch.manual_seed(0)
        rank = 4 if trial is None else trial.suggest_categorical("r", [2])
        base = make_model(AIFSConfig()).unload()
        base.config.note = rank
        return base

    trainer = searcher(tmp_path, bare, peft_config=lora(), num_train_epochs=1)
    assert trainer.adapted.config.note == 4
    trainer.hyperparameter_search(lambda trial: {}, n_trials=1)
    trainer.train()
    assert trainer.layer.state.num_updates > 0


def test_objective_and_direction(tmp_path):
    trainer = searcher(tmp_path, selection="average")
    metrics = {"eval_loss": 0.3, "eval_accuracy": 0.9, WORST: 0.5}
    assert search_module.label_free_objective(trainer.args, None)(metrics) == 0.9
    by_loss = make_args(tmp_path, metric_for_best_model="loss")
    assert search_module.label_free_objective(by_loss, "minimize")(metrics) == 0.3
    assert search_module.objective_direction(by_loss) == "minimize"
    with pytest.raises(InvalidConfigError, match="direction='minimize' was given, and the objective"):
        trainer.hyperparameter_search(space, n_trials=1, direction="minimize")
    best = trainer.hyperparameter_search(
        space, lambda metrics: metrics["eval_loss"], n_trials=2, direction="minimize", sampler=sampler()
    )
    assert best.objective == min(m["eval_loss"] for _, m, _ in trainer.runs)
    front = trainer.hyperparameter_search(
        space, lambda m: (m["eval_loss"], m["eval_accuracy"]), n_trials=1, direction=["minimize", "maximize"]
    )
    assert len(front[0].objective) == 2


# What is asked for -> (what the trainer has instead, arguments of the search, first words of the error).
REFUSED = {
    "another backend": ({}, {"backend": "ray"}, "backend must be one of 'optuna'; got 'ray'"),
    "`n_jobs` above 1": ({}, {"n_jobs": 2}, "n_jobs=2 would run trials in threads that share this one trainer"),
    "a direction that is none": (
        {},
        {"direction": "maximise"},
        "direction must be one of 'maximize', 'minimize', None",
    ),
    'the default objective with `direction="minimize"`': (
        {},
        {"direction": "minimize"},
        "direction='minimize' was given, and the objective is 'eval_worst_inferred_group_accuracy'",
    ),
    "a trainer without `model_init`": (
        {"model_init": None},
        {},
        "hyperparameter_search trains a new model in every trial",
    ),
    "a trainer without an evaluation set": ({"eval_dataset": None}, {}, "a trial is judged on an evaluation set"),
    "a name that is no training argument": (
        {},
        {"hp_space": lambda trial: {"learning_rte": 0.1}},
        "hp_space sets no training argument 'learning_rte' (did you mean 'learning_rate'?)",
    ),
    "two processes": ({"args": "two processes"}, {}, "hyperparameter_search runs its trials in one process"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_searched_is_refused(tmp_path, name):
    change, options, words = REFUSED[name]
    trainer = searcher(tmp_path)
    for attribute, value in change.items():
        if attribute == "args":

            class Two(type(trainer.args)):
                world_size = 2

            trainer.args.__class__ = Two
        else:
            setattr(trainer, attribute, value)
    with pytest.raises(InvalidConfigError) as raised:
        trainer.hyperparameter_search(**{"hp_space": space, "n_trials": 1, **options})
    assert str(raised.value).startswith(words)
    assert not hasattr(trainer, "runs")


@pytest.mark.filterwarnings("ignore:You are trying to modify|Already found a `peft_config`")
def test_a_model_that_is_trained_already_is_no_new_one(tmp_path):
    model = make_model(AIFSConfig())
    trainer = searcher(tmp_path, lambda: model)
    with pytest.raises(InvalidConfigError, match="model_init returned the model of the last training again"):
        trainer.train()
    # A base model that is built once and given an adapter each time: PEFT warns, and the adapter is a new one.
    base = make_model(AIFSConfig()).unload()
    again = searcher(tmp_path, lambda: base, peft_config=lora())
    again.train()
    again.train()
    assert_equal(again.runs[0][0], again.runs[1][0])


def test_importing_the_trainer_needs_no_optuna():
    code = "import sys; from aifs_peft import AIFSTrainer; assert 'optuna' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# What works -> its test, for `docs/compatibility.md`.
WORKS = {
    "`model_init`, of no argument or of the trial; with `peft_config` it may build the bare model": (
        test_a_bare_model_init_with_a_configuration_and_one_that_reads_the_trial
    ),
    "every trial begins from nothing; `train()` with the best trial's settings repeats it bit for bit": (
        test_each_trial_begins_from_nothing_and_the_best_one_can_be_repeated
    ),
    "what one trial sets another does not inherit": test_what_one_trial_sets_another_does_not_inherit,
    "settings of the method: `alpha`, `method`, `method_options`, ...": (
        test_the_settings_of_the_method_are_searched_and_unknown_names_are_refused
    ),
    "methods that change the model after the last step are judged when they have": (
        test_a_method_that_finishes_after_training_is_judged_when_it_has
    ),
    "the metric of `selection` as default objective; your own, also several": test_objective_and_direction,
}
