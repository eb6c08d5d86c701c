"""docs/dynamics.md and docs/theory.md say what their results say, and one training gives those results."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "training_dynamics.json").read_text())


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["dynamics.md", "theory.md"])
def test_pages_are_those_of_the_results(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    render = script("render_dynamics")
    assert render.fill(text) == text, "run python benchmarks/render_dynamics.py"
    assert set(render.BLOCKS) >= {"sizes", "answers"}


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing renders the block 'sise'"):
        script("render_dynamics").fill("<!-- sise -->\n<!-- /sise -->")


def test_a_training_gives_the_committed_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # By name: a dataclass looks its own module up.
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import training_dynamics

    series = training_dynamics.run("planted 0.95", "aifs-paper", 0)
    expected = RESULT["runs"]["planted 0.95"]["aifs-paper"]["0"]
    assert set(series) == set(expected)
    for name, values in expected.items():
        given = np.array(values, dtype=float)
        np.testing.assert_allclose(np.array(series[name], dtype=float), given, rtol=0.05, atol=0.01, err_msg=name)


def test_tests_are_those_of_the_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import training_dynamics

    again = {"runs": RESULT["runs"]}
    training_dynamics.summarise(again)
    assert again["masks"] == RESULT["masks"]
    assert again["tests"] == RESULT["tests"]


def test_what_the_page_says_of_flatness_holds() -> None:
    """In every case `aifs` ends less certain of the training examples than `erm`, and sharper."""
    render = script("render_dynamics")
    for case in render.cases():
        for name in ("curvature_mean", "curvature_top"):
            aifs, erm = (render.series(case, method, name)[:, -1].mean() for method in ("aifs", "erm"))
            assert aifs > erm, (case, name)
        start = [render.series(case, "erm", f"curvature_{name}")[:, 0].mean() for name in ("spurious", "core")]
        assert start[0] > 2 * start[1]
        assert render.series(case, "erm", "curvature_top")[:, -1].mean() < start[0]


def test_what_the_page_says_of_axes_holds() -> None:
    """The same latents: no difference along axes, a clear one where they are turned."""
    render = script("render_dynamics")
    axes, turned = (render.test_of(f"{name} 0.95", "core learned later") for name in ("planted", "rotated"))
    assert axes["corrected"] > 0.05
    assert turned["corrected"] < 0.05
    assert turned["difference"] > 1
