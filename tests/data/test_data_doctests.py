"""Every docstring example of the folder, of the table model and of the environment check is executed."""

import doctest
import importlib
import pkgutil

import pytest

import aifs_peft.data

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(aifs_peft.data.__path__, "aifs_peft.data.")
    if not info.name.endswith("__main__")
)
OTHERS = ["aifs_peft.data", "aifs_peft.environment", "aifs_peft.models.tabular"]


@pytest.mark.parametrize("name", [*MODULES, *OTHERS])
def test_examples_run(name):
    # Errors in these modules carry long lists, which the examples cut short.
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


def test_examples_are_found():
    finder = doctest.DocTestFinder()
    assert sum(len(t.examples) for n in MODULES for t in finder.find(importlib.import_module(n))) > 20
