"""Finding the head and the encoder's targets, and what is refused."""

import copy

import pytest
import torch
import transformers as hf
from peft import IA3Config, LNTuningConfig, LoHaConfig, LoraConfig, OFTConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from tuner_zoo import SMALL, TEXT, batch, build, fill_state, logits

from aifs_peft import AIFSConfig
from aifs_peft.errors import CheckpointMismatchError, HeadError, InvalidConfigError
from aifs_peft.tuner import AIFSLayer, AIFSModel, find_aifs_layer


class Net(nn.Module):
    """A plain PyTorch network whose head has an unusual name."""

    def __init__(self, head="readout"):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.name = head
        setattr(self, head, nn.Linear(8, 3))

    def forward(self, x):
        return getattr(self, self.name)(self.body(x))


@pytest.mark.parametrize("head", ["classifier", "fc", "head", "score", "heads"])
def test_usual_names_are_found_in_plain_modules(head):
    model = get_peft_model(Net(head), AIFSConfig())
    assert isinstance(getattr(model.base_model.model, head), AIFSLayer)
    assert model.peft_config["default"].target_modules == [head]


def test_an_unknown_head_lists_the_candidates():
    with pytest.raises(HeadError, match=r"none of classifier, .* is in this Net\. .*'body.0', 'readout'|'readout'"):
        get_peft_model(Net(), AIFSConfig())
    model = get_peft_model(Net(), AIFSConfig(target_modules="readout"))
    assert find_aifs_layer(model).in_features == 8


def test_a_name_that_is_absent_ambiguous_or_no_head_is_an_error():
    with pytest.raises(HeadError, match=r"the head 'top' is not in this Net.*readout.*target_modules"):
        get_peft_model(Net(), AIFSConfig(target_modules="top"))
    with pytest.raises(HeadError, match=r"'fc1' names 2 modules \(vit.layers.0.mlp.fc1, vit.layers.1.mlp.fc1\)"):
        get_peft_model(build("vit"), AIFSConfig(target_modules="fc1"))
    with pytest.raises(HeadError, match=r"'body.1' is a BatchNorm1d without a linear layer, which is no"):
        get_peft_model(Net(), AIFSConfig(target_modules="body.1"))


def test_layers_of_gpt2_get_a_default_of_their_own():
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config = hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, num_labels=3, **ids)
    model = get_peft_model(hf.GPT2ForSequenceClassification(config), AIFSConfig(encoder_adapter=LoraConfig(r=2)))
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A") and module.lora_A]
    assert adapted == ["base_model.model.transformer.h.0.attn.c_attn"]


def test_a_token_classifier_is_refused_when_it_runs():
    base = hf.BertForTokenClassification(hf.BertConfig(**SMALL, vocab_size=40, num_labels=3))
    with pytest.raises(HeadError, match="sees 6 vectors per example"):
        get_peft_model(base, AIFSConfig())(**batch("bert"))


def test_an_encoder_without_a_head_is_sent_to_latent_classifier():
    base = hf.ViTModel(hf.ViTConfig(**SMALL, image_size=16, patch_size=8))
    with pytest.raises(HeadError, match=r"wrap it in aifs_peft\.LatentClassifier"):
        get_peft_model(base, AIFSConfig())


@pytest.mark.parametrize(("name", "saved"), [("vit", "classifier"), ("roberta", "classifier"), ("roberta", "out_proj")])
def test_saving_the_head_twice_is_refused_and_leaves_the_model_alone(name, saved):
    base = build(name)
    with pytest.raises(InvalidConfigError, match=rf"modules_to_save=\['{saved}'\].*names the head"):
        get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(modules_to_save=[saved])))
    assert not any("lora" in n or "aifs" in n for n in base.state_dict())


