"""Importing: what it loads, what it prints, and that PEFT knows AIFS in any order. Each case in a fresh process."""

import subprocess
import sys

import pytest

HEAVY = ("peft", "transformers", "accelerate", "datasets", "bitsandbytes")

FIT = """
import numpy as np
from aifs_peft import AIFSClassifier
rng = np.random.default_rng(0)
y = rng.integers(0, 2, 1000)
Z = rng.normal(size=(1000, 8))
Z[:, 0] += y
AIFSClassifier(random_state=0).fit(Z, y)
AIFSClassifier("paper", random_state=0).fit(Z, y)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import aifs_peft", (*HEAVY, "torch", "numpy")),
        ("import aifs_peft.metrics", (*HEAVY, "torch")),
        ("import aifs_peft.data", (*HEAVY, "torch")),
        ("import aifs_peft.discovery", (*HEAVY, "torch")),
        ("from aifs_peft import discover", (*HEAVY, "torch")),
        ("import aifs_peft.environment", (*HEAVY, "torch")),
        ("import aifs_peft.latent.attribution.scores", (*HEAVY, "captum", "matplotlib")),
        ("import aifs_peft.methods as m; [m.get(name) for name in m.names()]", HEAVY),
        ("import aifs_peft.classifier", HEAVY),
        (FIT, HEAVY),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(code, absent):
    done = run(f"{code}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])")
    assert done.stdout == "[]\n"
    assert done.stderr == ""


REGISTERED = "assert 'AIFS' in peft.PEFT_TYPE_TO_TUNER_MAPPING and 'AIFS' in peft.PEFT_TYPE_TO_CONFIG_MAPPING"


@pytest.mark.parametrize(
    "code",
    [
        # A probe, such as transformers makes, is no import and must not use up the one chance.
        "import aifs_peft, importlib.util; assert importlib.util.find_spec('peft'); import transformers; import peft",
        "from aifs_peft.tuner.config import AIFSConfig; import peft",
        # Loaded twice, as in a notebook that reloads modules.
        "import aifs_peft, sys; del sys.modules['aifs_peft']; import aifs_peft; import peft",
    ],
)
def test_peft_knows_aifs_in_any_order(code):
    done = run(f"{code}\n{REGISTERED}\nimport sys\nprint([f for f in sys.meta_path if 'Peft' in type(f).__name__])")
    assert done.stdout == "[]\n"  # the finder is gone


def test_threads_that_import_at_once_end_with_aifs_registered():
    done = run(f"""
import threading, traceback
import aifs_peft
lines = ["import aifs_peft.tuner", "import peft", "import aifs_peft.tuner.layer", "from aifs_peft import AIFSModel"]
start, failed = threading.Barrier(len(lines)), []

def work(line):
    start.wait()
    try:
        exec(line, {{}})
    except BaseException:
        failed.append(traceback.format_exc())

threads = [threading.Thread(target=work, args=(line,)) for line in lines]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failed, failed[0]
import peft
{REGISTERED}
""")
    assert "Warning" not in done.stderr


def test_importing_prints_nothing():
    done = run("import aifs_peft\nfrom aifs_peft import AIFSConfig, AIFSTrainer, AIFSClassifier, LatentClassifier")
    assert done.stdout == ""
    assert done.stderr == ""


def test_only_the_one_notice_of_bitsandbytes_is_left_out():
    done = run("""
import logging
from aifs_peft._peft_hook import _without_kernels_notice
logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
notice = "Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please"
with _without_kernels_notice():
    logger.warning(notice, "no kernels")
    logger.warning("something else")
logger.warning(notice, "later")
assert not logger.filters
""")
    assert done.stderr.splitlines() == [
        "something else",
        "Failed to load CPU gemm_4bit_forward from kernels-community: later. Please",
    ]


def test_without_peft_what_needs_none_works():
    run("""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("peft", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import aifs_peft
from aifs_peft.metrics import group_metrics
from aifs_peft import AIFSClassifier, discover
try:
    aifs_peft.AIFSConfig
except ModuleNotFoundError as error:
    assert error.name == "peft"
else:
    raise AssertionError("AIFSConfig needs PEFT")
""")


def test_a_peft_that_aifs_does_not_fit_still_imports():
    done = run("""
import sys, types, warnings
warnings.simplefilter("always")
import aifs_peft
sys.modules["aifs_peft.tuner"] = None  # its import fails
import peft
assert peft.LoraConfig
""")
    assert "AIFS could not be registered with the installed PEFT" in done.stderr


def test_importing_after_peft_registers_and_changes_no_global_state():
    run(f"""
import logging, random, warnings
import numpy, torch, transformers, peft
before = (list(warnings.filters), random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads(),
          numpy.random.get_state()[1].tolist(), logging.getLogger().level)
import aifs_peft
after = (list(warnings.filters), random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads(),
         numpy.random.get_state()[1].tolist(), logging.getLogger().level)
assert before == after, [a == b for a, b in zip(before, after)]
{REGISTERED}
""")
