"""Every architecture of transformers' image and sequence classification, tiny and random, and what AIFS does on it.

`run_one(kind, model_type, folder)` takes an architecture through what users do: a classifier on a checkpoint of the
encoder, adapter attached, two training steps, disabled, saved, reloaded, merged, unloaded. It gives one row of
`docs/architectures.md`; `benchmarks/render_architectures.py` writes that page.

Also run as a script in a fresh process, `python architectures.py FOLDER`: reloads the adapters that were saved there
and writes their logits, for a comparison.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from aifs_peft import AIFSConfig
from aifs_peft.errors import AIFSError
from aifs_peft.tuner import find_aifs_layer

MAPPINGS = {
    "image": hf.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    "text": hf.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
}
AUTO = {"image": hf.AutoModelForImageClassification, "text": hf.AutoModelForSequenceClassification}
CLASSES, ROWS, TOKENS = 3, 4, 16
TOLERANCE = {"atol": 2e-4, "rtol": 2e-3}

# Name of a field -> its value in a tiny model; the first that fits.
_WIDTH, _FEEDFORWARD, _LAYERS, _HEADS, _VOCABULARY, _POSITIONS = 32, 64, 2, 4, 96, 64
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "embed_dim", "word_embed_proj_dim",
                     "embedding_size", "input_embedding_size", "projection_dim", "d_embed", "encoder_hidden_dim",
                     "true_hidden_size", "latent_dim", "d_latents", "reduced_hidden_dim"), _WIDTH),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim",
                     "n_inner", "ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size",
                     "feed_forward_size", "dff", "d_inner", "intermediate_dim"), _FEEDFORWARD),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
                     "num_decoder_layers", "num_encoder_layers"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
                     "decoder_attention_heads"), _HEADS),
    **dict.fromkeys(("num_key_value_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "qk_nope_head_dim", "v_head_dim", "qk_rope_head_dim",
                     "attention_head_dim"), 8),
    **dict.fromkeys(("vocab_size", "n_words", "vocab_size_per_layer_input"), _VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len",
                     "max_2d_position_embeddings"), _POSITIONS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_experts_per_token"), 2),
    "image_size": 32, "patch_size": 8, "q_lora_rank": 16, "kv_lora_rank": 16, "sliding_window": 8,
    "n_ctx": _POSITIONS, "kv_channels": 8, "rotary_dim": 4,
}  # fmt: skip
_LISTS: dict[str, Any] = {
    "depths": [1, 1, 1, 1], "layer_depths": [1, 1, 1, 1],
    "hidden_sizes": [16, 16, 32, 32], "embed_dims": [16, 16, 32, 32], "num_attention_heads": [1, 1, 2, 2],
}  # fmt: skip

# What the rules above do not get right, by model type.
_SPECIAL: dict[str, dict[str, Any]] = {
    "bit": {"num_groups": 1},
    "cvt": {"embed_dim": [16, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "donut-swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "patch_size": 4},
    "swinv2": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "patch_size": 4},
    **{key: {"image_size": 64, "patch_size": 4} for key in ("convnext", "convnextv2")},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "patch_size": 4},
    "efficientnet": {
        "width_coefficient": 0.25,
        "depth_coefficient": 0.25,
        "hidden_dim": 320,
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "kernel_sizes": [3, 3],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2],
        "depthwise_padding": [],
    },
    "hgnet_v2": {
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16],
        "stage_mid_channels": [8, 8],
        "stage_out_channels": [16, 32],
        "stage_num_blocks": [1, 1],
        "stage_downsample": [False, True],
        "stage_light_block": [False, True],
        "stage_kernel_size": [3, 3],
        "stage_numb_of_layers": [1, 1],
        "depths": [1, 1],
        "hidden_sizes": [16, 32],
        "embedding_size": 8,
    },
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "mobilevitv2": {"width_multiplier": 0.25, "image_size": 64, "patch_size": 2},
    "levit": {
        "image_size": 64,
        "patch_size": 16,
        "hidden_sizes": [16, 32, 32],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    **{key: {"decoder_start_token_id": 0} for key in ("t5", "mt5", "umt5")},
    "lilt": {"hidden_size": 48},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "mobilebert": {"hidden_size": 128, "embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    **{key: {"layer_types": ["linear_attention", "full_attention"]} for key in ("qwen3_5_text", "qwen3_next")},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    **{key: {"num_key_value_heads": 4} for key in ("axk2", "deepseek_v3", "minicpm3")},
    "axk1": {"num_key_value_heads": 4, "n_group": 2, "topk_group": 1},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2},
    "esm": {"vocab_size": _VOCABULARY, "pad_token_id": 1},
    "esmc": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "roc_bert": {
        "pronunciation_vocab_size": 16,
        "shape_vocab_size": 16,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "reformer": {
        "axial_pos_shape": [4, 4],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "local"],
        "is_decoder": False,
        "local_attn_chunk_length": 4,
        "attention_head_size": 8,
    },
    "textnet": {
        "conv_layer_kernel_sizes": [[[3, 3]], [[1, 3]]],
        "conv_layer_strides": [[2], [2]],
        "image_size": [32, 32],
        "hidden_sizes": [8, 16, 32],
        "depths": [1, 1],
        "stem_out_channels": 8,
    },
    "perceiver": {"num_latents": 4, "d_latents": 32, "num_self_attends_per_block": 2, "image_size": 32},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "zamba": {"layers_block_type": ["hybrid", "linear_attention"], "attention_hidden_size": 64, "mamba_dt_rank": 4},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
        "num_key_value_heads": 4,
        "hybrid_layer_ids": [1],
        "attention_hidden_size": 64,
        "mamba_ngroups": 1,
    },
}


@dataclass
class Row:
    """What came of one architecture.

    Attributes:
        kind: "image" or "text".
        model_type: of transformers.
        frozen: "equal", or why not.
        lora: likewise with a tuned encoder.
        new_layers: layers between encoder and head that a checkpoint of the encoder lacks.
    """

    kind: str
    model_type: str
    frozen: str = ""
    lora: str = ""
    new_layers: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain JSON."""
        return asdict(self)


