"""docs/api.md has an entry for every public name, and every entry is one; every page is in the navigation."""

import re
from importlib import import_module

import pytest
import yaml
from pages import PAGES, ROOT, text_of

PACKAGES = (
    "aifs_peft",
    *(f"aifs_peft.{name}" for name in ("training", "data", "metrics", "methods", "discovery", "audit")),
)
ENTRIES = re.findall(r"^::: ([\w.]+)$", text_of("docs/api.md"), flags=re.MULTILINE)


def resolve(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_entry(package: str) -> None:
    module = import_module(package)
    told = {id(resolve(entry)) for entry in ENTRIES}
    missing = [name for name in module.__all__ if name != "__version__" and id(getattr(module, name)) not in told]
    assert not missing


def test_entries_are_there_once() -> None:
    assert len(ENTRIES) == len(set(ENTRIES))


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    navigation = yaml.safe_load(text[text.index("nav:") :])["nav"]
    listed = re.findall(r"[\w/]+\.(?:md|ipynb)", str(navigation))
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    notebooks = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.ipynb")]
    assert sorted(listed) == sorted([*pages, *notebooks])
