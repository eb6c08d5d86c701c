"""docs/methods.md is what the code and the committed results say; `aifs methods` prints its table."""

import json
import runpy
from pathlib import Path

from aifs_peft.cli import main
from aifs_peft.experiments.methods import markdown, table

ROOT = Path(__file__).parents[2]


def test_page_is_up_to_date():
    render = runpy.run_path(str(ROOT / "benchmarks" / "render_methods_docs.py"))["render"]
    assert (ROOT / "docs" / "methods.md").read_text() == render()


def test_command_prints_the_table_and_json(capsys):
    assert main(["methods"]) == 0
    assert capsys.readouterr().out.strip() == markdown(table())
    assert main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "supervision", "needs", "paper", "latents"} <= set(rows[0])
    names = {row["name"] for row in rows}
    wanted = "aifs aifs-paper erm erm-balanced irm elrep spume ravl ule jtt lff afr xrm-gdro spectral-decoupling rsc "
    assert set((wanted + "shortcutprobe gdro-oracle dfr-oracle reweight-oracle").split()) <= names
