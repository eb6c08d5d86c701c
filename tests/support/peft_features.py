"""What users of PEFT take for granted: one row per feature, that it works or with which words it is refused.

A test runs every row; `docs/compatibility.md` shows them.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from features import Feature
from peft import (
    AdaLoraConfig,
    AutoPeftModel,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from tuner_zoo import batch, build, fill_state, logits

from aifs_peft import AIFSConfig
from aifs_peft.tuner import find_aifs_layer

LORA = LoraConfig(r=2, init_lora_weights=False)


def adapted(name="vit", config=None, **options):
    """A model whose adapter looks trained."""
    model = get_peft_model(build(name), config or AIFSConfig(encoder_adapter=LORA), **options)
    fill_state(find_aifs_layer(model))
    return model.eval()


def folder() -> Path:
    return Path(tempfile.mkdtemp())


def saved(model, **options) -> Path:
    where = folder()
    model.save_pretrained(where, **options)
    return where


def equal(model, expected, name="vit", tolerance=0.0):
    torch.testing.assert_close(logits(model, name), expected, atol=tolerance, rtol=tolerance)


# --- saving and loading ----------------------------------------------------------------------------------------------


def reloads(name="vit", config=None, load=None, save=None, tolerance=0.0):
    def run():
        model = adapted(name, config)
        where = saved(model, **(save or {}))
        again = PeftModel.from_pretrained(build(name), where, **(load or {})).eval()
        equal(again, logits(model, name), name, tolerance)

    return run


def loads_a_second_one():
    model, other = adapted(), adapted(config=AIFSConfig(encoder_adapter=LORA, head="mlp"))
    expected, second = logits(model, "vit"), logits(other, "vit")
    model.load_adapter(saved(other), adapter_name="second")
    equal(model, expected)
    model.set_adapter("second")
    equal(model, second)
    model.set_adapter("default")
    equal(model, expected)
    model.delete_adapter("second")
    equal(model, expected)
    assert list(model.peft_config) == ["default"]


def deletes_the_active_one():
    model = adapted()
    model.add_adapter("second", AIFSConfig())
    model.set_adapter("second")
    model.delete_adapter("second")
    assert model.active_adapter == "default"
    assert torch.isfinite(logits(model, "vit")).all()


def saves_one_of_several():
    model = adapted()
    model.add_adapter("second", AIFSConfig())
    model.set_adapter("second")
    fill_state(find_aifs_layer(model))
    expected = logits(model, "vit")
    where = saved(model, selected_adapters=["second"])
    assert not (where / "adapter_config.json").exists()
    equal(PeftModel.from_pretrained(build("vit"), where / "second"), expected)


def state_dict_round_trip():
    model = adapted()
    again = adapted(config=AIFSConfig(encoder_adapter=LoraConfig(r=2)))
    # Buffers that grow are taken from the dictionary.
    outcome = set_peft_model_state_dict(again, get_peft_model_state_dict(model))
    assert not outcome.unexpected_keys
    equal(again, logits(model, "vit"))


def renamed_file():
    model = adapted()
    where = saved(model)
    (where / "adapter_model.safetensors").rename(where / "mine.safetensors")
    PeftModel.from_pretrained(build("vit"), str(where))


def a_missing_weight():
    where = saved(adapted())
    state = load_file(where / "adapter_model.safetensors")
    dropped = next(key for key in state if "lora_A" in key)
    save_file({key: value for key, value in state.items() if key != dropped}, where / "adapter_model.safetensors")
    PeftModel.from_pretrained(build("vit"), where)


def a_missing_head():
    where = saved(adapted())
    state = load_file(where / "adapter_model.safetensors")
    save_file({k: v for k, v in state.items() if "aifs_head" not in k}, where / "adapter_model.safetensors")
    PeftModel.from_pretrained(build("vit"), where)


def pickled_weights():
    model = adapted()
    where = saved(model, safe_serialization=False)
    assert not (where / "adapter_model.safetensors").exists()
    equal(PeftModel.from_pretrained(build("vit"), where), logits(model, "vit"))


def trainable_reload():
    where = saved(adapted())
    again = PeftModel.from_pretrained(build("vit"), where, is_trainable=True)
    assert {"aifs_head", "lora_A"} <= {
        part for n, p in again.named_parameters() if p.requires_grad for part in n.split(".")
    }
    frozen = PeftModel.from_pretrained(build("vit"), where)
    assert not any(p.requires_grad for p in frozen.parameters())


def half_precision_base():
    base = build("vit").to(torch.bfloat16)
    model = get_peft_model(base, AIFSConfig(encoder_adapter=LORA)).eval()
    fill_state(find_aifs_layer(model))
    where = saved(model)
    inputs = {k: v.to(torch.bfloat16) for k, v in batch("vit").items()}
    with torch.no_grad():
        expected = model(**inputs).logits
        again = PeftModel.from_pretrained(build("vit").to(torch.bfloat16), where).eval()
        assert torch.equal(again(**inputs).logits, expected)
        merged = again.merge_and_unload(safe_merge=True)
        torch.testing.assert_close(merged(**inputs).logits.float(), expected.float(), atol=0.1, rtol=0.1)


def config_alone():
    model = adapted()
    config = PeftConfig.from_pretrained(saved(model))
    assert isinstance(config, AIFSConfig)
    assert isinstance(config.encoder_adapter, LoraConfig)


def auto_model(load=None):
    def run():
        where = folder()
        build("vit").save_pretrained(where / "base")
        base = type(build("vit")).from_pretrained(where / "base")
        model = get_peft_model(base, AIFSConfig(encoder_adapter=LORA)).eval()
        fill_state(find_aifs_layer(model))
        model.save_pretrained(where / "adapter")
        again = AutoPeftModel.from_pretrained(where / "adapter", **(load or {})).eval()
        inputs = {k: v.to(again.dtype) for k, v in batch("vit").items()}
        with torch.no_grad():
            torch.testing.assert_close(again(**inputs).logits.float(), logits(model, "vit"), atol=0.3, rtol=0.3)

    return run


# --- configurations --------------------------------------------------------------------------------------------------


def modules_to_save():
    model = adapted(config=AIFSConfig(encoder_adapter=LoraConfig(r=2, modules_to_save=["layernorm"])))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter += 0.5
    equal(PeftModel.from_pretrained(build("vit"), saved(model)), logits(model, "vit"))
    merged = copy.deepcopy(model).merge_and_unload()
    torch.testing.assert_close(logits(merged, "vit"), logits(model, "vit"), atol=1e-5, rtol=1e-4)


def pattern(**fields):
    def run():
        model = adapted(config=AIFSConfig(encoder_adapter=LoraConfig(init_lora_weights=False, **fields)))
        expected = logits(model, "vit")
        equal(PeftModel.from_pretrained(build("vit"), saved(model)), expected)
        torch.testing.assert_close(logits(model.merge_and_unload(), "vit"), expected, atol=1e-5, rtol=1e-4)

    return run


def lora_first():
    base = get_peft_model(build("vit"), LoraConfig(r=2, target_modules=["q_proj"]))
    base.add_adapter("aifs", AIFSConfig())


def injected():
    base = build("vit")
    inject_adapter_in_model(AIFSConfig(), base)
    expected = logits(build("vit"), "vit")
    torch.testing.assert_close(logits(base, "vit"), expected)
    assert find_aifs_layer(base).head is not None


def disabled_rows():
    model = adapted()
    with model.disable_adapter(), torch.no_grad():
        mixed = model(**batch("vit"), adapter_names=["default"] * 4).logits
    assert torch.equal(mixed, logits(build("vit"), "vit"))


def counted():
    model = adapted()
    trainable, total = model.get_nb_trainable_parameters()
    assert 0 < trainable < total
    assert model.get_model_status().active_adapters == ["default"]
    assert {status.name for status in model.get_layer_status()} >= {"model.classifier"}


def initialised(name):
    return lambda: AIFSConfig(encoder_adapter=LoraConfig(init_lora_weights=name))


def on_a_peft_model():
    get_peft_model(get_peft_model(build("vit"), LoraConfig(r=2, target_modules=["q_proj"])), AIFSConfig())


def on_an_injected_one():
    base = build("bert")
    base.add_adapter(LoraConfig(r=2, target_modules=["query"]))
    get_peft_model(base, AIFSConfig())


def merged_lora_first():
    inner = get_peft_model(build("vit"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    base = inner.merge_and_unload()
    model = get_peft_model(base, AIFSConfig())
    with model.disable_adapter():
        equal(model, logits(base, "vit"))


# --- merging ---------------------------------------------------------------------------------------------------------


def merges(**options):
    def run():
        model = adapted()
        expected = logits(model, "vit")
        merged = model.merge_and_unload(**options)
        assert not isinstance(merged, PeftModel)
        torch.testing.assert_close(logits(merged, "vit"), expected, atol=1e-5, rtol=1e-4)
        where = folder()
        merged.save_pretrained(where)
        plain = type(merged).from_pretrained(where).eval()
        torch.testing.assert_close(logits(plain, "vit"), expected, atol=1e-5, rtol=1e-4)

    return run


def merges_one_by_name():
    model = adapted()
    model.add_adapter("second", AIFSConfig(encoder_adapter=LORA))
    model.set_adapter("second")
    fill_state(find_aifs_layer(model))
    expected = logits(model, "vit")
    model.set_adapter("default")
    torch.testing.assert_close(
        logits(model.merge_and_unload(adapter_names=["second"]), "vit"), expected, atol=1e-5, rtol=1e-4
    )


def merges_in_place():
    model = adapted()
    expected = logits(model, "vit")
    model.merge_adapter()
    torch.testing.assert_close(logits(model, "vit"), expected, atol=1e-5, rtol=1e-4)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model, "vit"), expected, atol=1e-5, rtol=1e-4)


def saves_merged():
    model = adapted()
    expected = logits(model, "vit")
    model.merge_adapter()
    equal(PeftModel.from_pretrained(build("vit"), saved(model)), expected)


def unloads():
    model = adapted()
    equal(model.unload(), logits(build("vit"), "vit"))


def weighted_adapters():
    model = adapted()
    model.add_adapter("second", AIFSConfig(encoder_adapter=LORA))
    model.add_weighted_adapter(["default", "second"], [0.5, 0.5], "mean")


def two_active():
    model = adapted()
    model.add_adapter("second", AIFSConfig(encoder_adapter=LORA))
    model.base_model.set_adapter(["default", "second"])
    logits(model, "vit")


# --- rows of a batch -------------------------------------------------------------------------------------------------


@torch.no_grad()
def routed():
    model = adapted("bert")
    model.add_adapter("frozen", AIFSConfig())
    model.set_adapter("frozen")
    fill_state(find_aifs_layer(model))
    inputs = batch("bert")
    inputs["attention_mask"][1, 3:] = 0  # rows of different lengths
    alone = {}
    for name in ("default", "frozen"):
        model.set_adapter(name)
        alone[name] = model(**inputs).logits
    with model.disable_adapter():
        alone["__base__"] = model(**inputs).logits
    names = ["frozen", "default", "__base__", "default"]
    expected = torch.stack([alone[name][row] for row, name in enumerate(names)])
    torch.testing.assert_close(model(**inputs, adapter_names=names).logits, expected, atol=1e-5, rtol=1e-5)


def route(names, prepare=lambda model: model):
    def run():
        model = prepare(adapted())
        with torch.no_grad():
            model(**batch("vit"), adapter_names=names)

    return run


TABLES: dict[str, list[Any]] = {
    "Saving and loading": [
        Feature("`save_pretrained`, `from_pretrained`: the same logits, bit for bit", reloads()),
        Feature("under another name: `from_pretrained(..., adapter_name=)`", reloads(load={"adapter_name": "other"})),
        Feature("`low_cpu_mem_usage=True`", reloads(load={"low_cpu_mem_usage": True})),
        Feature("`is_trainable=True`", trainable_reload),
        Feature("`safe_serialization=False`", pickled_weights),
        Feature("`load_adapter`, `set_adapter`, `delete_adapter` with a second adapter", loads_a_second_one),
        Feature("`delete_adapter` of the active one", deletes_the_active_one),
        Feature("`save_pretrained(selected_adapters=)`", saves_one_of_several),
        Feature("`get_peft_model_state_dict`, `set_peft_model_state_dict`", state_dict_round_trip),
        Feature("`PeftConfig.from_pretrained`", config_alone),
        Feature("`AutoPeftModel.from_pretrained`, also with `dtype=torch.bfloat16`",
                lambda: [auto_model()(), auto_model({"dtype": torch.bfloat16})()]),
        Feature("a base model in bfloat16, merged with `safe_merge=True`", half_precision_base),
        Feature("a checkpoint whose file was renamed", renamed_file, "Repo id must be in the form"),
        Feature("a checkpoint without one of the encoder's weights", a_missing_weight,
                "the saved adapter does not fit this configuration (1 tensors: "),
        Feature("a checkpoint without the head", a_missing_head,
                "the saved adapter does not fit this configuration (2 tensors: "),
        Feature("`get_nb_trainable_parameters`, `get_model_status`, `get_layer_status`", counted),
    ],
    "Configurations": [
        Feature("`modules_to_save` of the encoder's adapter", modules_to_save),
        Feature("`rank_pattern`, `alpha_pattern`, `layers_to_transform`", lambda: [
                pattern(r=2, target_modules=["q_proj"], rank_pattern={"layers.0.*q_proj": 4})(),
                pattern(r=2, target_modules=["q_proj", "v_proj"], alpha_pattern={"v_proj": 32})(),
                pattern(r=2, target_modules=["q_proj"], layers_to_transform=[1])()]),
        Feature("`use_rslora`, `use_dora`, `lora_bias`", lambda: [
                pattern(r=2, target_modules=["q_proj"], use_rslora=True)(),
                pattern(r=2, target_modules=["q_proj"], use_dora=True)(),
                reloads(config=AIFSConfig(encoder_adapter=LoraConfig(r=2, lora_bias=True)))()]),
        Feature("`init_lora_weights` `\"gaussian\"`, `\"orthogonal\"`, `\"eva\"`", lambda: [
                reloads(config=AIFSConfig(encoder_adapter=LoraConfig(r=2, init_lora_weights=init)))()
                for init in ("gaussian", "orthogonal", "eva")]),
        Feature("`init_lora_weights=\"pissa\"`, `\"olora\"`, `\"corda\"`, `\"loftq\"`: they change the base model",
                initialised("pissa"),
                "1 problem in AIFSConfig:\n- encoder_adapter has init_lora_weights='pissa', which"),
        Feature("`bias=\"lora_only\"`", lambda: AIFSConfig(encoder_adapter=LoraConfig(bias="lora_only")),
                "1 problem in AIFSConfig:\n- encoder_adapter has bias='lora_only', which would not be saved"),
        Feature("`modules_to_save` that names the head", lambda: adapted(config=AIFSConfig(
                encoder_adapter=LoraConfig(modules_to_save=["classifier"]))),
                "modules_to_save=['classifier'] of the encoder's adapter names the head"),
        Feature("`modules_to_save` that names nothing", lambda: adapted(config=AIFSConfig(
                encoder_adapter=LoraConfig(modules_to_save=["pooller"]))),
                "modules_to_save=['pooller'] of the encoder's adapter names no module"),
        Feature("`target_parameters` that names the head", lambda: adapted(config=AIFSConfig(
                encoder_adapter=LoraConfig(target_modules=["q_proj"], target_parameters=["classifier.weight"]))),
                "target_parameters=['classifier.weight'] of the encoder's adapter names a weight of the head"),
        Feature("prompt tuning, prefix tuning", lambda: AIFSConfig(encoder_adapter=PrefixTuningConfig(
                num_virtual_tokens=2)), "1 problem in AIFSConfig:\n- encoder_adapter cannot be prompt learning"),
        Feature("AdaLoRA", lambda: AIFSConfig(encoder_adapter=AdaLoraConfig(total_step=9)),
                "1 problem in AIFSConfig:\n- encoder_adapter cannot be ADALORA: it must reallocate ranks"),
        Feature("VeRA, VB-LoRA", lambda: AIFSConfig(encoder_adapter=VeraConfig()),
                "1 problem in AIFSConfig:\n- encoder_adapter cannot be VERA: it shares state between layers"),
        Feature("`target_modules=\"all-linear\"`", pattern(r=2, target_modules="all-linear")),
        Feature("a LoRA that was merged into the base model", merged_lora_first),
        Feature("an AIFS adapter added to a LoRA model", lora_first,
                "Cannot combine adapters with different peft types"),
        Feature("`get_peft_model` on a PEFT model", on_a_peft_model, "the model already carries another adapter"),
        Feature("a base model into which a LoRA was injected, or loaded by transformers' `add_adapter`",
                on_an_injected_one, "the model already carries another adapter"),
        Feature("`get_peft_model(mixed=True)`, `PeftMixedModel`", lambda: get_peft_model(
                build("vit"), AIFSConfig(), mixed=True), "The provided `peft_type` 'AIFS' is not compatible with"),
        Feature("`inject_adapter_in_model`", injected),
    ],
    "Merging": [
        Feature("`merge_and_unload`, also with `safe_merge=True`; the result is a plain model",
                lambda: [merges()(), merges(safe_merge=True)()]),
        Feature("`merge_and_unload(adapter_names=)`", merges_one_by_name),
        Feature("`merge_adapter`, `unmerge_adapter`", merges_in_place),
        Feature("`save_pretrained` while merged", saves_merged),
        Feature("`unload`: the base model as it was", unloads),
        Feature("`add_weighted_adapter`", weighted_adapters,
                "AIFS adapters cannot be mixed with add_weighted_adapter"),
        Feature("two adapters active at once", two_active, "AIFS needs exactly one active adapter"),
    ],
    "Rows of a batch": [
        Feature("`adapter_names=[...]`, LoRA, frozen and `\"__base__\"` mixed, rows of different lengths", routed),
        Feature("names that are no adapters", route(["default", "x", "default", "y"]),
                "adapter_names holds ['x', 'y'], which are no adapters of this model"),
        Feature("another number of names", route(["default"] * 3),
                "Length of `adapter_names` should be the same as the number of inputs"),
        Feature("`adapter_names` in training mode", route(["default"] * 4, lambda model: model.train()),
                "adapter_names works in evaluation mode only"),
        Feature("`adapter_names` as one string", route("four"),
                "adapter_names must be a list with one name for each row; got 'four'"),
        Feature("`adapter_names` while disabled: the base model, as in PEFT", disabled_rows),
    ],
}  # fmt: skip
