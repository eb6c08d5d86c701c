"""Execute the notebooks of docs/notebooks, each in an empty folder; a cell that raises fails the run.

    python scripts/run_notebooks.py [--save] [NOTEBOOK ...]

`--save` writes the new outputs into the notebooks, without progress and paths; otherwise they stay as they are.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"


def run(path: Path, *, save: bool) -> None:
    """Execute one notebook.

    Raises:
        CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": folder}}
        ).execute()
        if save:
            nbformat.write(clean(notebook, folder), path)


def clean(notebook: nbformat.NotebookNode, folder: str) -> nbformat.NotebookNode:
    """The notebook without what differs from machine to machine: paths, versions, what libraries say on stderr."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata = {}
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for out in cell.outputs:
                if "text" in out:
                    out["text"] = without_folder(out["text"], folder)
                for kind, data in out.get("data", {}).items():
                    if kind.startswith("text/"):
                        out["data"][kind] = without_folder(data, folder)
    return notebook


def without_folder(text: str, folder: str) -> str:
    """A text with paths that start in the working folder."""
    return re.sub(rf"(?:/private)?{re.escape(folder)}/", "", text)


def main() -> None:
    """Run them all, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(FOLDER.glob("*.ipynb")))
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    # Kernels inherit it: nothing is downloaded, and nothing of a run depends on the number of cores.
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for path in given.notebooks:
        run(path, save=given.save)
        sys.stdout.write(f"ran {path.name}\n")


if __name__ == "__main__":
    main()
