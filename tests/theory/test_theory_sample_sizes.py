"""docs/theory.md, section 4: how many conflicting examples are enough."""

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from aifs_peft import discover
from aifs_peft.discovery.config import DEFAULT_CONFIG

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sample_sizes.py"
SIZES: dict[str, Any] = runpy.run_path(str(SCRIPT), run_name="sample_sizes")


def effective(contrast: float, dimensions: int, minority: float) -> float:
    """Contrast that is left where the attribute's offset is estimated from the minority."""
    return contrast**2 / math.sqrt(contrast**2 + dimensions / minority)


def needed(contrast: float, dimensions: int, effective_contrast: float) -> float:
    """Conflicting examples that leave an effective contrast."""
    z = effective_contrast
    return dimensions * z**2 / (contrast**2 * (contrast**2 - z**2))


@pytest.mark.parametrize(("contrast", "dimensions", "minority"), [(3.0, 64, 20), (4.0, 64, 10), (2.5, 16, 10)])
def test_an_estimated_offset_tells_a_new_example_as_the_formula_says(
    contrast: float, dimensions: int, minority: int
) -> None:
    """Unit covariance, a large majority whose mean is known, the minority's mean from `minority` examples."""
    rng = np.random.default_rng(0)
    beta = np.zeros(dimensions)
    beta[0] = contrast
    wrong, repeats, n = [], 300, 400
    for _ in range(repeats):
        estimate = beta + rng.normal(size=dimensions) / math.sqrt(minority)
        # The threshold that evens out both errors; half of the estimate would be biased by the estimate's own length.
        direction = estimate / np.linalg.norm(estimate)
        scores = rng.normal(size=(n, dimensions)) @ direction
        wrong.append(np.mean(scores > direction @ beta / 2))
    expected = stats.norm.sf(effective(contrast, dimensions, minority) / 2)
    assert np.mean(wrong) == pytest.approx(expected, rel=0.15)


def test_the_smallest_minority_is_the_inverse_of_that() -> None:
    for contrast, dimensions, z in ((3.0, 64, 2.0), (5.0, 256, 3.0)):
        assert effective(contrast, dimensions, needed(contrast, dimensions, z)) == pytest.approx(z)
    # Twice the dimensions want twice the examples; a higher contrast by far fewer.
    assert needed(3.0, 128, 2.0) == pytest.approx(2 * needed(3.0, 64, 2.0))
    assert needed(6.0, 64, 2.0) < needed(3.0, 64, 2.0) / 16
    assert math.isinf(needed(2.0000001, 64, 2.0)) or needed(2.0000001, 64, 2.0) > 1e7


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_second_moments_of_a_class_show_it_above_a_threshold_only(factor: float) -> None:
    """`pi (1 - pi) D^2` against `sqrt(k / n)`, and the squared cosine of the leading direction."""
    rng = np.random.default_rng(0)
    n, k, share = 2000, 200, 0.05
    ratio = k / n
    spike = factor * math.sqrt(ratio)
    contrast = math.sqrt(spike / (share * (1 - share)))
    beta = np.zeros(k)
    beta[0] = contrast
    cosines = []
    for _ in range(5):
        moved = rng.random(n) < share
        Z = rng.normal(size=(n, k)) + moved[:, None] * beta
        Z -= Z.mean(0)
        leading = np.linalg.eigh(Z.T @ Z / n)[1][:, -1]
        cosines.append(leading[0] ** 2)
    expected = max(0.0, (1 - ratio / spike**2) / (1 + ratio / spike))
    assert np.mean(cosines) == pytest.approx(expected, abs=0.08)
    assert (expected > 0) == (factor > 1)


def test_the_table_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
    told = page[: page.index("**Not told, by second moments.**")]
    rows = [line.strip("| ").split(" | ") for line in told.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == 4
    for contrast, *cells in rows:
        assert [int(cell) for cell in cells] == [math.ceil(needed(float(contrast), k, 2.0)) for k in (16, 64, 256)]
    assert math.sqrt(math.sqrt(256 / 2500) / (0.01 * 0.99)) == pytest.approx(5.7, abs=0.05)
    assert "`D > 5.7`" in page


@pytest.mark.parametrize(("contrast", "k", "minority"), [(3.0, 16, 4), (5.0, 64, 8)])
def test_offset_of_known_examples_has_the_cosine_that_the_measurement_is_held_against(
    contrast: float, k: int, minority: int
) -> None:
    """The minority of either class, against majorities whose means are known well."""
    cosines = []
    for seed in range(40):
        Z, y, a = SIZES["draw"](contrast, k, minority, seed)
        assert [int(((a != y) & (y == label)).sum()) for label in (0, 1)] == [minority, minority]
        means = np.array([[Z[(y == label) & (a == value)].mean(0) for value in (0, 1)] for label in (0, 1)])
        offset = (means[:, 1] - means[:, 0]).mean(0)
        cosines.append(offset[1] ** 2 / (offset @ offset))
    assert np.mean(cosines) == pytest.approx(SIZES["told"](contrast, k, minority), abs=0.03)
    means = np.array([Z[y == label].mean(0) for label in (0, 1)])
    difference = means[1] - means[0]
    assert difference[1] ** 2 / (difference @ difference) < 0.85  # 0.8, less what conflicts


def test_sizes_are_the_inverses_of_the_rules() -> None:
    for contrast, k in ((3.0, 16), (5.0, 64)):
        assert SIZES["told"](contrast, k, SIZES["needed_when_told"](contrast, k)) == pytest.approx(0.9)
        assert SIZES["moments"](contrast, k, SIZES["needed_by_moments"](contrast, k)) == pytest.approx(0.9)
        # Half of what the threshold asks for: the leading component knows nothing of it.
        assert SIZES["moments"](contrast, k, k * 0.02 / (0.02 * 0.98 * contrast**2) ** 2 / 2) == 0
    assert SIZES["half_found"]({1: 0.0, 2: 0.25, 4: 0.75, 8: 1.0}) == pytest.approx(2 * math.sqrt(2))
    assert SIZES["half_found"]({1: 0.0, 2: 0.8, 4: 0.4}) is None
    assert SIZES["half_found"]({1: 0.9, 2: 1.0}) == 1


def test_the_gate_stops_a_contrast_of_three_at_any_size_and_not_one_of_six() -> None:
    assert SIZES["found_cosine"](6.0, 16, 20, 0, None) > 0.9
    assert SIZES["found_cosine"](3.0, 16, 40, 0, SIZES["OPEN"]) > 0.9
    assert SIZES["found_cosine"](3.0, 16, 40, 0, None) == 0.0


def reported(contrast: float) -> float:
    """What the gate makes of it: the length of both offsets, in a shrunk covariance of whitened components."""
    return contrast / math.sqrt(2 * (0.95 + 0.05 * (1 + contrast**2 / 4)))


@pytest.mark.parametrize("contrast", [4.0, 6.0])
def test_the_gate_counts_a_contrast_as_the_page_says(contrast: float) -> None:
    Z, y, _ = SIZES["draw"](contrast, 16, 60, 0)
    candidates = discover(Z, y, random_state=0, gate=SIZES["OPEN"], max_attributes=1).candidates_
    taken = max((c for c in candidates if c.accepted), key=lambda c: c.strength)
    assert taken.strength == pytest.approx(reported(contrast), rel=0.06)
    assert DEFAULT_CONFIG.gate.refined_strength == pytest.approx(reported(4.6), abs=0.02)
    assert DEFAULT_CONFIG.mixture.shrinkage == 0.05
