"""Every docstring example of the folder is executed."""

import doctest
import importlib
import pkgutil

import pytest

import aifs_peft.latent

MODULES = sorted(info.name for info in pkgutil.walk_packages(aifs_peft.latent.__path__, "aifs_peft.latent."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_public_functions_have_examples() -> None:
    missing = [
        name
        for name in aifs_peft.latent.__all__
        if not name.endswith("Error") and ">>>" not in (getattr(aifs_peft.latent, name).__doc__ or "")
    ]
    assert missing == []


def test_examples_are_found() -> None:
    finder = doctest.DocTestFinder()
    total = sum(len(t.examples) for n in MODULES for t in finder.find(importlib.import_module(n)))
    assert total > 30
