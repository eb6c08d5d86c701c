"""4-bit and 8-bit base models with bitsandbytes, on CPU."""

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from tuner_zoo import IMAGE, TEXT, batch, fill_state, logits

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments
from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.tuner import find_aifs_layer

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes quantises the base models of this file")

# bitsandbytes 0.50 on CPU: 8-bit inputs are rounded to float16, which it says once per layer.
pytestmark = pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning")

QUANTISATION = {
    "4bit": lambda **kw: hf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **kw),
    "8bit": lambda **kw: hf.BitsAndBytesConfig(load_in_8bit=True, **kw),
}


# On CPUs with AVX512-BF16 the 4-bit kernel packs 32 outputs together and takes no other number, the head's included.
WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "num_labels": 32}


def build(name):
    torch.manual_seed(0)
    if name == "vit":
        return hf.ViTForImageClassification(hf.ViTConfig(**WIDE, **IMAGE))
    return hf.RobertaForSequenceClassification(hf.RobertaConfig(**WIDE, **TEXT))


def load(name, bits, folder, skip=None):
    path = folder / name
    if not path.exists():
        build(name).save_pretrained(path)
    # Without names to skip, transformers keeps the head out of it.
    config = QUANTISATION[bits](llm_int8_skip_modules=skip or ["nothing_at_all"])
    cls = type(build(name))
    return cls.from_pretrained(path, quantization_config=config, device_map="cpu", dtype=torch.float32)


@pytest.mark.parametrize("head_too", [True, False], ids=["head-quantised", "head-kept"])
@pytest.mark.parametrize("bits", QUANTISATION)
def test_qlora_trains_saves_and_reloads(bits, head_too, tmp_path):
    skip = None if head_too else ["classifier"]
    base = load("vit", bits, tmp_path, skip)
    assert any(not p.is_floating_point() for p in base.classifier.parameters()) == head_too
    reference = logits(base, "vit")
    model = get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(r=2, init_lora_weights=False)))
    layer = find_aifs_layer(model)
    assert type(layer.head) is nn.Linear
    assert all(p.dtype == torch.float32 for p in layer.head.parameters())
    fill_state(layer)
    with model.disable_adapter():
        assert torch.equal(logits(model, "vit"), reference)
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    labels = torch.tensor([0, 1, 2, 0])
    losses = []
    for _ in range(5):
        loss = model(**batch("vit"), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    trained = logits(model, "vit")
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load("vit", bits, tmp_path, skip), tmp_path / "adapter")
    assert torch.equal(logits(again, "vit"), trained)
    assert torch.equal(find_aifs_layer(again).state.basis, layer.state.basis)


@pytest.mark.parametrize("bits", QUANTISATION)
def test_an_exact_merge_is_made_on_the_full_precision_base(bits, tmp_path):
    base = load("vit", bits, tmp_path)
    model = get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(r=2, init_lora_weights=False)))
    fill_state(find_aifs_layer(model))
    model.save_pretrained(tmp_path / "adapter")
    full = hf.ViTForImageClassification.from_pretrained(tmp_path / "vit")
    adapted = PeftModel.from_pretrained(full, tmp_path / "adapter")
    trained = logits(adapted, "vit")
    torch.testing.assert_close(logits(adapted.merge_and_unload(), "vit"), trained, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bits", QUANTISATION)
def test_merging_into_quantised_layers_is_refused_and_changes_nothing(bits, tmp_path):
    inner = LoraConfig(r=2, init_lora_weights=False)
    model = get_peft_model(load("vit", bits, tmp_path, ["classifier"]), AIFSConfig(encoder_adapter=inner))
    fill_state(find_aifs_layer(model))
    trained = logits(model, "vit")
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(InvalidConfigError, match=r"is quantised .*load the base model in full precision"):
            merge()
    assert torch.equal(logits(model, "vit"), trained)


@pytest.mark.parametrize("bits", QUANTISATION)
def test_the_trainer_trains_a_quantised_base_and_its_adapter_reloads(bits, tmp_path):
    rows = [{"pixel_values": image, "label": i % 3} for i, image in enumerate(batch("vit", 24)["pixel_values"])]
    base = load("vit", bits, tmp_path, ["classifier"])
    args = AIFSTrainingArguments(str(tmp_path / "run"), num_train_epochs=1, per_device_train_batch_size=8,
                                 report_to="none", use_cpu=True, disable_tqdm=True)  # fmt: skip
    model = get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(r=2)))
    trainer = AIFSTrainer(model, args, train_dataset=rows)
    trainer.train()
    trained = logits(model.eval(), "vit")
    trainer.save_model(str(tmp_path / "adapter"))
    again = PeftModel.from_pretrained(load("vit", bits, tmp_path, ["classifier"]), tmp_path / "adapter")
    assert torch.equal(logits(again.eval(), "vit"), trained)


def test_a_quantised_frozen_encoder_merges_its_head(tmp_path):
    model = get_peft_model(load("vit", "4bit", tmp_path), AIFSConfig())
    fill_state(find_aifs_layer(model))
    trained = logits(model, "vit")
    torch.testing.assert_close(logits(model.merge_and_unload(), "vit"), trained)


