"""The audit of dependencies says what was found, and never calls a silence good news."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "audit_dependencies.py"
AUDIT = runpy.run_path(str(SCRIPT), run_name="audit")
verdict = AUDIT["verdict"]

BAD = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "CVE-1", "aliases": ["G-1"], "fix_versions": ["2.5"]}]}
GOOD = {"name": "torch", "version": "2.13.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "not found on the index"}


def report(*entries):
    return {"dependencies": list(entries), "fixes": []}


def test_what_is_found_is_named_and_fails():
    assert verdict(report(GOOD, BAD), report(BAD), "", require=False) == (
        1, "known vulnerabilities:\njinja2 2.4.1: CVE-1, corrected in 2.5"
    )  # fmt: skip


@pytest.mark.parametrize("known_bad", [{}, report({"name": "jinja2", "skip_reason": "not found on the index"})])
@pytest.mark.parametrize(("require", "status"), [(False, 0), (True, 2)])
def test_a_service_that_does_not_know_a_known_vulnerability_is_not_believed(known_bad, require, status):
    got, told = verdict(report(SKIPPED), known_bad, "no route to the service", require=require)
    assert got == status
    assert told.startswith("NOT AUDITED: the vulnerability service gives no answer here")
    assert ("not found on the index" if known_bad else "no route to the service") in told


def test_packages_that_were_left_out_are_told():
    told = verdict(report(GOOD, SKIPPED), report(BAD), "", require=True)
    assert told == (0, "no known vulnerability in 1 of 2 installed packages; left out: torch")


def test_an_ignored_one_is_left_out_under_any_of_its_names(monkeypatch):
    monkeypatch.setitem(AUDIT["IGNORED"], "G-1", "not reached")
    assert AUDIT["found_in"](report(BAD)) == []
