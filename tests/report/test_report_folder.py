"""Contact sheets: the right examples, their pictures and texts, written and read again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audit_fields import changed, found_audit, null_audit, planted_latents
from pictures import DAMAGED, RAMP, write_damaged, write_kinds
from PIL import Image

from aifs_peft.report import write_audit_folder
from aifs_peft.report.contact import CELL, COLUMNS, SHEETS, Example, choose, with_inputs
from aifs_peft.report.folder import audit_sheets, read_audit, read_sheets

N = 600


@pytest.fixture(scope="module")
def planted():
    _, y, a = planted_latents(N)
    return found_audit(n=N), y, a


def images(y, a):
    """One flat colour per attribute value, brighter for the second class: the shortcut can be read off a picture."""
    colours = np.zeros((N, 12, 8, 3), dtype=np.uint8)
    colours[..., 0] = np.where(a == 1, 220, 20)[:, None, None]
    colours[..., 2] = np.where(y == 1, 200, 60)[:, None, None]
    return colours


def test_the_sheets_show_what_their_names_say(planted) -> None:
    audit, y, _ = planted
    sheets = choose(audit)
    assert set(sheets) == set(SHEETS)
    names = np.array(["cat", "dog"])
    moved = set(audit.conflicting["row"])
    assert [e.row for e in sheets["conflicting"]] == audit.conflicting["row"].tolist()[: len(sheets["conflicting"])]
    for e in sheets["aligned"]:
        assert e.row not in moved
    for examples in sheets.values():
        assert all(e.label == names[y[e.row]] for e in examples)
    for kind in ("aligned", "typical"):
        assert {e.label for e in sheets[kind]} == {"cat", "dog"}
    points = audit.projection.set_index("row")
    centre = points.groupby("label")[["class_axis", "attribute_axis"]].median()
    for e in sheets["typical"]:
        distance = (points.loc[e.row, ["class_axis", "attribute_axis"]] - centre.loc[e.label]).astype(float)
        assert np.hypot(*distance) < 1.0


def test_without_a_shortcut_there_is_nothing_to_go_against() -> None:
    audit = null_audit()
    assert set(choose(audit)) == {"typical"}
    assert set(choose(changed(audit, projection=None))) == {"typical"}


def test_pictures_survive_the_folder(planted, tmp_path: Path) -> None:
    audit, y, a = planted
    written = write_audit_folder(audit, tmp_path, images(y, a))
    assert {p.relative_to(tmp_path).as_posix() for p in written} == {
        "audit/audit.json", "audit/conflicting.csv", "audit/examples.json", "audit/contact_conflicting.png",
        "audit/contact_aligned.png", "audit/contact_typical.png",
    }  # fmt: skip
    assert pd.read_csv(tmp_path / "audit" / "conflicting.csv")["row"].tolist() == audit.conflicting["row"].tolist()
    sheets = read_sheets(tmp_path)
    for kind, examples in sheets.items():
        with Image.open(tmp_path / "audit" / f"contact_{kind}.png") as picture:
            assert picture.size == (COLUMNS * CELL, -(-len(examples) // COLUMNS) * CELL)
        for e in examples:
            red, _, blue = np.asarray(e.picture)[CELL // 2, CELL // 2]
            assert (red > 100) == (a[e.row] == 1), kind  # the picture of this example and no other
            assert (blue > 100) == (y[e.row] == 1), kind
            assert e.picture.size == (CELL, CELL)
    record = read_audit(tmp_path)
    assert record["sentence"] == audit.sentence
    assert len(record["tried"]) == len(audit.discovery.candidates_)


@pytest.mark.parametrize("kind", ["path", "pillow", "bytes", "float", "grey"])
def test_every_form_of_picture_is_read(kind: str, planted, tmp_path: Path) -> None:
    audit, y, a = planted
    arrays = images(y, a)
    Image.fromarray(arrays[0]).save(tmp_path / "0.png")
    value = {
        "path": lambda: str(tmp_path / "0.png"),
        "pillow": lambda: Image.fromarray(arrays[0]).convert("RGBA"),
        "bytes": lambda: {"bytes": (tmp_path / "0.png").read_bytes(), "path": None},
        "float": lambda: arrays[0] / 255,
        "grey": lambda: arrays[0][..., 0],
    }[kind]()
    (example, *_) = with_inputs(choose(audit)["conflicting"], dict.fromkeys(range(N), value))
    middle = np.asarray(example.picture)[CELL // 2, CELL // 2].tolist()
    expected = [arrays[0, 0, 0, 0]] * 3 if kind == "grey" else arrays[0, 0, 0].tolist()
    assert np.abs(np.subtract(middle, expected)).max() <= 1


ARRAYS = {
    "deep grey": (RAMP * 16).astype(np.uint16),
    "whole numbers": RAMP * 100 - 7,
    "real numbers": RAMP / 255 * 4000 - 1000,
    "one channel": (RAMP * 16).astype(np.uint16)[..., None],
    "booleans": RAMP > 127,
    "list": (RAMP * 16).tolist(),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_grey_arrays_keep_their_contrast(name: str) -> None:
    (example,) = with_inputs([Example(0, "a", "a")], [ARRAYS[name]])
    shown = np.asarray(example.picture)
    assert (shown.min(), shown.max()) == (0, 255)
    assert len(np.unique(shown)) == (2 if name == "booleans" else 256)


def test_files_of_every_kind_are_shown_as_what_they_hold(tmp_path: Path) -> None:
    given, plain = write_kinds(tmp_path)
    for one, other in zip(given, plain, strict=True):
        for form in (str, Path, lambda path: {"bytes": path.read_bytes(), "path": None}):
            (a,) = with_inputs([Example(0, "a", "a")], [form(one)])
            (b,) = with_inputs([Example(0, "a", "a")], [str(other)])
            assert a.text is b.text is None
            np.testing.assert_array_equal(np.asarray(a.picture), np.asarray(b.picture), err_msg=one.name)


@pytest.mark.parametrize(
    "value",
    [np.zeros((3, 8, 8)), np.zeros((8, 8, 2), np.uint8), np.zeros((0, 4)), np.full((4, 4), np.nan), *DAMAGED],
    ids=str,
)
def test_what_is_no_picture_is_told_and_ends_nothing(value: object, tmp_path: Path) -> None:
    write_damaged(tmp_path)
    given = str(tmp_path / value) if isinstance(value, str) else value
    (example,) = with_inputs([Example(0, "a", "a")], [given])
    assert example.picture is None
    assert example.text.startswith("no picture: ")
    assert str(tmp_path) not in example.text


def test_a_picture_that_is_gone_is_told(planted, tmp_path: Path) -> None:
    audit, _, _ = planted
    paths = [str(tmp_path / f"{i}.png") for i in range(N)]
    sheets = audit_sheets(audit, paths)
    assert {e.text for e in sheets["conflicting"]} == {"no picture: FileNotFoundError"}
    write_audit_folder(audit, tmp_path, paths)
    assert not list((tmp_path / "audit").glob("*.png"))


def test_texts_and_identifiers_are_shown_as_they_read(planted, tmp_path: Path) -> None:
    audit, _, _ = planted
    texts = [f"text {i} " + "long " * 200 for i in range(N)]
    write_audit_folder(audit, tmp_path, texts)
    sheets = read_sheets(tmp_path)
    assert all(e.text.startswith(f"text {e.row} ") and len(e.text) < 500 for e in sheets["conflicting"])
    assert {e.text for e in audit_sheets(audit, list(range(N)))["aligned"]} <= {str(i) for i in range(N)}
    assert audit_sheets(changed(audit, inputs=None)) == {}


def test_sheets_of_an_earlier_audit_do_not_stay(planted, tmp_path: Path) -> None:
    audit, y, a = planted
    write_audit_folder(audit, tmp_path, images(y, a))
    write_audit_folder(audit, tmp_path)
    assert not list((tmp_path / "audit").glob("*.png"))
    assert read_sheets(tmp_path) == {}
