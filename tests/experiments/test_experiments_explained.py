"""What a run leaves to explain it: predictions with the attribute toggled, and maps that point at the planted mark."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marked_scans import AREA, scan_splits, share_on_mark

from aifs_peft.cli.finetune import write_run
from aifs_peft.cli.options import DEFAULTS
from aifs_peft.errors import InvalidInputError
from aifs_peft.experiments import FinetuneSpec, build, highlighting, run_finetune, toggling
from aifs_peft.experiments.toggling import NOT_LOOKED, NOTHING, TRAINED_AGAINST
from aifs_peft.report import highlighted_rows, write_report
from aifs_peft.training import AIFSTrainingArguments

SPEC = FinetuneSpec(adapter="none")


def arguments(folder: Path, **settings: Any) -> AIFSTrainingArguments:
    common = {**DEFAULTS, "output_dir": str(folder), "num_train_epochs": 3, "use_cpu": True, "disable_tqdm": True}
    return AIFSTrainingArguments(**{**common, **settings})


@pytest.fixture(scope="module")
def scans():
    return scan_splits()


@pytest.fixture(scope="module")
def run(scans, tmp_path_factory: pytest.TempPathFactory):
    """A run of `aifs` on a frozen encoder, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_data", lambda _spec: scans[0])
        result = run_finetune(SPEC, arguments(folder), [])
    write_run(result, folder)
    return result, folder


def test_plain_training_leans_on_the_mark_and_this_model_does_not(run) -> None:
    result, folder = run
    told = json.loads((folder / "what_if.json").read_text())
    assert told == result.what_if
    everything = told["rows"][0]
    assert everything["n"] == 240
    assert everything["plain"]["changed"] > 0.4
    assert everything["method"]["changed"] < 0.5 * everything["plain"]["changed"]
    assert told["share"]["plain"] > 1.5 * told["share"]["method"]
    assert TRAINED_AGAINST in told["sentences"]
    assert "240 test images" in told["sentences"][0]


def test_the_inferred_values_are_those_of_the_mark(run, scans) -> None:
    result, _ = run
    marks = scans[1]["test"]
    names = ["benign", "malignant"]
    right = [names[marks[row["row"]]] == row["inferred"] for row in result.what_if["examples"]]
    assert np.mean(right) > 0.95


def test_the_maps_point_at_the_mark(run, scans) -> None:
    result, folder = run
    records = json.loads((folder / "audit" / "highlights.json").read_text())
    assert [record["row"] for record in records] == highlighted_rows(result.audit)
    shares = [share_on_mark(np.asarray(record["patches"])) for record in records]
    # The mark is 5 % of the picture. A map that knew nothing would have 5 % of its mass there.
    assert np.median(shares) > 5 * AREA
    assert min(shares) > AREA
    for record in records:  # the attribute value is that of the mark, with the mark and without it
        assert (record["inferred"] == "malignant") == bool(scans[1]["train"][record["row"]])


def test_the_share_along_the_attribute_is_logged_by_epoch(run) -> None:
    result, _ = run
    told = [entry for entry in result.summary["history"] if "spurious_attribution" in entry]
    assert [entry["epoch"] for entry in told] == [1, 2, 3]
    assert all(0 <= entry["spurious_attribution"] <= 1 for entry in told)


def test_the_report_shows_it(run) -> None:
    _, folder = run
    page = write_report(folder).read_text()
    for text in ("What the attribute's score reads", "Decisions along the attribute", "What if?",
                 "Predictions that change with the attribute", "of the predictions of plain training"):  # fmt: skip
        assert text in page or text.replace("'", "&#39;") in page, text


def test_a_report_of_an_older_run_folder_still_works(run, tmp_path: Path) -> None:
    _, folder = run
    for file in ("summary.json", "audit/audit.json", "audit/examples.json", "adapter_model.safetensors"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    page = write_report(tmp_path).read_text()
    assert "What if?" not in page
    assert "score reads" not in page


def test_a_method_that_finds_nothing_itself_is_toggled_by_the_audit(scans, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(build, "load_data", lambda _spec: scans[0])
    result = run_finetune(SPEC, arguments(tmp_path, method="erm"), [])
    rows = result.what_if["rows"]
    assert rows[0]["method"]["changed"] > 0.4
    assert "plain" not in rows[0]
    assert TRAINED_AGAINST not in result.what_if["sentences"]


@pytest.mark.parametrize("method", ["aifs", "jtt"])
def test_a_tuned_encoder_is_toggled_in_its_own_latents(method: str, scans, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(build, "load_data", lambda _spec: scans[0])
    spec = replace(SPEC, adapter="lora")
    result = run_finetune(spec, arguments(tmp_path, method=method, num_train_epochs=2), [])
    rows = result.what_if["rows"]
    assert rows[0]["plain"]["changed"] > 0.25  # a plain head on the untuned encoder
    if method == "aifs":
        assert rows[0]["method"]["changed"] < 0.85 * rows[0]["plain"]["changed"]
        history = [e["spurious_attribution"] for e in result.summary["history"] if "spurious_attribution" in e]
        assert len(history) == 3  # at each end of an epoch, and of the last layer that was fitted anew
    write_run(result, tmp_path)
    records = json.loads((tmp_path / "audit" / "highlights.json").read_text())
    # The maps are of the encoder before it was tuned, which is what the audit looked at.
    assert np.median([share_on_mark(np.asarray(record["patches"])) for record in records]) > 5 * AREA


def test_nothing_found_is_told(tmp_path: Path) -> None:
    options = {"n_train": 96, "n_validation": 100, "n_test": 40, "image_size": 16}
    spec = replace(SPEC, dataset="spurious_scenes", dataset_options=options)
    result = run_finetune(spec, arguments(tmp_path), [])
    assert not result.audit.found
    assert result.what_if == {"rows": [], "examples": [], "sentences": [NOTHING]}
    write_run(result, tmp_path)
    assert NOTHING in write_report(tmp_path).read_text()
    assert not (tmp_path / "audit" / "highlights.json").exists()


def test_without_an_audit_nobody_looked() -> None:
    assert toggling.toggle({}, {}, None, ["a"], "image", looked=False)["sentences"] == [NOT_LOOKED]


def test_a_failure_is_told_and_the_run_is_saved(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no gradient here\nand more")

    monkeypatch.setattr(highlighting, "highlight_inputs", fail)
    said: list[str] = []
    write_run(result, tmp_path, said.append)
    assert said == ["no highlighted examples in the report: RuntimeError: no gradient here"]
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "audit" / "highlights.json").exists()
    assert "What if?" in write_report(tmp_path).read_text()

    def refuse() -> dict[str, Any]:
        raise InvalidInputError("latents of another width")

    told = toggling.toggled_or_reason(refuse, said.append)
    assert told["sentences"] == [
        "What would change with another attribute value was not worked out: latents of another width."
    ]
    assert said[1:] == ["no what-if: latents of another width"]


def test_the_model_is_left_as_it_was(run) -> None:
    result, _ = run
    before = {name: module.training for name, module in result.model.named_modules()}
    logits = result.model(**result.prepared["test"].batch(0, 4)).logits
    highlighting.highlight_run(result, highlighted_rows(result.audit))
    assert {name: module.training for name, module in result.model.named_modules()} == before
    assert torch.equal(result.model(**result.prepared["test"].batch(0, 4)).logits, logits)