def test_a_second_head_is_refused():
    model = get_peft_model(build("roberta"), AIFSConfig())
    with pytest.raises(HeadError, match="already has AIFS on 'classifier'; every adapter must wrap that head"):
        model.add_adapter("b", AIFSConfig(target_modules="roberta.encoder.layer.0.output.dense"))
    assert list(model.peft_config) == ["default"]


def test_a_head_that_carries_lora_is_refused():
    base = get_peft_model(build("vit"), LoraConfig(target_modules=["classifier"])).base_model.model
    del base.peft_config  # PEFT warns about it before anything is looked at
    with pytest.raises(HeadError, match=r"the model already carries another adapter .* at 'classifier'"):
        AIFSModel(base, AIFSConfig(), "default")


@pytest.mark.parametrize(
    ("name", "targets", "exclude"),
    [
        ("vit", "all-linear", None),
        ("vit", "all-linear", ["fc1"]),
        ("vit", ["q_proj", "classifier"], None),
        ("vit", r".*(q_proj|classifier)", r".*\.0\..*"),
        ("roberta", "all-linear", None),
        ("roberta", ["query", "classifier.dense"], None),
        ("roberta", r".*(query|out_proj)", None),
    ],
)
def test_lora_never_lands_on_the_head(name, targets, exclude):
    inner = LoraConfig(target_modules=targets, exclude_modules=exclude)
    model = get_peft_model(build(name), AIFSConfig(encoder_adapter=inner))
    wrapped = {n.partition(".lora_A")[0] for n in model.state_dict() if ".lora_A" in n}
    assert wrapped
    assert not any("classifier" in n for n in wrapped)
    assert not any("fc1" in n for n in wrapped) or exclude != ["fc1"]
    model(**batch(name), labels=torch.zeros(4, dtype=torch.long)).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("vit", {"q_proj", "v_proj"}),
        ("clip", {"q_proj", "v_proj"}),
        ("bert", {"query", "value"}),
        ("distilbert", {"q_lin", "v_lin"}),
    ],
)
def test_default_targets_follow_the_family(name, targets):
    model = get_peft_model(build(name), AIFSConfig(encoder_adapter=LoraConfig()))
    assert set(model.peft_config["default"].nested.target_modules) == targets


def test_no_known_target_is_an_error():
    message = "no default target of IA3Config is known for Net; set target_modules"
    with pytest.raises(InvalidConfigError, match=message):
        get_peft_model(Net("fc"), AIFSConfig(encoder_adapter=IA3Config()))


@pytest.mark.parametrize(
    "inner",
    [
        LoHaConfig(r=2, init_weights=False),
        OFTConfig(r=0, oft_block_size=4, init_weights=False),
        pytest.param(
            LNTuningConfig(target_modules=["layernorm_before"]),
            # PEFT's own helper does not know LayerNorm, which is what PEFT's LN tuning is for.
            marks=pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
        ),
        LoraConfig(r=2, use_rslora=True, lora_dropout=0.5, init_lora_weights=False, modules_to_save=["layernorm"]),
    ],
    ids=["loha", "oft", "ln", "rslora"],
)
def test_other_encoder_adapters(inner, tmp_path):
    base = build("vit")
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(encoder_adapter=inner))
    fill_state(find_aifs_layer(model))
    trained = logits(model, "vit")
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, adapter_name="other")
    assert torch.equal(logits(again, "vit"), trained)
    with model.disable_adapter():
        assert torch.equal(logits(model, "vit"), logits(base, "vit"))


def test_a_frozen_encoder_stays_in_eval_mode_and_the_head_trains():
    model = get_peft_model(Net("fc"), AIFSConfig()).train()
    body, layer = model.base_model.model.body, find_aifs_layer(model)
    assert not any(m.training for m in body.modules())
    assert all(m.training for m in layer.modules())
    before = copy.deepcopy(body.state_dict())
    x = torch.randn(16, 4)
    assert torch.equal(model(x), model(x))
    assert all(torch.equal(before[k], v) for k, v in body.state_dict().items())
    model.eval()
    assert not any(m.training for m in model.modules())