def names(kind: str) -> list[str]:
    """Model types of one mapping, each once."""
    return sorted({config.model_type for config in MAPPINGS[kind]})


def config_class(kind: str, model_type: str) -> type:
    return next(config for config in MAPPINGS[kind] if config.model_type == model_type)


def tiny_config(cls: type, **special: Any) -> Any:
    """A configuration of `cls` with small sizes throughout."""
    default = cls()
    values: dict[str, Any] = {}
    for name, value in vars(default).items():
        if isinstance(value, hf.PretrainedConfig):
            values[name] = tiny_config(type(value)).to_dict()
        elif isinstance(value, list | tuple) and name in _LISTS:
            values[name] = _LISTS[name][: len(value)]
        elif name in _FIELDS and isinstance(value, int) and not isinstance(value, bool):
            values[name] = _FIELDS[name]
    values |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} if hasattr(default, "vocab_size") else {}
    values |= special
    return cls(**values)


def config_for(kind: str, model_type: str) -> Any:
    """The tiny configuration of one architecture, with the number of classes of this sweep."""
    config = tiny_config(config_class(kind, model_type), **_SPECIAL.get(model_type, {}))
    config.num_labels, config.architectures = CLASSES, []
    return config


def inputs_for(kind: str, config: Any) -> dict[str, torch.Tensor]:
    """A batch, always the same."""
    generator = torch.Generator().manual_seed(0)
    if kind == "text":
        ids = torch.randint(5, _VOCABULARY, (ROWS, TOKENS), generator=generator)
        ids[:, -1] = 2  # BART and its like read the last end of a sequence
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if config.model_type == "imagegpt":
        return {"input_ids": torch.randint(0, _VOCABULARY, (ROWS, TOKENS), generator=generator)}
    if config.model_type == "siglip2":
        pixels = torch.randn(ROWS, 16, 3 * 8 * 8, generator=generator)
        shapes = torch.full((ROWS, 2), 4)
        return {"pixel_values": pixels, "pixel_attention_mask": torch.ones(ROWS, 16), "spatial_shapes": shapes}
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 32)
    high, wide = (size, size) if isinstance(size, int) else (size[-2], size[-1])
    return {"pixel_values": torch.randn(ROWS, getattr(vision, "num_channels", 3), high, wide, generator=generator)}


def save_encoder(kind: str, config: Any, folder: Path) -> None:
    """A checkpoint of the encoder alone, as the Hub holds them."""
    if type(config) in hf.MODEL_MAPPING:
        model = hf.AutoModel.from_config(config)
    else:
        whole = AUTO[kind].from_config(config)
        model = getattr(whole, whole.base_model_prefix)
    model.save_pretrained(folder)


def classifier(kind: str, folder: Path, seed: int) -> torch.nn.Module:
    """A classifier on an encoder's checkpoint; what the checkpoint lacks is drawn with `seed`."""
    torch.manual_seed(seed)
    return AUTO[kind].from_pretrained(folder, num_labels=CLASSES).eval()


