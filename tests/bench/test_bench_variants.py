"""Every variant of the ablations, the strength sweep and the group labels can be run, and is another training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_experiment import write_experiment

from aifs_peft.bench import read_experiment
from aifs_peft.bench.choosing import fixed_of
from aifs_peft.bench.draws import Draw, load_draw
from aifs_peft.bench.frozen import fit_frozen

EXPERIMENTS = Path(__file__).parents[2] / "benchmarks" / "experiments"
# Variants that are the same training on these data, where one of the two parts has nothing to do.
ALIKE = {
    # Sixteen labelled examples lack a group, and the validation split has fewer than 256.
    "group_labels": [
        ["dfr.0", "dfr.16", "gdro.0", "gdro.16"],
        ["dfr.256", "dfr.1000000"],
        ["gdro.256", "gdro.1000000"],
    ],
}
NAMES = ("ablate_recipe", "ablate_gradient", "ablate_discovery", "strength", "group_labels")


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """Latents in which a class is plain to see, and a shortcut plainer."""
    folder = tmp_path_factory.mktemp("bench")
    latents, rng = folder / "latents", np.random.default_rng(0)
    latents.mkdir()
    for split, n in (("train", 1200), ("test", 300)):
        y = np.arange(n, dtype=np.uint8) % 2
        z = rng.normal(0, 1, (n, 2, 12))
        z[:, :, 1] += 3 * y[:, None]
        z[:, 1, 0] += 6
        np.savez(latents / f"{split}.npz", z=z.astype(np.float16), y=y)
    return load_draw(read_experiment(write_experiment(folder)).data[0], 0)


@pytest.mark.parametrize("name", NAMES)
def test_variants_run(name: str, draw: Draw) -> None:
    experiment = read_experiment(EXPERIMENTS / f"{name}.json")
    short = replace(experiment, schedule={"epochs": 6, "learning_rate": 0.01})
    fits: dict[str, Any] = {entry.name: fit_frozen(entry, draw, fixed_of(short, entry)) for entry in short.methods}
    assert all(np.isfinite(fit.logits["test"]).all() for fit in fits.values())
    alike: dict[bytes, list[str]] = {}
    for variant, fit in fits.items():
        alike.setdefault(fit.logits["test"].tobytes(), []).append(variant)
    if name != "ablate_discovery":  # of discovery, parts that these plain data do not need may well be taken away
        assert [names for names in alike.values() if len(names) > 1] == ALIKE.get(name, [])
    assert all(fit.notes["found"] for variant, fit in fits.items() if "found" in fit.notes), fits
