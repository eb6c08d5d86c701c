"""Every model family x every encoder adapter: train, disable, save, reload, rename, merge."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import tuner_zoo
from peft import AutoPeftModel, AutoPeftModelForSequenceClassification, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tuner_zoo import IMAGE_MODELS, TEXT_MODELS, batch, build, encoder_adapter, fill_state, logits

from aifs_peft import AIFSConfig
from aifs_peft.tuner import find_aifs_layer

MODELS = (*IMAGE_MODELS, *TEXT_MODELS)
CASES = [(name, kind) for name in MODELS for kind in ("frozen", "lora", "dora", "ia3")]
ids = [f"{name}-{kind}" for name, kind in CASES]


def adapter_state(model):
    """All AIFS tensors by their name without the adapter's."""
    layer = find_aifs_layer(model)
    return {**layer.state.state_dict(), **{f"head.{k}": v for k, v in layer.head.state_dict().items()}}


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("name", "kind"), CASES, ids=ids)
def test_disabled_saved_reloaded_renamed_and_merged(name, kind, tmp_path):
    base = build(name)
    reference = logits(base, name)
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(encoder_adapter=encoder_adapter(kind)))
    fill_state(find_aifs_layer(model))
    trained = logits(model, name)
    assert not torch.equal(trained, reference)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), reference)
    assert torch.equal(logits(model, name), trained)

    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(logits(again, name), trained)
    assert same(adapter_state(again), adapter_state(model))
    other = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, adapter_name="other", low_cpu_mem_usage=True)
    assert torch.equal(logits(other, name), trained)
    assert same(adapter_state(other), adapter_state(model))

    merged = model.merge_and_unload(safe_merge=True)
    assert type(merged) is type(base)
    assert merged.state_dict().keys() == base.state_dict().keys()
    torch.testing.assert_close(logits(merged, name), trained, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["frozen", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_base_keeps_head_and_state_precise(name, kind, tmp_path):
    base = build(name).to(torch.bfloat16)
    inputs = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in batch(name).items()}
    with torch.no_grad():
        reference = base(**inputs).logits
        model = get_peft_model(copy.deepcopy(base), AIFSConfig(encoder_adapter=encoder_adapter(kind))).eval()
        fill_state(find_aifs_layer(model))
        trained = model(**inputs).logits
        with model.disable_adapter():
            disabled = model(**inputs).logits
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, low_cpu_mem_usage=True).eval()
        reloaded = again(**inputs).logits
        merged = copy.deepcopy(model).merge_and_unload()(**inputs).logits
    assert reference.dtype == disabled.dtype == merged.dtype == torch.bfloat16
    assert torch.equal(disabled, reference)
    assert trained.dtype == torch.float32
    assert torch.equal(reloaded, trained)
    assert same(adapter_state(again), adapter_state(model))
    assert find_aifs_layer(again).state.mask.dtype == torch.float32
    # One rounding of the latent and the weights to 8 bits of mantissa.
    torch.testing.assert_close(merged.float(), trained, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in MODELS for k in ("frozen", "lora")])
def test_what_is_trainable_gets_a_gradient_and_nothing_else_is_trainable(name, kind):
    model = get_peft_model(build(name), AIFSConfig(encoder_adapter=encoder_adapter(kind))).train()
    loss = model(**batch(name), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, p in model.named_parameters() if p.grad is not None}
    assert all(any(part in n for part in ("aifs_head", "lora_", "aifs_copy")) for n in trainable)
    assert any("aifs_head" in n for n in trainable)
    assert any("lora_" in n for n in trainable) == (kind == "lora")
    # A RoBERTa head is wrapped whole, its dense layer with it, when the encoder is frozen.
    new = {("roberta", "lora"): "classifier.dense"} | {("distilbert", k): "pre_classifier" for k in ("frozen", "lora")}
    whole = {n.partition(".aifs_copy")[0] for n in trainable if "aifs_copy" in n}
    assert whole == {f"base_model.model.{new[name, kind]}"} if (name, kind) in new else whole == set()


@pytest.mark.parametrize("kind", ["frozen", "lora"])
@pytest.mark.parametrize("name", ["vit", "clip", "roberta", "distilbert"])
def test_another_number_of_classes_reaches_the_base_model(name, kind, tmp_path):
    base = build(name)
    base.save_pretrained(tmp_path / "base")
    base = type(base).from_pretrained(tmp_path / "base")
    labels = ["a", "b", "c", "d", "e"]
    model = get_peft_model(base, AIFSConfig(labels=labels, encoder_adapter=encoder_adapter(kind)))
    fill_state(find_aifs_layer(model))
    out = model(**batch(name), labels=torch.tensor([4, 3, 2, 1]))
    assert out.logits.shape == (4, 5)
    assert torch.isfinite(out.loss)
    assert model.config.id2label == dict(enumerate(labels))
    trained = logits(model, name)
    with model.disable_adapter():
        assert model.config.num_labels == 3
        assert logits(model, name).shape == (4, 3)
    assert model.config.num_labels == 5
    model.save_pretrained(tmp_path / "adapter")
    auto = AutoPeftModel.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(auto, name), trained)
    merged = auto.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    plain = type(merged).from_pretrained(tmp_path / "merged")
    assert plain.config.label2id["e"] == 4
    torch.testing.assert_close(logits(plain, name), trained, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["frozen", "lora"])
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_sequence_classification_task(name, kind, tmp_path):
    base = build(name)
    base.save_pretrained(tmp_path / "base")
    base = type(base).from_pretrained(tmp_path / "base")
    config = AIFSConfig(task_type="SEQ_CLS", num_labels=4, encoder_adapter=encoder_adapter(kind))
    model = get_peft_model(base, config)
    fill_state(find_aifs_layer(model))
    model.save_pretrained(tmp_path / "adapter")
    auto = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(auto, name), logits(model, name))


