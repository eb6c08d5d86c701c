"""Every number of discovery is in its configuration, is used, and reaches the search from the call."""

import ast
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import aifs_peft.discovery
from aifs_peft.discovery import DiscoveryConfig, GateThresholds, discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.errors import InvalidConfigError

FOLDER = Path(aifs_peft.discovery.__file__).parent
SOURCES = {path: path.read_text() for path in sorted(FOLDER.rglob("*.py")) if path.name != "config.py"}


def settings():
    for part in fields(DEFAULT_CONFIG):
        value = getattr(DEFAULT_CONFIG, part.name)
        assert is_dataclass(value)
        yield from ((part.name, field.name) for field in fields(value))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_no_module_holds_a_number_of_its_own(path):
    tree = ast.parse(SOURCES[path])
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Name | ast.Subscript)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper() and target.id.lstrip("_")[0].isalpha()
    ]
    # Names of families and of sources, and reasons, are no numbers.
    assert set(names) <= {"ADDITIVE", "UNLABELLED", "NO_CLASS", "MISLABELLED"}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            inside = {n.id for part in function.body for n in ast.walk(part) if isinstance(n, ast.Name)}
            assert "DEFAULT_CONFIG" not in inside, f"{function.name} reads the defaults; pass them"


@pytest.mark.parametrize(("part", "name"), list(settings()))
def test_every_setting_is_used(part, name):
    assert any(f".{name}" in source for source in SOURCES.values())


def test_it_cannot_be_changed_in_place_and_compares_by_value():
    with pytest.raises(FrozenInstanceError):
        DEFAULT_CONFIG.gate.relative = 2.0
    assert DiscoveryConfig() == DEFAULT_CONFIG
    assert hash(DiscoveryConfig()) == hash(DEFAULT_CONFIG)


def planted(seed=0, n=1500, d=24):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < 0.95, y, 1 - y)
    Z = rng.normal(size=(n, d))
    Z[:, 0] += 6 * a
    Z[:, 1] += 2 * y
    return Z, y


def test_arguments_and_configuration_say_the_same():
    Z, y = planted()
    strict = GateThresholds(relative=100.0)
    by_argument = discover(Z, y, gate=strict, random_state=0)
    by_config = discover(Z, y, config=replace(DEFAULT_CONFIG, gate=strict), random_state=0)
    assert not by_argument.found
    assert str(by_argument.candidates_) == str(by_config.candidates_)
    assert any("100.0" in candidate.reason for candidate in by_config.candidates_)
    # What is given directly goes before what the configuration says.
    assert discover(Z, y, gate=GateThresholds(), config=replace(DEFAULT_CONFIG, gate=strict), random_state=0).found


@pytest.mark.parametrize("argument", [{"max_attributes": 0}, {"max_attributes": 1.5}, {"max_fit_rows": 10}])
def test_arguments_out_of_range_are_refused(argument):
    (name,) = argument
    with pytest.raises(InvalidConfigError, match=f"{name} must be an integer of at least"):
        discover(*planted(n=100), random_state=0, **argument)


def test_settings_of_a_stage_reach_it():
    Z, y = planted()
    only = replace(DEFAULT_CONFIG, two_classes=replace(DEFAULT_CONFIG.two_classes, components=(8,)))
    assert {candidate.k for candidate in discover(Z, y, config=only, random_state=0).candidates_} == {8}
    small = replace(DEFAULT_CONFIG, reduction=replace(DEFAULT_CONFIG.reduction, components=6))
    assert max(candidate.k for candidate in discover(Z, y, config=small, random_state=0).candidates_) <= 6
    enough = replace(DEFAULT_CONFIG, inputs=replace(DEFAULT_CONFIG.inputs, min_rows=2000))
    assert "1500 in all (needs 2000)" in discover(Z, y, config=enough, random_state=0).message_
