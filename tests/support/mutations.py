"""Damage files on purpose, the same way for the same seed: what a loader must answer with an error of this package."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

CELLS = (
    "", "NaN", "nan", "-1", "-7", "1e20", "-1e308", "inf", "abc", "0.5", "99999999999999999999", "/etc/passwd",
    "../../etc/passwd", "None", "True", "\0", "é", '"', "1;2", "[1, 2]", " ", "2024-01-01",
)  # fmt: skip
"""What stands in a damaged cell."""


def mutate_table(text: str, rng: np.random.Generator, delimiter: str = ",") -> str:
    """One or two changes to a table: cells, columns, rows, or the header."""
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    for _ in range(int(rng.integers(1, 3))):
        kind = int(rng.integers(9))
        if len(rows) < 2 or not rows[0]:
            break
        row, column = int(rng.integers(1, len(rows))), int(rng.integers(len(rows[0])))
        cell = str(rng.choice(CELLS))
        if kind == 0 and column < len(rows[row]):
            rows[row][column] = cell
        elif kind == 1:  # a whole column
            rows = [[*r[:column], cell, *r[column + 1 :]] if i else r for i, r in enumerate(rows)]
        elif kind == 2:
            rows = [[*r[:column], *r[column + 1 :]] for r in rows]
        elif kind == 3:  # a row of another length
            rows[row] = rows[row][:column] if rng.random() < 0.5 else [*rows[row], cell, cell]
        elif kind == 4:
            rows = [rows[0], *rows[row : row + 1]]
        elif kind == 5:
            rows[0][column] = cell
        elif kind == 6:
            rows = [*rows, *rows[:1]]
        elif kind == 7:
            rows = [[*r, r[column]] if column < len(r) else r for r in rows]
        else:
            rows = [r[::-1] for r in rows]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL, lineterminator="\n").writerows(rows)
    return out.getvalue()


def mutate_bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, flipped, replaced, doubled, in another encoding, or nothing."""
    kind = int(rng.integers(7))
    at = int(rng.integers(max(1, len(raw))))
    if kind == 0:
        return raw[:at]
    if kind == 1:
        flipped = bytearray(raw)
        for place in rng.integers(len(raw), size=8).tolist() if raw else []:
            flipped[place] ^= 1 << int(rng.integers(8))
        return bytes(flipped)
    if kind == 2:
        return rng.integers(0, 256, 400, dtype=np.uint8).tobytes()
    if kind == 3:
        return raw + raw
    if kind == 4:
        return raw.decode("latin-1").encode("utf-16")
    if kind == 5:
        return raw[:at] + b"\0\xff\xfe" + raw[at:]
    return b""


def damage(path: Path, rng: np.random.Generator, table: Callable[[str, np.random.Generator], str] | None) -> None:
    """Damage one file in place: as a table where it is one, mostly, else its bytes; now and then the file is gone."""
    raw = path.read_bytes()
    if rng.random() < 0.03:
        path.unlink()
        if rng.random() < 0.5:
            path.mkdir()
    elif table is not None and rng.random() < 0.75:
        path.write_bytes(table(raw.decode("utf-8"), rng).encode("utf-8", errors="replace"))
    else:
        path.write_bytes(mutate_bytes(raw, rng))
