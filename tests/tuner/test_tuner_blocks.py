"""`AIFSConfig(latents="multi")`: blocks of the encoder beside the last latent."""

import copy

import architectures
import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from tuner_zoo import IMAGE_MODELS, TEXT_MODELS, batch, build, encoder_adapter, fill_state, logits

from aifs_peft import AIFSConfig
from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError
from aifs_peft.models import LatentClassifier, TabularEncoder
from aifs_peft.tuner import find_aifs_layer
from aifs_peft.tuner.blocks import find_blocks

CASES = [(name, kind) for name in (*IMAGE_MODELS, *TEXT_MODELS) for kind in ("frozen", "lora")]


def adapted(base, **options):
    model = get_peft_model(base, AIFSConfig(latents="multi", **options))
    layer = find_aifs_layer(model)
    if layer.state.dim > layer.in_features:
        fill(layer)
    return model


def fill(layer):
    """Scales that are not the initial ones, and a head whose logits depend on every block."""
    generator = torch.Generator().manual_seed(3)
    layer.blocks.fit(torch.randn(9, layer.blocks.dim, generator=generator) * 3 + 1)
    with torch.no_grad():
        for p in layer.head.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))


@torch.no_grad()
def read(model, inputs):
    model.eval()(**inputs)
    return find_aifs_layer(model).take_output().z


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_disabled_saved_reloaded_copied_and_unloaded(name, kind, tmp_path):
    base = build(name)
    reference = logits(base, name)
    model = adapted(copy.deepcopy(base), encoder_adapter=encoder_adapter(kind))
    trained = logits(model, name)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), reference)
    assert torch.equal(logits(model, name), trained)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    other = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, adapter_name="other", low_cpu_mem_usage=True)
    assert find_aifs_layer(again).blocks.fitted
    for same in (again, other, copy.deepcopy(again)):
        assert torch.equal(logits(same, name), trained)
    plain = model.unload()
    assert torch.equal(logits(plain, name), reference)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in plain.modules())


@pytest.mark.parametrize("name", ["vit", "clip", "bert", "mobilenet"])
def test_the_latent_is_the_scaled_mean_of_the_blocks_and_what_the_head_reads(name):
    base, inputs = build(name), batch(name)
    model = adapted(copy.deepcopy(base))
    layer = find_aifs_layer(model)
    names = [block for block, _ in model.peft_config["default"].latent_blocks]
    seen, fed = [], []
    for block in names:
        base.get_submodule(block).register_forward_hook(lambda _m, _i, out: seen.append(out))
    base.classifier.register_forward_pre_hook(lambda _m, args: fed.append(args[0]))
    with torch.no_grad():
        base(**inputs)
    hidden = [out[0] if isinstance(out, tuple) else out for out in seen]
    means = [h.mean((2, 3)) if h.dim() == 4 else h.mean(1) for h in hidden]
    torch.testing.assert_close(read(model, inputs), layer.blocks([*means, fed[0]]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_latent(side):
    model = adapted(build("distilbert") if side == "right" else build("bert"))
    ids = torch.randint(3, 40, (2, 5), generator=torch.Generator().manual_seed(0))
    pad = torch.ones(2, 4, dtype=torch.long)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(pad)], 1)
    padded = torch.cat([ids, pad], 1)
    layer = find_aifs_layer(model)
    if side == "left":  # positions move, so only that padding is left out can be seen
        padded, mask = padded.flip(1), mask.flip(1)
        model.eval()(input_ids=padded, attention_mask=mask)
        other = padded.clone()
        other[:, :4] = 7
        assert torch.allclose(
            read(model, {"input_ids": other, "attention_mask": mask})[:, :16],
            read(model, {"input_ids": padded, "attention_mask": mask})[:, :16],
            atol=1e-5,
        )
        return
    plain = read(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    torch.testing.assert_close(read(model, {"input_ids": padded, "attention_mask": mask}), plain)
    with torch.no_grad():  # by position, as some loops do
        model.get_base_model()(padded, mask)
    torch.testing.assert_close(layer.take_output().z, plain)


@pytest.mark.parametrize(("name", "kind"), [("vit", "frozen"), ("vit", "lora"), ("bert", "lora")])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_encoder_through_every_block(name, kind, checkpointing):
    model = adapted(build(name), encoder_adapter=encoder_adapter(kind)).train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    layer = find_aifs_layer(model)
    with layer.intervening(lambda z: z + 1):
        model(**batch(name))
    output = layer.take_output()
    torch.testing.assert_close(output.intervened, output.z + 1)
    # Of the first block alone: what comes after it gets none, what is in it does.
    (output.z[:, :16].sum() + 0 * output.intervened_logits.sum()).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert bool(reached) == (kind == "lora")
    assert all(".0." in n for n in reached)
    assert layer._reader.pooled == {}  # a block that was computed again leaves nothing


def test_reentrant_checkpointing_is_refused_with_a_tuned_encoder():
    model = adapted(build("vit"), encoder_adapter=LoraConfig(r=2))
    model.activation_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(InvalidConfigError, match="use_reentrant=False"):
        model.train()
    frozen = adapted(build("vit"))
    frozen.activation_checkpointing_enable({"use_reentrant": True})
    frozen.train()(**batch("vit"))


def test_half_precision_and_compilation_give_the_same_kind_of_latent():
    model = adapted(build("vit").to(torch.bfloat16))
    inputs = {"pixel_values": batch("vit")["pixel_values"].to(torch.bfloat16)}
    z = read(model, inputs)
    assert z.dtype == torch.float32
    exact = read(adapted(build("vit")), batch("vit"))
    torch.testing.assert_close(z, exact, atol=0.1, rtol=0.1)
    plain = adapted(build("vit"))
    compiled = torch.compile(plain, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**batch("vit")).logits, plain(**batch("vit")).logits)
    assert find_aifs_layer(plain).take_output().z.shape == (4, 48)


