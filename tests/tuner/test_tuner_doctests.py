"""The examples in the docstrings of `aifs_peft.tuner` run."""

import doctest
import importlib
import pkgutil

import pytest

import aifs_peft.tuner

MODULES = [module.name for module in pkgutil.walk_packages(aifs_peft.tuner.__path__, "aifs_peft.tuner.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    options = doctest.IGNORE_EXCEPTION_DETAIL | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=options).failed == 0
