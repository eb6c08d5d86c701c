"""docs/dynamics.md and docs/theory.md say what their results say, and one training gives those results."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    import dynamics_of_heads as heads
    import render_dynamics as render
    import training_dynamics
    from dynamics_report import cases, pair_of
RESULT = json.loads((ROOT / "benchmarks" / "results" / "training_dynamics.json").read_text())


@pytest.mark.parametrize("page", ["dynamics.md", "theory.md"])
def test_pages_are_those_of_the_results(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert render.fill(text) == text, "run python benchmarks/render_dynamics.py"
    assert set(render.BLOCKS) >= {"sizes", "answers"}


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing renders the block 'sise'"):
        render.fill("<!-- sise -->\n<!-- /sise -->")


def test_a_training_gives_the_committed_numbers() -> None:
    series = training_dynamics.run("planted 0.95", "aifs-paper", 0)
    expected = RESULT["runs"]["planted 0.95"]["aifs-paper"]["0"]
    assert set(series) == set(expected)
    for name, values in expected.items():
        given = np.array(values, dtype=float)
        np.testing.assert_allclose(np.array(series[name], dtype=float), given, rtol=0.05, atol=0.01, err_msg=name)


def test_tests_are_those_of_the_series() -> None:
    again = {"runs": RESULT["runs"]}
    training_dynamics.summarise(again)
    assert again["masks"] == RESULT["masks"]
    assert again["tests"] == RESULT["tests"]


def test_what_the_page_says_of_flatness_holds() -> None:
    """In every case `aifs` ends less certain of the training examples than `erm`, and sharper."""
    for case in cases(RESULT):
        for name in ("curvature_mean", "curvature_top"):
            aifs, erm = (heads.series(case, method, name)[:, -1].mean() for method in ("aifs", "erm"))
            assert aifs > erm, (case, name)
        start = [heads.series(case, "erm", f"curvature_{name}")[:, 0].mean() for name in ("spurious", "core")]
        assert start[0] > 2 * start[1]
        assert heads.series(case, "erm", "curvature_top")[:, -1].mean() < start[0]


def test_what_the_page_says_of_axes_holds() -> None:
    """The same latents: no difference along axes, a clear one where they are turned."""
    axes, turned = (pair_of(RESULT, f"{name} 0.95", "core learned later") for name in ("planted", "rotated"))
    assert axes["corrected"] > 0.05
    assert turned["corrected"] < 0.05
    assert turned["difference"] > 1
