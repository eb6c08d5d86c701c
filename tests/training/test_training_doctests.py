"""The examples in the docstrings of `aifs_peft.training` run, and every public function with arguments has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import aifs_peft.training

MODULES = [module.name for module in pkgutil.walk_packages(aifs_peft.training.__path__, "aifs_peft.training.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    options = doctest.IGNORE_EXCEPTION_DETAIL | doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=options).failed == 0


@pytest.mark.parametrize("name", aifs_peft.training.__all__)
def test_what_is_public_is_documented_with_an_example(name):
    public = getattr(aifs_peft.training, name)
    text = inspect.getdoc(public) or ""
    assert ">>>" in text or name == "LatentFit", f"{name} has no example"
    assert "Args:" in text or "Attributes:" in text
