"""A run: the encoder once where it is frozen, the plain counterpart, and a summary that is plain JSON."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import PeftModel
from planted import planted

from aifs_peft.cli.options import DEFAULTS
from aifs_peft.data import load
from aifs_peft.experiments import FinetuneSpec, build, encode, run_finetune
from aifs_peft.experiments.build import build_trainer
from aifs_peft.experiments.latents import latents_of
from aifs_peft.models import load_model
from aifs_peft.training import AIFSTrainingArguments

SCENES = FinetuneSpec(
    dataset="spurious_scenes", adapter="none", audit=False,
    dataset_options={"n_train": 96, "n_validation": 100, "n_test": 40, "image_size": 16},
)  # fmt: skip


def arguments(folder: Path, **settings: Any) -> AIFSTrainingArguments:
    common = {**DEFAULTS, "output_dir": str(folder), "num_train_epochs": 2, "use_cpu": True, "disable_tqdm": True}
    return AIFSTrainingArguments(**{**common, **settings})


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images in each forward pass of a CLIP image tower from here on."""
    from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

    seen: list[int] = []
    forward = CLIPVisionEmbeddings.forward

    def counted(self: Any, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        seen.append(len(pixel_values))
        return forward(self, pixel_values, **kwargs)

    monkeypatch.setattr(CLIPVisionEmbeddings, "forward", counted)
    return seen


@pytest.mark.parametrize("method", ["aifs", "erm", "jtt", "afr", "dfr-oracle"])
def test_a_frozen_encoder_encodes_once_and_nothing_else_changes(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(SCENES, baseline="none")
    slow = build_trainer(spec, arguments(tmp_path / "slow", method=method), [])
    slow.trainer.train()
    expected = slow.trainer.predict(slow.prepared["test"]).predictions
    seen = count_passes(monkeypatch)
    quick = run_finetune(spec, arguments(tmp_path / "quick", method=method), [])
    assert seen[0] == 1  # the made-up image that the adapter is tried on when it is attached
    assert sum(seen[1:]) == 96 + 100 + 40
    np.testing.assert_allclose(quick.logits, expected, atol=1e-5)
    # What was trained on latents is the adapter itself: it predicts the same from images.
    test = build_trainer(spec, arguments(tmp_path / "again"), []).prepared["test"]
    np.testing.assert_allclose(quick.trainer.predict(test).predictions, expected, atol=1e-5)


@pytest.mark.parametrize("latents", ["last", "multi"])
def test_the_saved_adapter_predicts_what_the_run_did(latents: str, tmp_path: Path) -> None:
    result = run_finetune(replace(SCENES, latents=latents), arguments(tmp_path / "run"), [])
    assert result.model.peft_config["default"].latents == latents
    result.model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    fresh = load_model("tiny_clip", modality="image", label_names=result.summary["label_names"])
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()
    test = build_trainer(SCENES, arguments(tmp_path / "again"), []).prepared["test"]
    with torch.no_grad():
        logits = loaded(**test.batch(0, len(test))).logits
    np.testing.assert_allclose(logits.numpy(), result.logits, atol=1e-5)


def test_a_run_on_kept_latents_is_resumed_exactly(tmp_path: Path) -> None:
    whole = run_finetune(SCENES, arguments(tmp_path / "whole", num_train_epochs=3, save_total_limit=3), [])
    checkpoints = sorted((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(checkpoints) == 3
    resumed = run_finetune(
        SCENES, arguments(tmp_path / "rest", num_train_epochs=3, resume_from_checkpoint=str(checkpoints[0])), []
    )
    np.testing.assert_array_equal(whole.logits, resumed.logits)


def test_plain_of_a_frozen_encoder_is_what_erm_gives(tmp_path: Path) -> None:
    run = run_finetune(SCENES, arguments(tmp_path / "aifs", method="aifs-paper"), [])
    erm = run_finetune(SCENES, arguments(tmp_path / "erm", method="erm"), [])
    assert run.plain.kind == "plain_head_on_cached_latents"
    np.testing.assert_array_equal(run.plain.logits, erm.logits)
    assert erm.plain.kind == "none"
    assert erm.summary["comparison"]["average"]["plain"] is None
    assert not (tmp_path / "aifs" / "plain").exists()


def test_plain_of_a_tuned_encoder_is_a_head_on_untuned_latents(tmp_path: Path) -> None:
    tuned, frozen = replace(SCENES, adapter="lora"), replace(SCENES, adapter="none")
    run = run_finetune(tuned, arguments(tmp_path / "lora"), [])
    assert run.plain.kind == run.summary["baseline"]["kind"] == "plain_head_on_untuned_latents"
    assert "before it was tuned" in run.summary["baseline"]["note"]
    erm = run_finetune(frozen, arguments(tmp_path / "erm", method="erm"), [])
    np.testing.assert_allclose(run.plain.logits, erm.logits, atol=1e-4)


def test_plain_training_of_the_whole(tmp_path: Path) -> None:
    tuned = replace(SCENES, adapter="lora", baseline="erm")
    run = run_finetune(tuned, arguments(tmp_path / "paper", method="aifs-paper", alpha=0.5), [])
    erm = run_finetune(tuned, arguments(tmp_path / "erm", method="erm"), [])
    assert run.plain.kind == "erm"
    np.testing.assert_array_equal(run.plain.logits, erm.logits)


def test_a_counterpart_that_is_there_is_used(tmp_path: Path) -> None:
    erm = run_finetune(SCENES, arguments(tmp_path / "erm", method="erm"), [])
    given = replace(erm.plain, kind="erm", logits=erm.logits)
    run = run_finetune(SCENES, arguments(tmp_path / "paper", method="aifs-paper"), [], plain=given)
    assert run.summary["baseline"]["kind"] == "erm"
    plain = run.summary["comparison"]["average"]["plain"]["accuracy"]
    assert plain == pytest.approx(erm.summary["metrics"]["average_accuracy"])


def test_the_summary_is_json_and_leaves_global_draws_alone(tmp_path: Path) -> None:
    result = run_finetune(SCENES, arguments(tmp_path), [])
    text = json.dumps(result.summary, allow_nan=False)
    assert json.loads(text) == result.summary
    rows = result.summary["comparison"]["rows"]
    assert [row["cell"] for row in rows][:2] == ["aligned", "conflicting"]
    assert result.summary["metrics"]["n"] == 40


def test_without_groups_cells_are_inferred_on_held_out_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, attributes = {}, {}
    for seed, name in enumerate(("train", "validation", "test")):
        z, y, attributes[name] = planted(n=1000, shortcut=5.0, seed=seed)
        splits[name] = Dataset.from_dict({"features": z.tolist(), "label": y.tolist()})
    monkeypatch.setattr(build, "load_data", lambda _spec: DatasetDict(splits))
    spec = FinetuneSpec(model="identity", adapter="none", audit=False)
    result = run_finetune(spec, arguments(tmp_path / "run"), [])
    comparison = result.summary["comparison"]
    assert result.summary["found"] is True
    against = (attributes["train"] != torch.as_tensor(splits["train"]["label"][:])).sum()
    assert result.summary["conflicting"]["of"] == 1000
    assert abs(result.summary["conflicting"]["n"] - int(against)) <= 5
    assert comparison["cells_from"] == "inferred"
    conflicting = comparison["rows"][1]
    true = attributes["test"] != torch.as_tensor(splits["test"]["label"][:])
    assert conflicting["cell"] == "conflicting"
    assert abs(conflicting["n"] - int(true.sum())) <= 10
    assert conflicting["method"]["accuracy"] > conflicting["plain"]["accuracy"]


def test_the_audit_sorts_held_out_examples_for_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits, attributes = {}, {}
    for seed, name in enumerate(("train", "validation", "test")):
        z, y, attributes[name] = planted(n=1000, shortcut=5.0, seed=seed)
        splits[name] = Dataset.from_dict({"features": z.tolist(), "label": y.tolist()})
    monkeypatch.setattr(build, "load_data", lambda _spec: DatasetDict(splits))
    spec = FinetuneSpec(model="identity", adapter="none")
    result = run_finetune(spec, arguments(tmp_path / "run", method="jtt"), [])
    assert result.summary["found"] is None
    assert result.summary["audit"]["found"] is True
    assert result.audit is not None
    comparison = result.summary["comparison"]
    assert comparison["cells_from"] == "inferred"
    true = attributes["test"] != torch.as_tensor(splits["test"]["label"][:])
    assert abs(comparison["rows"][1]["n"] - int(true.sum())) <= 10


def test_encode_gives_rows_with_latents_in_place_of_the_input() -> None:
    scenes = load("spurious_scenes", n_train=20, n_validation=8, n_test=8, image_size=16)
    rows = encode("tiny_clip", scenes["train"], batch_size=6)
    assert "image" not in rows.column_names
    assert rows["label"][:] == scenes["train"]["label"][:]
    run = build_trainer(replace(SCENES, dataset_options={"n_train": 20, "n_validation": 8, "n_test": 8,
                                                         "image_size": 16}), arguments(Path("unused")), [])  # fmt: skip
    model = run.trainer.adapted
    expected = latents_of(model, run.prepared["train"])
    np.testing.assert_allclose(np.asarray(rows["features"][:]), expected.numpy(), atol=1e-5)
    assert not any(hook for module in model.modules() for hook in module._forward_pre_hooks.values())
