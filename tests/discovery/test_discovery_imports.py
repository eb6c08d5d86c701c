"""Discovery by itself needs NumPy, SciPy and scikit-learn, and neither torch nor PEFT nor transformers."""

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "aifs_peft"
CODE = """
import sys, types
package = types.ModuleType("aifs_peft")  # in place of the package's own __init__, which has its own tests
package.__path__ = [{path!r}]
sys.modules["aifs_peft"] = package
import aifs_peft.discovery, pkgutil, importlib
for info in pkgutil.walk_packages(aifs_peft.discovery.__path__, "aifs_peft.discovery."):
    importlib.import_module(info.name)
heavy = sorted({{"torch", "peft", "transformers", "datasets"}} & set(sys.modules))
assert not heavy, heavy
"""


def test_no_heavy_import():
    code = CODE.format(path=str(PACKAGE))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
