"""Every docstring example of the folder is executed, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import aifs_peft.discovery

MODULES = sorted(info.name for info in pkgutil.walk_packages(aifs_peft.discovery.__path__, "aifs_peft.discovery."))
# They work on the results of whole searches: tests of those cover them.
WITHOUT_EXAMPLE = {
    "found_by_hint",
    "judge_again",
    "found_partition",
    "join",
    "joined",
    "tell_unused",
    "rests_on_hint",
    "collect_hints",
    "discover_reduced",
    "discover_source",
    "refuse_unusable",
    "everywhere",
    "held_hints",
    "reduced",
    "judge_hint",
    "choose_fit",
    "errors_needed",
    "judge_named",
    "measure",
    "rejected",
    "agree",
    "hinted_head",
    "choose_hinted_head",
    "in_classes",
    "association",
    "known_heads",
    "geometry",
}


def public_functions():
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == name and not attribute.startswith("_"):
                yield pytest.param(value, id=f"{name.removeprefix('aifs_peft.discovery.')}.{attribute}")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    # The module itself, not the function of the same name that the package exports (`discover`).
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("function", list(public_functions()))
def test_arguments_are_documented(function):
    text = inspect.getdoc(function) or ""
    arguments = list(inspect.signature(function).parameters)
    if len(arguments) >= 2:
        assert "Args:" in text
        missing = [argument for argument in arguments if f"    {argument}: " not in text]
        assert missing == []
        if function.__name__ not in WITHOUT_EXAMPLE:
            assert ">>>" in text
