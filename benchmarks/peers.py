"""The same latents and splits through other packages: fairlearn's reductions, and scikit-learn.

    AIFS_SHARED=DIR python benchmarks/peers.py [--data dominoes] [--minutes 4]

Draws, latents and metrics are those of `aifs bench`; every peer sees the principal coordinates in which the own
methods are trained on latents, and has its own defaults (logistic regression: C by the worst class on three
folds, as much tuning as `erm-closed` does itself). No peer sees a group label but fairlearn's, which read the true
attribute of every training example, and `thresholds`, which reads it of every test example, too. One row per run in
`benchmarks/results/peers.json`, rewritten after each; rows that are there are kept. SpuCo's methods are not here: it
needs torchvision and WILDS, which this project does not install.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, EqualizedOdds, ExponentiatedGradient
from numpy.typing import NDArray
from over_seeds import over_seeds
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, recall_score
from sklearn.model_selection import GridSearchCV

from aifs_peft.bench import read_experiment
from aifs_peft.bench.draws import Draw, load_draw
from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.experiments import provenance
from aifs_peft.experiments.evaluation import evaluate_groups

HERE = Path(__file__).parent
SHOWN = ("worst_group_accuracy", "average_accuracy", "equal_opportunity_difference")
Array = NDArray[Any]
Predict = Callable[[Array, Array], Array]


def coordinates(draw: Draw) -> dict[str, Array]:
    """Principal coordinates with one common scale, as `AIFSClassifier` gives them to training methods."""
    reduction = principal_components(draw.parts["train"].Z, rng=np.random.default_rng(draw.seed))
    scale = reduction.scale / np.sqrt(np.mean(reduction.scale**2))
    return {name: reduction.transform(part.Z) * scale for name, part in draw.parts.items()}


def logistic() -> Any:
    """What fairlearn's reductions train again and again."""
    return LogisticRegression(C=0.1, max_iter=300)


def tuned_logistic(X: Array, y: Array, a: Array, *, weight: str | None = None) -> Predict:
    """C by the worst class on held-out folds."""
    del a
    worst = make_scorer(lambda true, said: recall_score(true, said, average=None, zero_division=0.0).min())
    grid = {"C": [1e-3, 1e-2, 1e-1, 1.0]}
    search = GridSearchCV(LogisticRegression(max_iter=300, class_weight=weight), grid, scoring=worst, cv=3).fit(X, y)
    return lambda X, _a: search.predict(X)


def plain(model: Any) -> Callable[[Array, Array, Array], Predict]:
    """A classifier of scikit-learn at its defaults."""

    def fit(X: Array, y: Array, a: Array) -> Predict:
        del a
        model.fit(X, y)
        return lambda X, _a: model.predict(X)

    return fit


def reduction(constraint: Any) -> Callable[[Array, Array, Array], Predict]:
    """Agarwal et al. 2018, by exponentiated gradient: the attribute is read in training alone."""

    def fit(X: Array, y: Array, a: Array) -> Predict:
        model = ExponentiatedGradient(logistic(), constraint(), max_iter=15)
        model.fit(X, y, sensitive_features=a)
        return lambda X, _a: model.predict(X, random_state=0)

    return fit


def thresholds(X: Array, y: Array, a: Array) -> Predict:
    """Hardt et al. 2016: thresholds per attribute value, which it reads at test time."""
    model = ThresholdOptimizer(estimator=logistic(), constraints="equalized_odds", predict_method="predict_proba")
    model.fit(X, y, sensitive_features=a)
    return lambda X, a: model.predict(X, sensitive_features=a, random_state=0)


PEERS: dict[str, tuple[str, Callable[[Array, Array, Array], Predict]]] = {
    "scikit-learn logistic regression": ("none", tuned_logistic),
    "the same, balanced classes": ("none", lambda X, y, a: tuned_logistic(X, y, a, weight="balanced")),
    "scikit-learn discriminant analysis": (
        "none",
        plain(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
    ),
    "scikit-learn gradient boosting": ("none", plain(HistGradientBoostingClassifier(max_iter=50))),
    "fairlearn equalized odds": ("of training", reduction(EqualizedOdds)),
    "fairlearn demographic parity": ("of training", reduction(DemographicParity)),
    "fairlearn thresholds": ("of training and test", thresholds),
}
OURS = {"AIFSClassifier()": "discovery", 'AIFSClassifier("erm")': "erm"}


def one(name: str, draw: Draw, X: dict[str, Array]) -> dict[str, float]:
    """One row."""
    train, test = draw.parts["train"], draw.parts["test"]
    started, before = time.perf_counter(), time.process_time()
    if name in OURS:
        clf = AIFSClassifier(OURS[name], random_state=draw.seed).fit(train.Z, train.y)
        seconds, used = time.perf_counter() - started, time.process_time() - before
        said = np.asarray(clf.predict(test.Z))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of iterations that end at their limit
            predict = PEERS[name][1](X["train"], train.y, train.a)
            seconds, used = time.perf_counter() - started, time.process_time() - before
            said = np.asarray(predict(X["test"], test.a)).astype(np.int64)
    logits = np.eye(int(train.y.max()) + 1)[said]
    metrics = evaluate_groups(draw.splits["test"], logits, train=draw.splits["train"])
    return {
        **{key: round(float(metrics[key]), 4) for key in SHOWN},
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
    }


def write(record: dict[str, Any], path: Path) -> None:
    """The file, with what is derived of its rows."""
    labels = {name: groups for name, (groups, _) in PEERS.items()} | dict.fromkeys(OURS, "none")
    names = (*SHOWN, "seconds", "cpu_seconds")
    record |= {"group_labels": labels, "summary": over_seeds(record["rows"], names)}
    path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def main() -> None:
    """Do the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=HERE / "experiments" / "frozen.json")
    parser.add_argument("--data", nargs="+", default=["dominoes"], help="data sets of the experiment")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--cache", type=Path, default=Path("runs/bench_latents"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "peers.json")
    options = parser.parse_args()
    experiment = read_experiment(options.experiment).only(options.data)
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    ends = time.monotonic() + 60 * options.minutes
    for data in experiment.data:
        for seed in experiment.seeds:
            missing = [n for n in (*OURS, *PEERS) if f"{data.name}/{n}/{seed}" not in record["rows"]]
            draw = load_draw(data, seed, options.cache) if missing else None
            X = coordinates(draw) if draw is not None else {}
            for name in missing:
                if time.monotonic() > ends:
                    return
                assert draw is not None
                row = record["rows"][f"{data.name}/{name}/{seed}"] = one(name, draw, X)
                record["provenance"] = provenance()
                write(record, options.out)
                print(data.name, name, seed, row, flush=True)
    write(record, options.out)


if __name__ == "__main__":
    main()
