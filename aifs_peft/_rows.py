"""Rows in blocks: how data and discovery cut what need not fit into memory, or is converted a part at a time."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_ROWS = 8192
"""Rows that are read or converted at once: bounds the memory and changes no result."""


def row_chunks(n: int) -> Iterator[slice]:
    """Slices that cover `n` rows, some thousands each.

    Example:
        >>> [(part.start, part.stop) for part in row_chunks(10_000)]
        [(0, 8192), (8192, 10000)]
    """
    return (slice(start, min(start + BLOCK_ROWS, n)) for start in range(0, n, BLOCK_ROWS))
