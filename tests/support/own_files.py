"""Small tables of one's own in every format that is read, and what damages them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mutations import CELLS, mutate_table
from own_data import own_frame

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

# What cells of a frame hold that no table should.
ODD_OBJECTS: list[Any] = [
    None, np.nan, pd.NA, pd.NaT, -1, 0, 1, 2.5, True, "a", "", b"x", [1], {"a": 1}, (1, 2), object(), np.inf, 1e300,
    np.datetime64("2024-01-01"), pd.Timestamp("2024-01-01"), np.zeros(3), 10**40, complex(1, 2), "nan", "1.0",
]  # fmt: skip


def odd_frame(rng: np.random.Generator) -> pd.DataFrame:
    """The frame with two columns of which some or all cells are anything."""
    chosen = [ODD_OBJECTS[i] for i in rng.integers(len(ODD_OBJECTS), size=rng.integers(1, 4))]
    frame = FRAME.copy()
    for column in rng.choice(frame.columns, 2, replace=False):
        values = pd.Series([chosen[i] for i in rng.integers(len(chosen), size=len(frame))], dtype=object)
        frame[column] = values.where(rng.random(len(frame)) < rng.choice([0.1, 1.0]), frame[column].astype(object))
    return frame
