"""Known vulnerabilities of the packages that are installed, by pip-audit, and whether its answer can be trusted.

    python scripts/audit_dependencies.py [--require]

pip-audit leaves out a package that its service does not know, and says "no known vulnerabilities found" when it has
left out all of them, as it does behind a mirror of the package index. So it is first asked about a release whose
vulnerabilities are known. Exit status: 0 nothing found, or nothing could be asked (told in so many words); 1
vulnerabilities; 2 with `--require` where nothing could be asked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KNOWN_BAD = "jinja2==2.4.1"
# Identifier of a vulnerability -> why it does not concern this package. None at present.
IGNORED: dict[str, str] = {}

Report = dict[str, Any]


def ask(*arguments: str) -> tuple[Report, str]:
    """What pip-audit reports, and what it says of itself.

    Args:
        *arguments: of its command line, fixed words of this file.

    Returns:
        Its report, empty where it gave none, and the last line of its messages.
    """
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # nosec B603
    lines = done.stderr.strip().splitlines() or ["no message"]
    try:
        report: Report = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {}, lines[-1]
    return report, lines[-1]


def found_in(report: Report) -> list[str]:
    """One line for each vulnerability that is not ignored.

    Args:
        report: of pip-audit.

    Example:
        >>> found_in({"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}]})
        ['a 1: X-1, corrected in 2']
    """
    return [
        f"{entry['name']} {entry['version']}: {bug['id']}, corrected in {', '.join(bug['fix_versions']) or 'none'}"
        for entry in report.get("dependencies", [])
        for bug in entry.get("vulns", [])
        if not {bug["id"], *bug.get("aliases", [])} & set(IGNORED)
    ]


def left_out_of(report: Report) -> list[str]:
    """Names of the packages that were left out.

    Args:
        report: of pip-audit.
    """
    return [entry["name"] for entry in report.get("dependencies", []) if "skip_reason" in entry]


def verdict(installed: Report, known_bad: Report, message: str, *, require: bool) -> tuple[int, str]:
    """Exit status, and what is to be said.

    Args:
        installed: report on what is installed.
        known_bad: report on the release whose vulnerabilities are known.
        message: what pip-audit said last of that release.
        require: whether it is an error that nothing could be asked.
    """
    total, left_out = len(installed.get("dependencies", [])), left_out_of(installed)
    found = found_in(installed)
    if found:
        return 1, "\n".join(["known vulnerabilities:", *found])
    if not found_in(known_bad):
        reasons = [entry["skip_reason"] for entry in known_bad.get("dependencies", []) if "skip_reason" in entry]
        told = (
            f"NOT AUDITED: the vulnerability service gives no answer here (it does not know those of {KNOWN_BAD}: "
            f"{(reasons or [message])[0]}). Nothing is known of the {total} packages that are installed; run this "
            "where the service can be reached."
        )
        return (2 if require else 0), told
    beside = f"; left out: {', '.join(left_out)}" if left_out else ""
    return 0, f"no known vulnerability in {total - len(left_out)} of {total} installed packages{beside}"


def main() -> int:
    """Ask, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--require", action="store_true", help="exit with 2 where nothing could be asked")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(f"{KNOWN_BAD}\n")
        known_bad, message = ask("--requirement", str(file), "--no-deps", "--disable-pip")
    installed, _ = ask("--local", "--skip-editable")
    status, told = verdict(installed, known_bad, message, require=given.require)
    print(told, file=sys.stderr if status or told.startswith("NOT") else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main())
