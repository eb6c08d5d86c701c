"""Highlighted examples and toggled predictions in the report: written, read again, shown, escaped."""

import json
from pathlib import Path

import numpy as np
import pytest
from audit_fields import found_audit, null_audit
from report_runs import summary
from test_report_page import ARABIC, HOSTILE, Page, history

from aifs_peft.explain import Highlight
from aifs_peft.report import highlighted_rows, write_audit_folder, write_highlights, write_report, write_what_if
from aifs_peft.report.folder import read_what_if
from aifs_peft.report.highlights import EACH, HIGHLIGHTS, PICTURES, read_highlights


@pytest.fixture(scope="module")
def found():
    return found_audit()


@pytest.fixture
def folder(found, tmp_path: Path) -> Path:
    log = [*history(), *({"epoch": e, "spurious_attribution": 0.5 / e} for e in (1.0, 2.0, 3.0))]
    (tmp_path / "summary.json").write_text(json.dumps(summary(history=log, found=True)))
    write_audit_folder(found, tmp_path, [f"text {i}" for i in range(600)])
    return tmp_path


def pictures(n: int) -> list[Highlight]:
    patches = np.zeros((4, 4), dtype=np.float32)
    patches[0, 3] = 1.0
    return [Highlight(patches=patches, picture=np.full((20, 30, 3), 90, dtype=np.uint8)) for _ in range(n)]


def told() -> dict:
    def side(changed: float, moved: float) -> dict:
        return {"changed": changed, "moved": moved}

    rows = [{"cell": name, "n": 10, "plain": side(0.6, -0.3), "method": side(0.05, 0.01)} for name in ("all", HOSTILE)]
    example = {"row": 3, "label": HOSTILE, "inferred": "cat", "toggled_to": ARABIC}
    for ending in ("", "_plain"):
        example |= {f"predicted{ending}": "cat", f"probability{ending}": 0.9,
                    f"predicted_toggled{ending}": "dog", f"probability_toggled{ending}": 0.2}  # fmt: skip
    return {"n": 10, "rows": rows, "share": {"plain": 0.55, "method": 0.01},
            "sentences": [f"First {HOSTILE}.", "Second."],
            "examples": [example] * 20}  # fmt: skip


def test_rows_are_of_both_kinds_and_of_every_class(found) -> None:
    rows = highlighted_rows(found)
    moved = set(found.conflicting["row"])
    assert len(rows) == len(set(rows)) == 2 * EACH
    assert [row in moved for row in rows] == [True] * EACH + [False] * EACH
    assert len({found.discovery.labels_[row] for row in rows[EACH:]}) == 2
    assert highlighted_rows(null_audit()) == []


def test_pictures_survive_the_folder(found, folder: Path) -> None:
    rows = highlighted_rows(found)
    written = write_highlights(pictures(len(rows)), rows, found, folder)
    assert [path.relative_to(folder).as_posix() for path in written] == [HIGHLIGHTS, PICTURES]
    shown = read_highlights(folder)
    assert [example.row for example in shown] == rows
    for example in shown:
        drawn = np.asarray(example.picture).astype(int)
        assert drawn.shape[1] > drawn.shape[0]  # not squeezed
        assert drawn[4, -4, 0] - drawn[4, -4, 2] > 60  # the strongest patch
        assert abs(drawn[-4, 4, 0] - drawn[-4, 4, 2]) < 5
    page = Page(write_report(folder).read_text())
    assert "What the attribute's score reads" in page.text
    assert len(page.all("img")) == 2 * EACH
    assert all("what speaks for" in image["alt"] for image in page.all("img"))
    assert write_highlights([], rows, found, folder) == []
    assert read_highlights(folder) == []
    assert not (folder / PICTURES).exists()


def test_words_are_marked_and_escaped(found, folder: Path) -> None:
    rows = highlighted_rows(found)
    words = ((f"{HOSTILE}", 2.0), (" ", 0.0), (ARABIC, 1.0), (" ", 0.0), ("plain", -1.0))
    write_highlights([Highlight(words=words)] * len(rows), rows, found, folder)
    assert not (folder / PICTURES).exists()
    page = Page(write_report(folder).read_text())
    marks = page.all("mark")
    assert [mark["class"] for mark in marks[:2]] == ["h4", "h2"]
    assert len(marks) == 2 * len(rows)
    assert not page.all("script")
    assert "alert(1)" in page.text
    assert "text of neutral tokens" in page.text


def test_what_if_stands_side_by_side_and_is_escaped(folder: Path) -> None:
    write_what_if(told(), folder)
    page = Page(write_report(folder).read_text())
    assert "What if?" in page.text
    assert "Predictions that change with the attribute" in page.text
    assert "60.0 %" in page.text
    assert "\u221230.0 points" in page.text
    assert "cat (90.0 %) \u2192 dog (20.0 %)" in page.text
    assert "8 more are in what_if.json" in page.text
    assert not page.all("script")
    assert "plain training: 0.55." in page.text  # beside the share by epoch
    write_what_if({}, folder)
    assert read_what_if(folder) == {}
    assert "What if?" not in Page(write_report(folder).read_text()).text


def test_nothing_to_toggle_is_a_sentence(folder: Path) -> None:
    write_what_if({"rows": [], "examples": [], "sentences": ["No shortcut was found."]}, folder)
    page = Page(write_report(folder).read_text())
    assert "No shortcut was found." in page.text
    assert "Predictions that change" not in page.text


def test_a_share_that_was_not_measured_is_not_drawn(found, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary(history=history())))
    write_what_if(told(), tmp_path)
    assert "Decisions along the attribute" not in write_report(tmp_path).read_text()