@torch.no_grad()
def logits_of(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits in evaluation mode."""
    return model.eval()(**inputs).logits


def trained(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> list[str]:
    """Two steps, and a state that is not the initial one; gives the trainable parameters that got no gradient."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs, labels=torch.arange(ROWS) % CLASSES).loss.backward()
        optimizer.step()
    layer = find_aifs_layer(model)
    basis, _ = torch.linalg.qr(torch.randn(layer.in_features, 2, generator=torch.Generator().manual_seed(1)))
    layer.state.update(mask=torch.tensor([0.25, 1.0]), basis=basis)
    return [name for name, p in parameters.items() if p.grad is None]


def run_one(kind: str, model_type: str, folder: Path) -> tuple[Row, dict[str, torch.Tensor]]:
    """Take one architecture through attach, train, disable, save, reload, merge, unload.

    Args:
        kind: "image" or "text".
        model_type: of `names(kind)`.
        folder: for the checkpoint of the encoder (`encoder`) and the adapters (`frozen`, `lora`).

    Returns:
        The row of the table, and the logits of the saved adapters by name, for a fresh process to compare with.
    """
    row, expected = Row(kind, model_type), {}
    try:
        config = config_for(kind, model_type)
        torch.manual_seed(0)
        save_encoder(kind, config, folder / "encoder")
        inputs = inputs_for(kind, config)
        logits_of(classifier(kind, folder / "encoder", seed=1), inputs)
    except Exception as error:  # noqa: BLE001 - whatever keeps transformers itself from running it
        row.frozen = row.lora = f"not tried: {first_line(error)}"
        return row, expected
    for tuning in ("frozen", "lora"):
        inner = LoraConfig(r=2, init_lora_weights=False) if tuning == "lora" else None
        try:
            model = get_peft_model(classifier(kind, folder / "encoder", seed=1), AIFSConfig(encoder_adapter=inner))
            outcome, expected[tuning] = _journey(kind, model, inputs, folder, tuning)
            row.new_layers = ", ".join(model.peft_config["default"].new_layers)
        except AIFSError as error:
            outcome = f"refused: {first_line(error)}"
        setattr(row, tuning, outcome)
    return row, expected


def _journey(
    kind: str, model: Any, inputs: dict[str, torch.Tensor], folder: Path, tuning: str
) -> tuple[str, torch.Tensor]:
    base = classifier(kind, folder / "encoder", seed=1)
    plain = logits_of(base, inputs)
    problems = []
    without_gradient = trained(model, inputs)
    if without_gradient:
        problems.append(f"no gradient for {', '.join(without_gradient[:3])}")
    after = logits_of(model, inputs)
    with model.disable_adapter():
        if not torch.equal(logits_of(model, inputs), plain):
            problems.append("disabled differs from the base model")
    model.save_pretrained(folder / tuning, save_embedding_layers=False)
    again = PeftModel.from_pretrained(classifier(kind, folder / "encoder", seed=2), folder / tuning)
    if not torch.allclose(logits_of(again, inputs), after, atol=1e-6, rtol=1e-6):
        problems.append(f"reloaded differs by {(logits_of(again, inputs) - after).abs().max():.2g}")
    try:
        merged = again.merge_and_unload(safe_merge=True)
    except AIFSError as error:
        problems.append(f"merging refused: {first_line(error)}")
        merged = again
    if not torch.allclose(logits_of(merged, inputs), after, **TOLERANCE):
        problems.append(f"merged differs by {(logits_of(merged, inputs) - after).abs().max():.2g}")
    if not torch.allclose(logits_of(model.unload(), inputs), plain, atol=1e-6, rtol=1e-6):
        problems.append("unloaded differs from the base model")
    return "; ".join(problems) or "equal", after


def first_line(error: Exception) -> str:
    """The first line of an error, without what differs from machine to machine."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if len(text) < 200 else f"{text[:197]}..."


def reload_all(folder: Path) -> None:
    """Load every adapter under `folder/KIND/MODEL_TYPE`, each on a fresh classifier, and write all logits."""
    found = {}
    for weights in sorted(folder.glob("*/*/*/adapter_model.safetensors")):
        place = weights.parent.parent
        kind, model_type = place.parent.name, place.name
        model = PeftModel.from_pretrained(classifier(kind, place / "encoder", seed=3), weights.parent)
        logits = logits_of(model, inputs_for(kind, config_for(kind, model_type)))
        found[f"{kind}/{model_type}/{weights.parent.name}"] = logits.contiguous()
    save_file(found, folder / "fresh.safetensors")


if __name__ == "__main__":
    hf.logging.set_verbosity_error()
    reload_all(Path(sys.argv[1]))
