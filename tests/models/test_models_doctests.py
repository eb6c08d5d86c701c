"""The examples in the docstrings of `aifs_peft.models` run."""

import doctest
import importlib
import pkgutil

import pytest

import aifs_peft.models

MODULES = [module.name for module in pkgutil.walk_packages(aifs_peft.models.__path__, "aifs_peft.models.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    options = doctest.IGNORE_EXCEPTION_DETAIL | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=options).failed == 0
