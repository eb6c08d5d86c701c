"""What an encoder that is tuned learns when, epoch by epoch: `python benchmarks/tuned_dynamics.py`.

Data, encoder and budget are those of `tuned_encoders.py`: pictures in which a digit ("dominoes") or a weak mark
("marked") goes with the class for 95 %, 2,000 of them; LoRA on the upper half of a MobileNetV2. Six epochs here, by
`erm`, `aifs` and `aifs-paper`. Before the first step, after every epoch, and once training has ended (`aifs` fits the
last layer anew then), on a test set with even cells and latents of the encoder as it then is, with the differences of
the four cells' means for the offsets of class and attribute:

- `sensitivity`, `reliance`, `core_share`, `spurious_share`, `core_alone`, `spurious_alone`, `aligned`, `conflicting`:
  as in `training_dynamics.py`; `worst`: accuracy of the worst cell;
- `core_contrast`, `spurious_contrast`, `core_variance`, `spurious_variance`, `offsets_cosine`: how large class and
  attribute are in the latents (`dynamics_measures.py`);
- `core_turned`, `spurious_turned`: cosine of the offset with what it was before the first step;
- `memorised`: accuracy on the conflicting examples of the training set;
- `directions_core`, `directions_spurious`: share of the offset, squared, in the directions that `aifs` then uses;
- `mask_change`, `mask_core`, `mask_spurious`: of `aifs-paper`'s mask, as in `training_dynamics.py`.

What the file holds is not computed again; it is written after each run. Docs: `docs/dynamics.md`, filled in by
`benchmarks/render_dynamics.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamics_measures import Cells, MaskWatch, held_by, of_decisions, of_latents, offsets, worst_cell
from dynamics_series import Pairs, half_time, save, tested
from torch import Tensor
from transformers import TrainerCallback
from transformers.utils import logging
from tuned_encoders import SCHEDULE, trainer_of
from tuned_encoders_data import ALIGNED, DATA, N_TRAIN, Draw, Half
from tuned_encoders_data import load as load_draw

from aifs_peft.experiments import provenance
from aifs_peft.training import AIFSTrainer

RESULT = Path(__file__).parent / "results" / "tuned_dynamics.json"
METHODS, CASES, SEEDS, EPOCHS, BATCH = ("erm", "aifs", "aifs-paper"), ("dominoes",), tuple(range(5)), 6, 250
# What `aifs` ends with is compared with what `erm` does.
COMPARED = (
    "core_share", "spurious_share", "core_alone", "spurious_alone", "worst", "memorised", "core_contrast",
    "spurious_contrast",
)  # fmt: skip
NAMES = (
    "sensitivity", "reliance", "core_share", "spurious_share", "core_alone", "spurious_alone", "aligned", "conflicting",
    "worst", "core_contrast", "spurious_contrast", "core_variance", "spurious_variance", "offsets_cosine",
    "core_turned", "spurious_turned", "memorised", "directions_core", "directions_spurious", "mask_change", "mask_core",
    "mask_spurious",
)  # fmt: skip


class Watcher(TrainerCallback):
    """Looks at encoder and head before the first step and after every epoch; see this module's text."""

    def __init__(self, trainer: AIFSTrainer, draw: Draw) -> None:
        self.trainer, self.draw = trainer, draw
        self.rows: list[dict[str, float]] = []
        self._at_first: tuple[Tensor, Tensor] | None = None
        self._masks = MaskWatch()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """What the method did before its first step is done: the trainer's own callback comes first."""
        self.look()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """After the method's own look."""
        self.look()

    @torch.no_grad()
    def look(self) -> None:
        """Numbers of the model as it is."""
        head, state = self.trainer.layer.head, self.trainer.layer.state
        cells = Cells(self._encode(self.draw.test), self.draw.test.labels, torch.as_tensor(self.draw.test.a))
        alpha, beta = offsets(cells)
        first = self._at_first = self._at_first or (alpha, beta)
        numbers = {
            **of_decisions(head, cells, alpha, beta),
            **of_latents(cells),
            "worst": worst_cell(head, cells),
            "core_turned": float(torch.cosine_similarity(alpha, first[0], dim=0)),
            "spurious_turned": float(torch.cosine_similarity(beta, first[1], dim=0)),
            **self._memorised(),
            **self._masks(state, *(v / v.norm() for v in (alpha, beta))),
        }
        if state.has_basis:
            numbers |= {
                "directions_core": held_by(state.basis, alpha),
                "directions_spurious": held_by(state.basis, beta),
            }
        self.rows.append({name: float(f"{value:.3g}") for name, value in numbers.items()})

    def _memorised(self) -> dict[str, float]:
        train = self.draw.train
        rows = np.flatnonzero(train.a != train.labels.numpy())
        some = Half(train.features[rows], train.labels[rows].numpy(), train.a[rows])
        logits = self.trainer.layer.head(self._encode(some))
        return {"memorised": float(logits.argmax(1).eq(some.labels).double().mean())}

    def _encode(self, half: Half) -> Tensor:
        """Latents `(n, d)` in evaluation mode; training goes on as it was."""
        model, parts = self.trainer.model, []
        modes = {module: module.training for module in model.modules()}
        model.eval()
        for start in range(0, len(half), BATCH):
            model(features=half.features[start : start + BATCH].float())
            parts.append(self.trainer.layer.take_output().z)
        for module, training in modes.items():
            module.training = training
        return torch.cat(parts)


