"""Layers trained whole: those the user names, and those that the base model's checkpoint does not hold."""

import copy
import json
import re

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tuner_zoo import SMALL, TEXT, batch, build, fill_state, logits

from aifs_peft import AIFSConfig, LatentClassifier
from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError
from aifs_peft.tuner import find_aifs_layer
from aifs_peft.tuner._transformers import not_in_checkpoint
from aifs_peft.tuner.trained_copy import TrainedCopy

PLAIN = {**SMALL, "vocab_size": 40}
TINY_DISTIL = {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}

# Name -> configuration, and the layers outside the head that an encoder's checkpoint lacks, frozen and with LoRA.
ENCODERS = {
    "distilbert": (hf.DistilBertConfig(**TINY_DISTIL), ["pre_classifier"], ["pre_classifier"]),
    "deberta": (hf.DebertaConfig(**PLAIN), ["pooler.dense"], ["pooler.dense"]),
    "deberta-v2": (hf.DebertaV2Config(**PLAIN), ["pooler.dense"], ["pooler.dense"]),
    "deberta-v3": (
        hf.DebertaV2Config(**PLAIN, relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"],
                           position_buckets=4, norm_rel_ebd="layer_norm", share_att_key=True),
        ["pooler.dense"], ["pooler.dense"],
    ),
    "modernbert": (
        hf.ModernBertConfig(**SMALL, **TEXT, cls_token_id=0, sep_token_id=2),
        ["head.dense", "head.norm"], ["head.dense", "head.norm"],
    ),
    "roberta": (hf.RobertaConfig(**SMALL, **TEXT), [], ["classifier.dense"]),
    "electra": (hf.ElectraConfig(**PLAIN, embedding_size=16), [], ["classifier.dense"]),
    "bert": (hf.BertConfig(**PLAIN), [], []),
    "albert": (hf.AlbertConfig(**PLAIN, embedding_size=16), [], []),
}  # fmt: skip
TUNING = {"frozen": {}, "lora": {"encoder_adapter": LoraConfig(r=2, target_modules="all-linear")}}


def classifier_of(folder, seed):
    """A classifier on a saved encoder, as a user loads it; what the checkpoint lacks is drawn with `seed`."""
    torch.manual_seed(seed)
    return hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()


def encoder(name, folder):
    torch.manual_seed(0)
    hf.AutoModel.from_config(ENCODERS[name][0]).save_pretrained(folder)
    return folder