def test_joined_latents_can_be_given_and_a_model_that_did_not_run_is_told():
    model = adapted(build("vit"))
    layer = find_aifs_layer(model)
    z = read(model, batch("vit"))
    assert torch.equal(layer(z), layer.classify(z))
    with pytest.raises(HeadError, match=r"reads the blocks vit.layers.0, vit.layers.1, and they have not run"):
        layer(z[:, :16])


def test_merging_and_rows_of_several_adapters_are_refused_and_change_nothing():
    model = adapted(build("vit"), encoder_adapter=encoder_adapter("lora"))
    before = logits(model, "vit")
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(InvalidConfigError, match='latents="multi" cannot be merged'):
            merge()
    with pytest.raises(InvalidInputError, match="adapter_names cannot name"):
        model.eval()(**batch("vit"), adapter_names=["default"] * 4)
    assert torch.equal(logits(model, "vit"), before)


def test_beside_an_adapter_of_the_last_latent(tmp_path):
    model = get_peft_model(build("vit"), AIFSConfig())
    fill_state(find_aifs_layer(model))
    last = logits(model, "vit")
    model.add_adapter("multi", AIFSConfig(latents="multi"))
    model.set_adapter("multi")
    fill(find_aifs_layer(model))
    multi = logits(model, "vit")
    assert find_aifs_layer(model).state.dim == 48
    model.set_adapter("default")
    assert torch.equal(logits(model, "vit"), last)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(build("vit"), tmp_path / "multi")
    assert torch.equal(logits(again, "vit"), multi)
    model.delete_adapter("multi")
    assert torch.equal(logits(model, "vit"), last)
    assert not any(m._forward_hooks for m in model.modules())
    model.merge_and_unload()


def test_transformers_loads_it_by_itself(tmp_path):
    base = build("vit")
    base.save_pretrained(tmp_path / "base")
    model = adapted(type(base).from_pretrained(tmp_path / "base"), encoder_adapter=encoder_adapter("lora"))
    model.save_pretrained(tmp_path / "adapter")
    native = type(base).from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(native, "vit"), logits(model, "vit"))


def test_an_encoder_without_a_head_and_blocks_trained_whole(tmp_path):
    encoder = build("vit").vit
    model = adapted(LatentClassifier(encoder, num_labels=3), trained_modules=["layers.0"])
    assert [name for name, _ in model.peft_config["default"].latent_blocks] == ["encoder.layers.0", "encoder.layers.1"]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "aifs_copy" in name:
                parameter.add_(0.1)
    changed = read(model, batch("vit"))
    with torch.no_grad(), model.disable_adapter():
        model(**batch("vit"))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(LatentClassifier(build("vit").vit, num_labels=3), tmp_path)
    assert torch.equal(read(again, batch("vit")), changed)


