"""Damaged tables of one's own: an error of this package or a sound data set, and nothing else."""

import json
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mutations import CELLS, damage, mutate_table
from own_data import own_frame, write_pictures

from aifs_peft.data import group_array, group_spec, load_own
from aifs_peft.data.notes import DataWarning
from aifs_peft.errors import AIFSError

ROUNDS = 40
FRAME = own_frame(40)


def _csv(path: Path) -> None:
    FRAME.to_csv(path, index=False)


def _records(path: Path) -> None:
    FRAME.to_json(path, orient="records")


def _lines(path: Path) -> None:
    FRAME.to_json(path, orient="records", lines=True)


def _parquet(path: Path) -> None:
    FRAME.to_parquet(path)


def _npz(path: Path) -> None:
    np.savez(path, Z=np.zeros((40, 3), np.float32), y=np.arange(40) % 2, scanner=np.arange(40) // 2 % 2)


def _json_values(text: str, rng: np.random.Generator) -> str:
    """Other values, of other types, in some records; or other records."""
    content = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    odd: list[Any] = [*CELLS, None, [], {}, {"a": 1}, [1, 2], True, 1e400, 10**30, -1, 0.5]
    for _ in range(int(rng.integers(1, 4))):
        record = int(rng.integers(len(content)))
        key = list(FRAME.columns)[int(rng.integers(FRAME.shape[1]))]
        value = odd[int(rng.integers(len(odd)))]
        if rng.random() < 0.15 or not isinstance(content[record], dict):
            content[record] = value
        elif rng.random() < 0.3:
            content[record].pop(key, None)
        elif rng.random() < 0.3:
            content = [{**c, key: value} if isinstance(c, dict) else c for c in content]
        else:
            content[record][key] = value
    return json.dumps(content) if text.startswith("[") else "\n".join(map(json.dumps, content))


Write, Mutate = Callable[[Path], None], Callable[[str, np.random.Generator], str] | None
CASES: dict[str, tuple[str, Write, Mutate, dict[str, Any]]] = {
    "csv, pictures": ("t.csv", _csv, mutate_table, {"image": "path", "label": "finding", "attribute": "scanner"}),
    "csv, texts": ("t.csv", _csv, mutate_table, {"text": "report", "label": "finding", "attribute": "scanner"}),
    "csv, numbers": ("t.csv", _csv, mutate_table, {"features": "all", "label": "finding", "attribute": "scanner"}),
    "csv, dropped": ("t.csv", _csv, mutate_table, {"text": "report", "label": "finding", "missing": "drop"}),
    "csv, usual names": ("t.csv", _csv, mutate_table, {"label": "finding"}),
    "json": ("t.json", _records, _json_values, {"text": "report", "label": "finding", "attribute": "scanner"}),
    "json, numbers": ("t.json", _records, _json_values, {"features": ["age"], "label": "finding", "missing": "drop"}),
    "json lines": ("t.jsonl", _lines, _json_values, {"image": "path", "label": "finding", "attribute": "scanner"}),
    "parquet": ("t.parquet", _parquet, None, {"text": "report", "label": "finding", "attribute": "scanner"}),
    "npz": ("t.npz", _npz, None, {"attribute": "scanner"}),
}


@pytest.mark.parametrize("case", CASES)
def test_only_errors_of_this_package_come_out(case: str, tmp_path: Path) -> None:
    name, write, table, options = CASES[case]
    write_pictures(tmp_path / "sound", FRAME["path"].tolist())
    write(tmp_path / "sound" / name)
    assert not _refusal(tmp_path / "sound" / name, options)
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    refused = 0
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        shutil.copytree(tmp_path / "sound", folder)
        damage(folder / name, rng, table)
        message = _refusal(folder / name if turn % 2 else folder, options)
        assert "\n" not in message
        refused += bool(message)
    assert refused > ROUNDS / 5


def _refusal(source: Path, options: dict[str, Any]) -> str:
    """The error of this package, empty where the data were accepted; any other error goes through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DataWarning)
            splits = load_own(source, **options)
    except AIFSError as error:
        return str(error)
    for part in splits.values():
        labels = np.asarray(part["label"][:])
        assert labels.min() >= 0
        assert len(part.features["label"].names) > labels.max()
        if "group" in part.column_names:
            group_spec(splits).counts(group_array(part))
        if "features" in part.column_names:
            assert np.isfinite(np.asarray(part["features"][:])).all()
        if "image" in part.column_names:
            assert part[0]["image"].size == (3, 2)
    return ""


@pytest.mark.parametrize("seed", range(20))
def test_frames_of_any_objects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    odd = [
        None,
        np.nan,
        pd.NA,
        pd.NaT,
        -1,
        0,
        1,
        2.5,
        True,
        "a",
        "",
        b"x",
        [1],
        {"a": 1},
        (1, 2),
        object(),
        np.inf,
        1e300,
    ]
    odd += [np.datetime64("2024-01-01"), pd.Timestamp("2024-01-01"), np.zeros(3), 10**40, complex(1, 2), "nan", "1.0"]
    for _ in range(8):
        chosen = [odd[i] for i in rng.integers(len(odd), size=rng.integers(1, 4))]
        frame = FRAME.copy()
        for column in rng.choice(frame.columns, 2, replace=False):
            values = pd.Series([chosen[i] for i in rng.integers(len(chosen), size=len(frame))], dtype=object)
            frame[column] = values.where(rng.random(len(frame)) < rng.choice([0.1, 1.0]), frame[column].astype(object))
        for options in (
            {"text": "report", "label": "finding", "attribute": "scanner"},
            {"features": ["age"], "label": "finding", "attribute": "case", "missing": "drop"},
            {"image": "path", "label": "scanner", "missing": "drop"},
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)
                try:
                    load_own(frame, **options)
                except AIFSError as error:
                    assert "\n" not in str(error)  # noqa: PT017
