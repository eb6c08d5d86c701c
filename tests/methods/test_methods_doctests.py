"""Every docstring example of the folder is executed, and public functions have one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import aifs_peft.methods
from aifs_peft.methods import registry

MODULES = sorted(info.name for info in pkgutil.walk_packages(aifs_peft.methods.__path__, "aifs_peft.methods."))


@pytest.fixture(autouse=True)
def _forget_examples():
    """What examples register is not a method for the tests that follow."""
    yield
    for name in [name for name in registry._REGISTRY if name.startswith("doctest-")]:
        del registry._REGISTRY[name]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    flags = doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


def test_public_functions_with_two_arguments_have_an_example():
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        for public, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != name or public.startswith("_"):
                continue
            if len(inspect.signature(function).parameters) > 1 and ">>>" not in (function.__doc__ or ""):
                missing.append(f"{name}.{public}")
    assert missing == []