def test_preparation_for_quantised_training_leaves_the_head_trainable(tmp_path):
    base = prepare_model_for_kbit_training(load("vit", "4bit", tmp_path), use_gradient_checkpointing=False)
    model = get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(r=2)))
    model(**batch("vit"), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert find_aifs_layer(model).head.weight.grad is not None


def test_a_quantised_block_cannot_be_copied_but_its_last_layer_can_be_replaced(tmp_path):
    base = load("roberta", "4bit", tmp_path)
    with pytest.raises(HeadError, match=r"quantised RobertaClassificationHead, which cannot be copied.*llm_int8_skip"):
        get_peft_model(base, AIFSConfig())
    model = get_peft_model(load("roberta", "4bit", tmp_path), AIFSConfig(head="linear"))
    assert logits(model, "roberta").shape == (4, 32)


def test_a_decoder_in_4_bit_reads_its_last_token_trains_and_reloads(tmp_path):
    ids = {"vocab_size": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(0)
    hf.LlamaForSequenceClassification(hf.LlamaConfig(**{**WIDE, **ids})).save_pretrained(tmp_path / "base")

    def load_base():
        config = QUANTISATION["4bit"](bnb_4bit_compute_dtype=torch.float32)
        return hf.LlamaForSequenceClassification.from_pretrained(tmp_path / "base", quantization_config=config)

    tokens = torch.randint(3, 60, (4, 6), generator=torch.Generator().manual_seed(0))
    tokens[0, 4:], tokens[1, :2] = 1, 1  # padding on either side
    inputs = {"input_ids": tokens, "attention_mask": (tokens != 1).long()}
    base = load_base()
    with torch.no_grad():
        reference = base.eval()(**inputs).logits
    model = get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(r=2, init_lora_weights=False)))
    model.train()(**inputs, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    with torch.no_grad():
        trained = model.eval()(**inputs).logits
        assert find_aifs_layer(model).take_output().z.shape == (4, 64)
        with model.disable_adapter():
            torch.testing.assert_close(model(**inputs).logits, reference)
        model.save_pretrained(tmp_path / "adapter")
        again = PeftModel.from_pretrained(load_base(), tmp_path / "adapter").eval()
        torch.testing.assert_close(again(**inputs).logits, trained)
    with pytest.raises(InvalidConfigError, match="quantised"):
        model.merge_and_unload()


@pytest.mark.parametrize("name", ["vit", "roberta"])
@pytest.mark.parametrize("bits", QUANTISATION)
def test_several_layers_of_a_quantised_base(bits, name, tmp_path):
    """The blocks are those of the base in full precision, found without a change; what they give is its, rounded."""
    skip = ["classifier"]
    reference = logits(load(name, bits, tmp_path, skip), name)
    base = load(name, bits, tmp_path, skip)
    model = get_peft_model(base, AIFSConfig(latents="multi", encoder_adapter=LoraConfig(r=2, init_lora_weights=False)))
    full = get_peft_model(build(name), AIFSConfig(latents="multi"))
    assert model.peft_config["default"].latent_blocks == full.peft_config["default"].latent_blocks
    with model.disable_adapter():
        assert torch.equal(logits(model, name), reference)
    latents = []
    for each in (get_peft_model(load(name, bits, tmp_path, skip), AIFSConfig(latents="multi")), full):
        layer, seen = find_aifs_layer(each), []
        layer.register_forward_pre_hook(lambda _m, args, layer=layer, seen=seen: seen.append(layer.pool(args[0])))
        logits(each, name)
        latents.append(seen[-1].detach().float())
    assert latents[0].shape == latents[1].shape
    rounded = (latents[0] - latents[1]).norm() / latents[1].norm()
    assert 0.0 < rounded < 0.25, rounded
    find_aifs_layer(model).blocks.fit(torch.randn(64, find_aifs_layer(model).blocks.dim))
    model.train()
    loss = model(**batch(name), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    trained = logits(model, name)
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load(name, bits, tmp_path, skip), tmp_path / "adapter")
    assert torch.equal(logits(again, name), trained)
    with pytest.raises(InvalidConfigError, match="merg"):
        model.merge_and_unload()


@pytest.mark.parametrize("bits", QUANTISATION)
def test_the_trainer_trains_on_several_layers_of_a_quantised_base(bits, tmp_path):
    rows = [{"pixel_values": image, "label": i % 3} for i, image in enumerate(batch("vit", 24)["pixel_values"])]
    args = AIFSTrainingArguments(str(tmp_path / "run"), num_train_epochs=1, per_device_train_batch_size=8,
                                 report_to="none", use_cpu=True, disable_tqdm=True, cache_latents=True)  # fmt: skip
    model = get_peft_model(load("vit", bits, tmp_path, ["classifier"]), AIFSConfig(latents="multi"))
    trainer = AIFSTrainer(model, args, train_dataset=rows)
    trainer.train()
    assert find_aifs_layer(model).blocks.fitted
    trained = logits(model.eval(), "vit")
    trainer.save_model(str(tmp_path / "adapter"))
    again = PeftModel.from_pretrained(load("vit", bits, tmp_path, ["classifier"]), tmp_path / "adapter")
    assert torch.equal(logits(again.eval(), "vit"), trained)
