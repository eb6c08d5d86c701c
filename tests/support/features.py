"""A row of the tables of what works with other libraries, which the tests run and the documentation shows."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """One row.

    Attributes:
        name: what is done, in words.
        run: does it; asserts that it does what it should.
        refused: first words of the error, with which `run` ends; None where it works.
    """

    name: str
    run: Callable[[], object]
    refused: str | None = None