def train_a_little(model):
    """Two steps at a rate that moves everything that is trained."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        model(**batch("bert"), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_what_from_pretrained_reports_as_new_carries_no_mark(name, tmp_path):
    # The contract with transformers: `_is_hf_initialized` is on what was loaded, and on nothing else.
    folder = encoder(name, tmp_path)
    model, report = hf.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, output_loading_info=True
    )
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[key] for key in not_in_checkpoint(model)} == set(report["missing_keys"])
    assert {names[key] for key in not_in_checkpoint(model.to(torch.float64))} == set(report["missing_keys"])
    assert not_in_checkpoint(copy.deepcopy(model)) is None
    assert not_in_checkpoint(hf.AutoModel.from_config(ENCODERS[name][0])) is None


@pytest.mark.parametrize("tuning", TUNING)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_reloaded_adapter_predicts_what_was_saved_whatever_the_checkpoint_lacks(name, tuning, tmp_path):
    folder = encoder(name, tmp_path / "encoder")
    base = classifier_of(folder, seed=1)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    expected = ENCODERS[name][1 if tuning == "frozen" else 2]
    model = get_peft_model(base, AIFSConfig(**TUNING[tuning]))
    assert model.peft_config["default"].new_layers == expected
    untrained = logits(model, "bert")
    fill_state(find_aifs_layer(train_a_little(model)))
    trained = logits(model, "bert")
    moved = [m for n, m in model.named_modules() if isinstance(m, TrainedCopy)]
    assert len(moved) == len(expected)
    for whole in moved:
        assert not torch.equal(whole.weight, whole.base_layer.weight)
    with model.disable_adapter():
        assert torch.equal(logits(model, "bert"), logits(classifier_of(folder, seed=1), "bert"))
    model.save_pretrained(tmp_path / "adapter")

    again = PeftModel.from_pretrained(classifier_of(folder, seed=2), tmp_path / "adapter")
    assert torch.equal(logits(again, "bert"), trained)
    assert not torch.equal(untrained, trained)
    other = PeftModel.from_pretrained(
        classifier_of(folder, seed=3), tmp_path / "adapter", adapter_name="other", low_cpu_mem_usage=True
    )
    assert torch.equal(logits(other, "bert"), trained)
    native = classifier_of(folder, seed=4)
    native.load_adapter(str(tmp_path / "adapter"))
    assert torch.equal(logits(native, "bert"), trained)

    merged = again.merge_and_unload(safe_merge=True)
    assert merged.state_dict().keys() == before.keys()
    torch.testing.assert_close(logits(merged, "bert"), trained, atol=1e-5, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        logits(classifier_of(tmp_path / "merged", seed=5), "bert"), trained, atol=1e-5, rtol=1e-4
    )
    unloaded = model.unload()
    assert all(torch.equal(value, before[key]) for key, value in unloaded.state_dict().items())


@pytest.mark.parametrize("name", ["distilbert", "deberta-v2", "roberta"])
def test_a_checkpoint_that_holds_all_layers_leaves_them_frozen(name, tmp_path):
    torch.manual_seed(0)
    config = copy.deepcopy(ENCODERS[name][0])
    config.num_labels = 3
    hf.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model = get_peft_model(classifier_of(tmp_path, seed=0), AIFSConfig(**TUNING["lora"]))
    assert model.peft_config["default"].new_layers == []
    assert not any(isinstance(module, TrainedCopy) for module in model.modules())


@pytest.mark.parametrize("name", ["distilbert", "modernbert"])
def test_a_copied_model_trains_all_outside_its_encoder(name, tmp_path):
    # A copy has lost what from_pretrained noted down: too much is saved then, nothing is lost.
    folder = encoder(name, tmp_path / "encoder")
    model = get_peft_model(copy.deepcopy(classifier_of(folder, seed=1)), AIFSConfig())
    assert model.peft_config["default"].new_layers == ENCODERS[name][1]
    trained = logits(train_a_little(model), "bert")
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(copy.deepcopy(classifier_of(folder, seed=2)), tmp_path / "adapter")
    assert torch.equal(logits(again, "bert"), trained)


def test_a_frozen_encoder_keeps_its_dropout_off_while_the_new_layer_trains(tmp_path):
    model = get_peft_model(classifier_of(encoder("deberta-v2", tmp_path), seed=1), AIFSConfig()).train()
    modes = {name: module.training for name, module in model.base_model.model.named_modules()}
    assert modes["pooler.dense.aifs_copy.default"]
    assert modes["classifier"]
    assert not any(mode for name, mode in modes.items() if name.startswith("deberta"))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    model = classifier_of(encoder("bert", tmp_path), seed=0)
    for parameter in list(model.bert.encoder.parameters()) + list(model.bert.embeddings.parameters()):
        del parameter._is_hf_initialized  # as `from_pretrained` leaves what it did not find
    with pytest.raises(CheckpointMismatchError, match=r"holds only 272 of the [\d,]+ parameters of its encoder"):
        get_peft_model(model, AIFSConfig())


@pytest.mark.parametrize("known", [True, False], ids=["lost", "nothing lost"])
def test_an_adapter_of_an_earlier_release_is_refused_only_where_it_lost_a_layer(known, tmp_path):
    name = "deberta-v2" if known else "bert"
    folder = encoder(name, tmp_path / "encoder")
    model = get_peft_model(classifier_of(folder, seed=1), AIFSConfig())
    model.save_pretrained(tmp_path / "adapter")
    settings = tmp_path / "adapter" / "adapter_config.json"
    kept = json.loads(settings.read_text())
    del kept["new_layers"], kept["trained_modules"]
    settings.write_text(json.dumps(kept))
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {k: v for k, v in load_file(weights).items() if "aifs_copy" not in k}
    save_file(tensors, weights)
    if known:
        with pytest.raises(CheckpointMismatchError, match=r"did not save the layers pooler\.dense"):
            PeftModel.from_pretrained(classifier_of(folder, seed=2), tmp_path / "adapter")
    else:
        again = PeftModel.from_pretrained(classifier_of(folder, seed=2), tmp_path / "adapter")
        assert torch.equal(logits(again, "bert"), logits(model, "bert"))


def test_a_bfloat16_base_trains_the_new_layer_in_float32_and_reloads_equal(tmp_path):
    folder = encoder("deberta-v2", tmp_path / "encoder")
    model = get_peft_model(classifier_of(folder, seed=1).to(torch.bfloat16), AIFSConfig())
    assert model.base_model.model.pooler.dense.weight.dtype == torch.float32
    trained = logits(train_a_little(model), "bert")
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(classifier_of(folder, seed=2).to(torch.bfloat16), tmp_path / "adapter")
    assert torch.equal(logits(again, "bert"), trained)
    merged = again.merge_and_unload()
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}


def test_a_latent_classifiers_unused_pooler_is_left_alone(tmp_path):
    config = hf.ViTConfig(**SMALL, image_size=16, patch_size=8)
    hf.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")  # holds no pooler
    model = get_peft_model(LatentClassifier.from_pretrained(tmp_path / "vit", num_labels=3), AIFSConfig()).train()
    model(**batch("vit"), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# --- layers the user names


def whole(trained_modules, **more):
    return AIFSConfig(trained_modules=trained_modules, **more)


@pytest.mark.parametrize(
    ("name", "trained_modules", "count"),
    [
        ("vit", "all-linear", 12),
        ("clip", "all-linear", 12),
        ("roberta", "all-linear", 13),
        ("distilbert", "all-linear", 13),
        ("vit", ["q_proj"], 2),
        ("vit", ["layers.1"], 1),
        ("vit", "layernorm", 1),
        ("bert", ["word_embeddings", "pooler"], 2),
    ],
)
def test_named_modules_train_whole_and_reload_equal(name, trained_modules, count, tmp_path):
    base = build(name)
    reference = logits(base, name)
    model = get_peft_model(copy.deepcopy(base), whole(trained_modules)).train()
    wholes = [module for module in model.modules() if isinstance(module, TrainedCopy)]
    assert len(wholes) == count
    model(**batch(name), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("aifs_head" in n or "aifs_copy" in n for n in trained)
    assert all(p.grad is not None for p in trained.values())
    with torch.no_grad():
        for p in trained.values():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    tuned = logits(model, name)
    assert not torch.allclose(tuned, reference, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), reference)
    assert torch.equal(logits(model, name), tuned)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(logits(again, name), tuned)
    again.merge_adapter()
    torch.testing.assert_close(logits(again, name), tuned, atol=1e-5, rtol=1e-4)
    with again.disable_adapter():
        assert torch.equal(logits(again, name), reference)
    merged = model.merge_and_unload()
    assert merged.state_dict().keys() == base.state_dict().keys()
    torch.testing.assert_close(logits(merged, name), tuned, atol=1e-5, rtol=1e-4)


def test_whole_layers_beside_lora_and_a_second_adapter():
    base = build("vit")
    model = get_peft_model(copy.deepcopy(base), whole(["layers.1"], encoder_adapter=LoraConfig(r=2)))
    named = [n for n, _ in model.named_parameters()]
    assert any("layers.0" in n and "lora_" in n for n in named)
    assert not any("layers.1" in n and "lora_" in n for n in named)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.05
    first = logits(model, "vit")
    model.add_adapter("second", whole(["layers.1"]))
    model.add_adapter("third", AIFSConfig())
    assert torch.equal(logits(model, "vit"), first)
    model.set_adapter("second")
    second = logits(model, "vit")
    model.set_adapter("third")
    with model.disable_adapter():
        assert torch.equal(logits(model, "vit"), logits(base, "vit"))
    assert torch.equal(second, logits(get_peft_model(copy.deepcopy(base), AIFSConfig()), "vit"))
    model.delete_adapter("second")
    model.set_adapter("default")
    assert torch.equal(logits(model, "vit"), first)


def test_trained_copies_stand_in_for_attributes_and_stay_out_of_each_other():
    model = get_peft_model(build("vit"), whole(["layers", "layers.0", "layers.0.attention.q_proj"]))
    found = [n for n, m in model.named_modules() if isinstance(m, TrainedCopy)]
    assert len(found) == 1
    layer = TrainedCopy(torch.nn.Linear(3, 2), "default")
    assert layer.in_features == 3
    layer.aifs_copy["default"].in_features = 7
    assert layer.in_features == 7
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = layer.nonsense
    assert torch.equal(copy.deepcopy(layer)(torch.ones(1, 3)), layer(torch.ones(1, 3)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            lambda: whole(["no_such_layer"]),
            "trained_modules=['no_such_layer'] names 'no_such_layer', which is no module",
        ),
        (lambda: whole(["classifier"]), "names 'classifier', which is no module"),
        (lambda: whole([]), "trained_modules must name at least one module"),
        (lambda: whole([1]), "trained_modules must be names of modules"),
    ],
)
def test_what_cannot_be_trained_whole_is_refused(config, words):
    with pytest.raises(InvalidConfigError, match=re.escape(words)):
        get_peft_model(build("vit"), config())


def test_a_layer_with_another_adapters_lora_is_refused():
    model = get_peft_model(build("vit"), AIFSConfig(encoder_adapter=LoraConfig(r=2)))
    with pytest.raises(InvalidConfigError, match=r"carries a Linear of another adapter|cannot be trained whole"):
        model.add_adapter("second", whole("all-linear"))
