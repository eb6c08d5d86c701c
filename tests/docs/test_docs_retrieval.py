"""The table of docs/clip.md is that of the benchmark's JSON, and what is claimed of it holds."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "retrieval.json").read_text())


def test_the_table_is_that_of_the_json():
    script = runpy.run_path(str(ROOT / "benchmarks" / "render_retrieval.py"))
    page = (ROOT / "docs" / "clip.md").read_text()
    assert script["filled"](page, RESULT) == page
    assert "plain contrastive tuning" in page


def test_the_worst_group_gains_ten_points_and_the_average_loses_nothing():
    plain, robust = RESULT["summary"]["plain"], RESULT["summary"]["robust"]
    assert len({row["seed"] for row in RESULT["rows"] if row["regime"] == "robust"}) == 5
    for direction in ("image_to_text", "text_to_image"):
        before, after = plain[direction], robust[direction]
        assert after["worst_group_recall@1"]["mean"] - before["worst_group_recall@1"]["mean"] >= 0.10
        assert after["recall@1"]["mean"] >= before["recall@1"]["mean"]
