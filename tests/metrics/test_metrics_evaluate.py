"""The `evaluate` module, loaded from its folder in a process of its own without a network."""

import json
import os
import subprocess
import sys

import pytest

from aifs_peft.metrics import evaluate_module_path, group_metrics

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("error")
import evaluate
cases = json.loads(sys.argv[2])
results = {}
for config, columns in cases.items():
    metric = evaluate.load(sys.argv[1], config)
    half = len(columns["references"]) // 2
    for part in (slice(0, half), slice(half, None)):
        metric.add_batch(**{name: values[part] for name, values in columns.items()})
    results[config] = metric.compute(num_groups=2, n_boot=5, random_state=0)
try:
    evaluate.load(sys.argv[1], "nonsense")
except ValueError as error:
    results["error"] = str(error)
print(json.dumps(results))
"""

COLUMNS = {"predictions": [0, 1, 0, 1, 0, 1], "references": [0, 1, 1, 1, 0, 0], "groups": [0, 0, 0, 1, 1, 1]}
SCORES = [0.1, 0.9, 0.4, 0.6, 0.2, 0.7]
TABLE = [[1 - s, s] for s in SCORES]
OVERLAP = [[True, True], [True, False], [False, True], [False, False], [True, True], [False, True]]
CASES = {
    "default": COLUMNS,
    "scores": COLUMNS | {"scores": SCORES},
    "probabilities": COLUMNS | {"probabilities": TABLE},
    "overlapping": COLUMNS | {"groups": OVERLAP},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    home = tmp_path_factory.mktemp("hf")
    offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, evaluate_module_path(), json.dumps(CASES)],
        check=False, capture_output=True, text=True, env=os.environ | offline, cwd=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("config", CASES)
def test_module_equals_the_function(loaded, config):
    columns = CASES[config]
    score = columns.get("scores", columns.get("probabilities"))
    expected = group_metrics(
        columns["references"], columns["predictions"], columns["groups"], score, num_groups=2, n_boot=5, random_state=0
    )
    assert json.dumps(loaded[config]) == json.dumps(expected)


def test_unknown_configuration_names_the_known_ones(loaded):
    assert "default, scores, probabilities, overlapping" in loaded["error"]