@pytest.mark.parametrize("kind", ["frozen", "lora"])
@pytest.mark.parametrize("name", ["vit", "siglip", "roberta", "distilbert"])
def test_transformers_loads_the_folder_by_itself(name, kind, tmp_path):
    base = build(name)
    base.save_pretrained(tmp_path / "base")
    model = get_peft_model(
        type(base).from_pretrained(tmp_path / "base"), AIFSConfig(encoder_adapter=encoder_adapter(kind))
    )
    fill_state(find_aifs_layer(model))
    model.save_pretrained(tmp_path / "adapter")
    native = type(base).from_pretrained(tmp_path / "base")
    native.load_adapter(str(tmp_path / "adapter"))
    assert torch.equal(logits(native, name), logits(model, name))
    assert same(adapter_state(native), adapter_state(model))
    direct = type(base).from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(direct, name), logits(model, name))


def test_a_fresh_process_gives_the_same_bits(tmp_path):
    expected = {}
    cases = ["vit-lora", "clip-frozen", "dinov2-ia3", "roberta-frozen", "roberta-lora", "distilbert-lora", "bert-dora"]
    for case in cases:
        name, kind = case.split("-")
        build(name).save_pretrained(tmp_path / name)
        base = type(build(name)).from_pretrained(tmp_path / name)
        model = get_peft_model(base, AIFSConfig(encoder_adapter=encoder_adapter(kind)))
        fill_state(find_aifs_layer(model))
        model.save_pretrained(tmp_path / case)
        expected[f"{case}/logits"] = logits(model, name)
        expected |= {f"{case}/{k}": v for k, v in model.state_dict().items() if "aifs_" in k}
    script = Path(tuner_zoo.__file__)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, str(script), str(tmp_path), *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert same(load_file(tmp_path / "fresh.safetensors"), expected)
    assert any("basis" in key for key in expected)


def test_two_adapters_of_different_kinds_live_in_one_model(tmp_path):
    base = build("vit")
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(encoder_adapter=encoder_adapter("lora")))
    fill_state(find_aifs_layer(model))
    first = logits(model, "vit")
    model.add_adapter("wide", AIFSConfig(num_labels=5, head="mlp", encoder_adapter=LoraConfig(r=1)))
    model.add_adapter("still", AIFSConfig(head="linear"))
    assert torch.equal(logits(model, "vit"), first)
    model.set_adapter("wide")
    assert logits(model, "vit").shape == (4, 5)
    assert model.config.num_labels == 5
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".wide." in n for n in trainable)
    model.set_adapter("still")
    assert model.config.num_labels == 3
    fill_state(find_aifs_layer(model))
    still = logits(model, "vit")
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "still", adapter_name="x")
    assert torch.equal(logits(again, "vit"), still)
    again.load_adapter(tmp_path, "y")
    again.set_adapter("y")
    assert torch.equal(logits(again, "vit"), first)
    model.set_adapter("default")
    assert torch.equal(logits(model, "vit"), first)
    model.delete_adapter("wide")
    assert torch.equal(logits(model, "vit"), first)
    assert not any(".wide" in n for n in model.state_dict())
    with model.disable_adapter():
        assert torch.equal(logits(model, "vit"), logits(base, "vit"))


def test_merge_and_unmerge_in_place():
    model = get_peft_model(build("vit"), AIFSConfig(encoder_adapter=encoder_adapter("lora")))
    fill_state(find_aifs_layer(model))
    before = logits(model, "vit")
    model.merge_adapter()
    torch.testing.assert_close(logits(model, "vit"), before, atol=1e-5, rtol=1e-4)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model, "vit"), before, atol=1e-5, rtol=1e-4)
    assert model.get_layer_status()


def test_the_callers_configuration_is_not_changed_and_can_be_used_again():
    inner = encoder_adapter("lora")
    config = AIFSConfig(encoder_adapter=inner)
    before = copy.deepcopy(config.to_dict())
    for name in ("vit", "roberta"):
        model = get_peft_model(build(name), config)
        fill_state(find_aifs_layer(model))
    after = config.to_dict()
    after["base_model_name_or_path"] = before["base_model_name_or_path"]  # PEFT fills it in
    assert after == before
    assert inner.target_modules is None


def test_inference_and_trainable_loading(tmp_path):
    model = get_peft_model(build("vit"), AIFSConfig(encoder_adapter=encoder_adapter("lora")))
    model.save_pretrained(tmp_path)
    fixed = PeftModel.from_pretrained(build("vit"), tmp_path)
    assert not any(p.requires_grad for p in fixed.parameters())
    trainable = PeftModel.from_pretrained(build("vit"), tmp_path, is_trainable=True)
    names = {n for n, p in trainable.named_parameters() if p.requires_grad}
    assert names == {n for n, p in model.named_parameters() if p.requires_grad}