class Unknown(nn.Module):
    """Takes what no trial knows."""

    def __init__(self):
        super().__init__()
        self.layers, self.classifier = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), nn.Linear(4, 2)

    def forward(self, sound):
        return self.classifier(self.layers[1](self.layers[0](sound)))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: LatentClassifier(TabularEncoder(4, 8)), "no trial shows"),
        (Unknown, "no trial shows"),
        (lambda: tiny(hf.BartForSequenceClassification, hf.BartConfig, encoder_layers=2, decoder_layers=2, d_model=16,
                      encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8),
         r"several lists of blocks of the same length \(model.encoder.layers, model.decoder.layers\)"),
        (lambda: tiny(hf.AlbertForSequenceClassification, hf.AlbertConfig, hidden_size=16, embedding_size=8,
                      num_hidden_layers=2, num_attention_heads=2, intermediate_size=8), "no list of at least two"),
        (lambda: tiny(hf.XLNetForSequenceClassification, hf.XLNetConfig, d_model=16, n_layer=2, n_head=2, d_inner=8),
         r"gives the shape \(8, 1, 16\) for 1 examples"),
    ],
)  # fmt: skip
def test_what_has_no_such_blocks_is_refused_by_name_and_left_alone(model, why):
    base = model()
    before = set(base.state_dict())
    with pytest.raises(
        HeadError, match=f'(?s)latents="multi" does not know the blocks of this {type(base).__name__}: .*{why}'
    ):
        get_peft_model(base, AIFSConfig(latents="multi"))
    assert set(base.state_dict()) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())


def tiny(model, config, **sizes):
    return model(config(vocab_size=40, pad_token_id=1, bos_token_id=0, eos_token_id=2, num_labels=2, **sizes)).eval()


def test_blocks_of_another_model_are_refused(tmp_path):
    adapted(build("vit")).save_pretrained(tmp_path)
    with pytest.raises(HeadError, match=r"reads the blocks \['vit.layers.0', 'vit.layers.1'\], which this Dinov2"):
        PeftModel.from_pretrained(build("dinov2"), tmp_path)


def test_the_configuration_says_what_a_copy_of_the_head_becomes():
    assert AIFSConfig(latents="multi").head == "linear"
    assert AIFSConfig(latents="multi", head="mlp").head == "mlp"
    assert AIFSConfig().head == "copy"
    for wrong in ("x", [["a", 0]], [["a"]], [["a", 10**9]], []):
        with pytest.raises(InvalidConfigError, match="latent_blocks must be names and widths"):
            AIFSConfig(latents="multi", latent_blocks=wrong)
    with pytest.raises(InvalidConfigError, match="latents must be one of 'last', 'multi'"):
        AIFSConfig(latents="all")


def test_the_longest_list_of_blocks_is_read_at_three_depths():
    config = hf.ViTConfig(hidden_size=16, num_hidden_layers=12, num_attention_heads=2, intermediate_size=8,
                          image_size=16, patch_size=8)  # fmt: skip
    found = find_blocks(hf.ViTForImageClassification(config))
    assert found == [("vit.layers.2", 16), ("vit.layers.5", 16), ("vit.layers.8", 16)]
    swin = hf.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2)
    assert [name for name, _ in find_blocks(hf.SwinForImageClassification(swin))] == [
        "swin.encoder.layers.0", "swin.encoder.layers.1",
    ]  # fmt: skip


def dinov3(name):
    if name == "dinov3_vit":
        config = hf.DINOv3ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                                    image_size=16, patch_size=8, num_register_tokens=2)  # fmt: skip
        return hf.DINOv3ViTModel(config)
    return hf.DINOv3ConvNextModel(
        hf.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=32)
    )


@pytest.mark.parametrize("latents", ["last", "multi"])
@pytest.mark.parametrize("name", ["dinov3_vit", "dinov3_convnext"])
def test_dinov3_under_a_head_of_ours(name, latents, tmp_path):
    def base():
        torch.manual_seed(0)
        return LatentClassifier(dinov3(name).eval(), num_labels=3)

    inputs = {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    model = get_peft_model(
        base(), AIFSConfig(latents=latents, encoder_adapter=LoraConfig(r=2, init_lora_weights=False))
    )
    z = read(model, inputs)
    with torch.no_grad():
        pooled = model.get_base_model().encoder(**inputs).pooler_output.flatten(1)
    torch.testing.assert_close(z[:, -pooled.shape[1] :], pooled)
    model.save_pretrained(tmp_path)
    assert torch.equal(read(PeftModel.from_pretrained(base(), tmp_path), inputs), z)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("image", "siglip2"), ("image", "swin"), ("image", "convnext"), ("image", "textnet"),
     ("text", "modernbert"), ("text", "deberta-v2"), ("text", "gpt2")],
)  # fmt: skip
def test_other_families_with_lora(kind, name, tmp_path):
    def base():
        torch.manual_seed(0)
        return architectures.AUTO[kind].from_config(config).eval()

    config = architectures.config_for(kind, name)
    inputs = architectures.inputs_for(kind, config)
    model = adapted(base(), encoder_adapter=LoraConfig(r=2, init_lora_weights=False))
    z = read(model, inputs)
    assert z.shape == (4, find_aifs_layer(model).blocks.dim)
    model.train()(**inputs, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.eval().save_pretrained(tmp_path)
    torch.testing.assert_close(read(PeftModel.from_pretrained(base(), tmp_path), inputs), z)
