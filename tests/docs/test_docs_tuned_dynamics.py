"""What is measured of an encoder that is tuned: contrasts of planted latents, and a watcher that changes nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    import tuned_dynamics
    from dynamics_cases import CORE, SPURIOUS, TEST, WIDTH, planted
    from dynamics_measures import held_by, of_latents, offsets
    from tuned_encoders import trainer_of
    from tuned_encoders_data import Draw, Half
RESULT = json.loads((ROOT / "benchmarks" / "results" / "tuned_dynamics.json").read_text())


def test_tests_are_those_of_the_series() -> None:
    again = {"runs": RESULT["runs"]}
    tuned_dynamics.summarise(again, len(tuned_dynamics.SEEDS))
    assert again["tests"] == RESULT["tests"]
    assert {test["seeds"] for test in again["tests"]} <= {len(tuned_dynamics.SEEDS)}


def test_a_case_that_is_not_complete_is_not_tested() -> None:
    some = {"dominoes": {"erm": dict(list(RESULT["runs"]["dominoes"]["erm"].items())[:2]), "aifs": {}}}
    again = {"runs": some}
    tuned_dynamics.summarise(again, len(tuned_dynamics.SEEDS))
    assert again["tests"] == []


def test_contrasts_and_variances_of_planted_latents() -> None:
    data = planted(0.95, 0)
    alpha, beta = offsets(data.test)
    torch.testing.assert_close(alpha, data.alpha, atol=5 / TEST**0.5 * 2, rtol=0)
    torch.testing.assert_close(beta, data.beta, atol=5 / TEST**0.5 * 2, rtol=0)
    numbers = of_latents(data.test)
    assert numbers["core_contrast"] == pytest.approx(CORE, rel=0.06)
    assert numbers["spurious_contrast"] == pytest.approx(SPURIOUS, rel=0.06)
    whole = WIDTH + (CORE**2 + SPURIOUS**2) / 4
    assert numbers["core_variance"] == pytest.approx(CORE**2 / 4 / whole, abs=0.005)
    assert numbers["spurious_variance"] == pytest.approx(SPURIOUS**2 / 4 / whole, abs=0.01)
    assert abs(numbers["offsets_cosine"]) < 0.05


def test_a_contrast_that_is_not_there_is_not_found_in_many_dimensions() -> None:
    """Both halves have as many examples as dimensions: in the same examples, chance would look like a contrast."""
    data = planted(0.95, 1).test.take(torch.arange(2 * WIDTH))
    cells = type(data)(torch.randn(2 * WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)), data.y, data.a)
    numbers = of_latents(cells)
    assert abs(numbers["core_contrast"]) < 0.6
    assert abs(numbers["spurious_contrast"]) < 0.6


def test_the_part_of_a_direction_that_a_basis_holds() -> None:
    basis = torch.eye(4)[:, :2]
    assert held_by(basis, torch.tensor([3.0, 0.0, 4.0, 0.0])) == pytest.approx(9 / 25)


class _Encoder(nn.Module):
    """Something that LoRA goes to."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Linear(12, 16), nn.Linear(16, 8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


def _half(n: int, aligned: float, seed: int) -> Half:
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    a = np.where(rng.random(n) < aligned, y, 1 - y)
    x = rng.normal(size=(n, 12))
    x[:, 0] += 2 * y
    x[:, 1] += 5 * a
    return Half(torch.as_tensor(x).half(), y, a)


@pytest.fixture(scope="module")
def draw() -> Draw:
    parts = _half(256, 0.9, 0), _half(64, 0.9, 1), _half(400, 0.5, 2)
    return Draw(*parts, _Encoder, 8, ["first", "last"], np.full(4, 0.25))


def test_a_training_gives_one_number_per_epoch(draw: Draw) -> None:
    run = tuned_dynamics.run(draw, "erm", 0, epochs=3)
    assert {len(values) for values in run["series"].values()} == {4}
    assert set(run["series"]) <= set(tuned_dynamics.NAMES)
    # Nothing happens between the last epoch and the end of `erm`.
    assert {name: values[-1] for name, values in run["series"].items()} == run["end"]
    assert run["series"]["core_turned"][0] == run["series"]["spurious_turned"][0] == 1.0
    assert run["series"]["spurious_turned"][-1] < 1.0
    assert run["end"]["worst"] <= min(run["end"]["aligned"], run["end"]["conflicting"])


def test_the_watcher_changes_nothing(draw: Draw, tmp_path: Path) -> None:
    with_watcher, without = (trainer_of("erm", draw, 0, str(tmp_path), num_train_epochs=2) for _ in range(2))
    with_watcher.add_callback(tuned_dynamics.Watcher(with_watcher, draw))
    for trainer in (with_watcher, without):
        trainer.train()
    logits = [trainer.predict(draw.test).predictions for trainer in (with_watcher, without)]
    np.testing.assert_array_equal(*logits)
