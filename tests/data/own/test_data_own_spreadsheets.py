"""Tables as spreadsheets and exports write them: separators, encodings, headers, values that only look the same."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aifs_peft.data import load_own
from aifs_peft.data.notes import DataWarning
from aifs_peft.errors import InvalidInputError

N = 60
TABLE = pd.DataFrame(
    {"text": [f"word {i}; x" for i in range(N)], "label": ["yes", "no"] * (N // 2), "place": ["a", "a", "b"] * (N // 3)}
)
PLAIN = TABLE.to_csv(index=False)

WORKS: dict[str, Callable[[], bytes]] = {
    "a byte-order mark": lambda: PLAIN.encode("utf-8-sig"),
    "semicolons": lambda: TABLE.to_csv(index=False, sep=";").encode(),
    "semicolons and a byte-order mark": lambda: TABLE.to_csv(index=False, sep=";").encode("utf-8-sig"),
    "tabs": lambda: TABLE.to_csv(index=False, sep="\t").encode(),
    "bars": lambda: TABLE.to_csv(index=False, sep="|").encode(),
    "Windows line ends": lambda: PLAIN.replace("\n", "\r\n").encode(),
    "an index without a name": lambda: TABLE.to_csv().encode(),
    "spaces behind values": lambda: PLAIN.replace(",yes,", ",yes ,").encode(),
    "line ends within quotes": lambda: PLAIN.replace("word 4; x", '"word 4,\nx"').encode(),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "UTF-16": (lambda: PLAIN.encode("utf-16"), "cannot be read as a CSV table: .*; save it as UTF-8"),
    "Latin-1": (lambda: PLAIN.replace("word 3", "wörd").encode("latin-1"), "; save it as UTF-8"),
    "a column twice": (lambda: PLAIN.replace("label,place", "label,label", 1).encode(), "'label' more than once"),
    "spaces in the header": (lambda: PLAIN.replace(",label,", ", label,", 1).encode(), "it has .* label"),
    "a longer row": (lambda: (PLAIN + "a,b,c,d\n").encode(), "Expected 3 fields in line 62, saw 4"),
    "a shorter row": (lambda: (PLAIN + "a\n").encode(), "column 'label' is missing in 1 of 61 rows"),
    "a header alone": (lambda: b"text,label,place\n", "has no row"),
    "nothing": (lambda: b"", "cannot be read as a CSV table"),
    "one value of the attribute per row": (
        lambda: TABLE.assign(place=range(N)).to_csv(index=False).encode(),
        "no cell of 60 among 60 rows has two examples",
    ),
}


def load(content: bytes, folder: Path):
    path = folder / "table.csv"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of small cells
        return load_own(path, text="text", label="label", attribute="place")


@pytest.mark.parametrize("name", WORKS)
def test_it_is_the_table_that_was_written(name: str, tmp_path: Path) -> None:
    splits = load(WORKS[name](), tmp_path)
    wanted = load(PLAIN.encode(), tmp_path)
    for part in ("train", "validation", "test"):
        assert splits[part]["label"][:] == wanted[part]["label"][:]
        assert splits[part]["group"][:] == wanted[part]["group"][:]
        assert splits[part].features["label"].names == ["no", "yes"]
        if "quotes" not in name:
            assert splits[part]["text"][:] == wanted[part]["text"][:]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message):
        load(make(), tmp_path)


def test_decimal_commas_between_semicolons_stay_in_their_cells(tmp_path: Path) -> None:
    path = tmp_path / "messung.csv"
    frame = TABLE.assign(**{"Temperatur, °C": [f"{i},5" for i in range(N)], "IDs": "1,2,3"})
    frame["text"] = [f"Wort {i}, und; noch, eins" for i in range(N)]
    frame.to_csv(path, sep=";", index=False, encoding="utf-8-sig")
    train = load_own(path, text="text", label="label", split="none")["train"]
    assert train["Temperatur, °C"][:] == [i + 0.5 for i in range(N)]
    assert train["IDs"][:] == ["1,2,3"] * N
    assert train["text"][:] == frame["text"].tolist()


def test_between_commas_a_comma_in_a_cell_is_no_decimal_comma(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    TABLE.assign(price="1,250").to_csv(path, index=False)
    assert load_own(path, text="text", label="label", split="none")["train"]["price"][:] == ["1,250"] * N


def test_a_semicolon_in_the_header_of_a_comma_table_is_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("text,label,place;room\n" + "a,yes,b;c\nb,no,b;d\n" * 30)
    assert load_own(path, split="none")["train"]["place;room"][:2] == ["b;c", "b;d"]


def test_a_table_of_one_column_is_no_other_separator(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("text\n" + "a;b\n" * 9)
    with pytest.raises(InvalidInputError, match=r"no column 'label'.*it has \['text'\]"):
        load_own(path)


@pytest.mark.parametrize(
    ("names", "shown"),
    [(["Yes", "yes"], "'Yes' and 'yes'"), (["caf\u00e9", "cafe\u0301"], "which differ")],
)
@pytest.mark.parametrize("column", ["label", "place"])
def test_values_that_only_look_the_same_are_told(names: list[str], shown: str, column: str) -> None:
    table = TABLE.assign(**{column: np.resize(names, N)})
    if column == "place":
        table["label"] = np.repeat(["yes", "no"], N // 2)
    with pytest.warns(DataWarning) as told:
        load_own(table, text="text", label="label", attribute="place" if column == "place" else None)
    assert any(f"column {column!r}" in str(w.message) and shown in str(w.message) for w in told)
