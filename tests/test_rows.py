"""Rows in blocks: every row once, in order, however many there are."""

import doctest

import pytest

from aifs_peft import _rows
from aifs_peft._rows import BLOCK_ROWS, row_chunks


def test_doctests():
    found = doctest.testmod(_rows)
    assert (found.failed, found.attempted) == (0, 1)


@pytest.mark.parametrize("n", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS])
def test_every_row_comes_once_in_order(n):
    parts = list(row_chunks(n))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(n))
    assert all(0 < part.stop - part.start <= BLOCK_ROWS for part in parts)