def test_with_lora_dropout_is_on_and_frozen_batch_norms_are_off():
    model = get_peft_model(Net("fc"), AIFSConfig(encoder_adapter=LoraConfig(target_modules=["body.0"]))).train()
    body = model.base_model.model.body
    assert not body[1].training
    assert body[3].training
    before = body[1].running_mean.clone()
    model(torch.randn(16, 4))
    assert torch.equal(body[1].running_mean, before)


def test_a_batch_norm_that_is_trained_stays_in_training_mode():
    inner = LoraConfig(target_modules=["body.0"], modules_to_save=["body.1"])
    model = get_peft_model(Net("fc"), AIFSConfig(encoder_adapter=inner)).train()
    assert model.base_model.model.body[1].modules_to_save["default"].training


def test_adapters_on_tensorflow_padded_convolutions(tmp_path):
    base = build("mobilenet")
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(encoder_adapter=LoraConfig(r=2, init_lora_weights=False)))
    fill_state(find_aifs_layer(model))
    convolutions = [n for n in model.state_dict() if n.endswith("convolution.lora_A.default.weight")]
    assert len(convolutions) > 10
    trained = logits(model, "mobilenet")
    running = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    model.train()
    loss = model(**batch("mobilenet"), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in running.items())
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(logits(again, "mobilenet"), trained)
    torch.testing.assert_close(logits(again.merge_and_unload(), "mobilenet"), trained, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("base_model.model.classifier.aifs_head.weight"), "aifs_head.default.weight: not saved"),
        (
            lambda t: t.update({"base_model.model.vit.extra": torch.zeros(1)}),
            "vit.extra: not part of this configuration",
        ),
        (
            lambda t: t.update({"base_model.model.classifier.aifs_head.bias": torch.zeros(5)}),
            r"aifs_head.default.bias: \(5,\) saved, \(3,\) here",
        ),
        (lambda t: t.pop(next(k for k in t if "lora_A" in k)), "lora_A.default.weight: not saved"),
        (
            lambda t: t.update({"base_model.model.classifier.aifs_state.basis": torch.zeros(9, 1)}),
            "belongs to another head: basis must have shape",
        ),
    ],
    ids=["missing", "unknown", "size", "lora", "state"],
)
def test_a_checkpoint_of_another_configuration_is_refused(change, message, tmp_path):
    get_peft_model(build("vit"), AIFSConfig(encoder_adapter=LoraConfig())).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(CheckpointMismatchError, match=message):
        PeftModel.from_pretrained(build("vit"), tmp_path)


def test_files_without_a_later_buffer_still_load(tmp_path):
    model = get_peft_model(build("vit"), AIFSConfig())
    fill_state(find_aifs_layer(model))
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors["base_model.model.classifier.aifs_state.evidence"]
    save_file(tensors, path)
    with pytest.warns(UserWarning, match="Found missing adapter keys"):
        again = PeftModel.from_pretrained(build("vit"), tmp_path)
    assert torch.equal(logits(again, "vit"), logits(model, "vit"))


def test_saved_keys_hold_no_base_weight_and_no_adapter_name(tmp_path):
    get_peft_model(build("roberta"), AIFSConfig(), adapter_name="x").save_pretrained(tmp_path)
    keys = set(load_file(tmp_path / "x" / "adapter_model.safetensors"))
    head = {f"base_model.model.classifier.aifs_head.{m}.{p}" for m in ("dense", "out_proj") for p in ("weight", "bias")}
    state = (
        "mask",
        "basis",
        "displacements",
        "class_displacements",
        "centre",
        "reader",
        "ema",
        "evidence",
        "groups",
        "weights",
        "memory",
        "num_updates",
    )
    assert keys == head | {f"base_model.model.classifier.aifs_state.{n}" for n in state}
    assert TEXT["vocab_size"] == 40