def run(draw: Draw, method: str, seed: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """The series of one training by name, one number for each epoch from 0, and the numbers at its end.

    Args:
        draw: the data.
        method: name of the method.
        seed: of the training.
        epochs: how many.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(method, draw, seed, folder, num_train_epochs=epochs)
        watch = Watcher(trainer, draw)
        trainer.add_callback(watch)
        trainer.train()
        watch.look()
    rows, end = watch.rows[:-1], watch.rows[-1]
    names = [name for name in NAMES if any(name in row for row in rows)]
    return {"series": {name: [row.get(name) for row in rows] for name in names}, "end": end}


def questions(methods: Mapping[str, list[dict[str, Any]]]) -> Pairs:
    """Pairs of numbers over seeds, by the name of the question."""
    erm, aifs = methods["erm"], methods["aifs"]

    def end(runs: list[dict[str, Any]], name: str) -> list[float]:
        return [float(run["end"][name]) for run in runs]

    def start(runs: list[dict[str, Any]], name: str) -> list[float]:
        return [float(run["series"][name][0]) for run in runs]

    def learned(name: str) -> list[float]:
        return [half_time([float(v) - 0.5 for v in run["series"][name]], 0.9) for run in erm]

    def logs(values: list[float]) -> list[float]:
        return [math.log(value) for value in values]

    pairs = {"core accuracy later": (learned("core_alone"), learned("spurious_alone"))}
    for name in COMPARED:
        pairs[f"{name} at the end"] = (end(aifs, name), end(erm, name))
    for method, runs in (("erm", erm), ("aifs", aifs)):
        grown = {}
        for name in ("core_contrast", "spurious_contrast"):
            after, before = logs(end(runs, name)), logs(start(runs, name))
            pairs[f"log {name}, end over start, {method}"] = (after, before)
            grown[name] = [a - b for a, b in zip(after, before, strict=True)]
        pairs[f"log growth, spurious over core, {method}"] = (grown["spurious_contrast"], grown["core_contrast"])
        pairs[f"offsets_cosine, end less start, {method}"] = (
            end(runs, "offsets_cosine"),
            start(runs, "offsets_cosine"),
        )
    return pairs


def summarise(record: dict[str, Any], seeds: int) -> None:
    """Tests of `erm` and `aifs` in each complete case over its seeds, corrected for all of them together."""
    asked = {}
    for case, methods in record["runs"].items():
        runs = {method: [of[seed] for seed in sorted(of)] for method, of in methods.items()}
        if min(len(runs.get(method, [])) for method in ("erm", "aifs")) >= seeds:
            asked[case] = questions(runs)
    record["tests"] = tested(asked)


def main() -> None:
    """Run what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=CASES, choices=list(DATA))
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--cache", type=Path, help="folder for outputs of the lower half")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after that time")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    started = time.perf_counter()
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"runs": {}}
    record["settings"] = {
        "epochs": EPOCHS, "batch_size": SCHEDULE["per_device_train_batch_size"], "train": N_TRAIN, "aligned": ALIGNED,
        "learning_rate": SCHEDULE["learning_rate"], "seeds": len(SEEDS),
    }  # fmt: skip
    for case in options.cases:
        for seed in options.seeds:
            runs = record["runs"].setdefault(case, {})
            missing = [method for method in options.methods if str(seed) not in runs.get(method, {})]
            draw = load_draw(case, seed, options.cache) if missing else None
            for method in missing:
                if time.perf_counter() - started > 60 * options.minutes:
                    return
                began = time.process_time()
                runs.setdefault(method, {})[str(seed)] = run(draw, method, seed)
                record["provenance"] = provenance()
                summarise(record, len(SEEDS))
                save(record, options.out)
                print(case, method, seed, f"{time.process_time() - began:.0f} s of a core", flush=True)
    summarise(record, len(SEEDS))
    save(record, options.out)


if __name__ == "__main__":
    main()
