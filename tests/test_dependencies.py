"""Every required dependency is imported by the package, and nothing else is."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def imported() -> set[str]:
    """Distributions that some module of the package imports, anywhere in it."""
    roots: set[str] = set()
    for path in (ROOT / "aifs_peft").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                roots.add(node.module.partition(".")[0])
    known = packages_distributions()
    outside = roots - set(sys.stdlib_module_names) - {"aifs_peft"}
    return {canonical(name) for root in outside for name in known.get(root, [root])}


def test_what_is_required_is_imported_and_what_is_imported_is_declared():
    required = {canonical(Requirement(line).name) for line in PROJECT["dependencies"]}
    extras = {
        canonical(Requirement(line).name) for lines in PROJECT["optional-dependencies"].values() for line in lines
    }
    found = imported()
    assert required - found == set()
    # Where open_clip is not installed its module cannot be traced to `open_clip_torch`; spaCy is the user's own choice.
    assert found - required - extras - {"open-clip", "spacy"} == set()
