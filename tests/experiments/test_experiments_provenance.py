"""What a result says of the code that made it."""

import subprocess
from pathlib import Path

import pytest

from aifs_peft.experiments.provenance import provenance


def test_changes_of_the_package_are_told_and_results_beside_it_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "aifs_peft"
    (package / "experiments").mkdir(parents=True)
    source = package / "code.py"
    source.write_text("a = 1\n")
    for command in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setitem(provenance.__globals__, "__file__", str(package / "experiments" / "provenance.py"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "seed0.json").write_text("{}")
    assert provenance()["dirty"] is False
    source.write_text("a = 2\n")
    assert provenance()["dirty"] is True
