"""What this package leans on inside PEFT 0.21 and may change without notice: every private name, and what it is for.

When one of these fails after an upgrade, read the line it names and `aifs_peft/tuner/_peft.py` before anything else.
"""

import ast
import inspect
from pathlib import Path

import peft
import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, LoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners import tuners_utils
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, transformers_weight_conversion
from tuner_zoo import build

import aifs_peft
from aifs_peft.tuner import AIFSConfig, AIFSLayer, AIFSModel, AIFSPeftType, register

# Owner, private name, its parameters, what is expected of it.
METHODS = [
    (BaseTuner, "inject_adapter", "self model adapter_name autocast_adapter_dtype low_cpu_mem_usage state_dict",
     "does the whole injection, also when `add_adapter` calls it; extended to inject the encoder's adapter first"),
    (BaseTuner, "_prepare_adapter_config", "self peft_config model_config",
     "looks for default targets by model type; replaced, the head has been found by then"),
    (BaseTuner, "_check_target_module_exists", "peft_config key",
     "asked for every module whether it is a target; replaced"),
    (BaseTuner, "_check_target_module_compatiblity", "self peft_config model target_name",
     "refuses targets by model type; replaced by nothing"),
    (BaseTuner, "_create_and_replace",
     "self peft_config adapter_name target target_name parent current_key parameter_name",
     "called for every target; replaced"),
    (BaseTuner, "_replace_module", "self parent child_name new_module child",
     "puts the base module back on unload, and copies `.weight`, which head blocks lack; replaced"),
    (BaseTuner, "_remove_adapter_name_from_key", "key adapter_name",
     "from a key in the model to a key in the file; extended for blocks"),
    (BaseTuner, "_remap_adapter_state_dict_for_load", "model config adapter_name state_dict",
     "from keys in the file to keys in the model, before loading; extended by a check"),
    (BaseTuner, "_unload_and_optionally_merge", "self merge progressbar safe_merge adapter_names",
     "behind `unload` and `merge_and_unload`; extended"),
    (BaseTunerLayer, "_move_adapter_to_device_of_base_layer", "self adapter_name device",
     "called after loading with low_cpu_mem_usage; replaced, it would round the mask"),
    (BaseTunerLayer, "merge", "self safe_merge adapter_names", "replaced"),
    (tuners_utils, "check_adapters_to_merge", "module adapter_names", "which adapters are not merged yet; called"),
]  # fmt: skip

# Class, private attribute, what is expected of it.
ATTRIBUTES = [
    (BaseTunerLayer, "_disable_adapters", "the one flag that switches a layer's adapters off; read and set"),
]


@pytest.mark.parametrize(("owner", "name", "expected", "use"), METHODS, ids=[m[1] for m in METHODS])
def test_private_functions_have_the_parameters_we_know(owner, name, expected, use):
    found = list(inspect.signature(getattr(owner, name)).parameters)
    assert found == expected.split(), f"{name}: {use}"


@pytest.mark.parametrize(("owner", "name", "use"), ATTRIBUTES, ids=[a[1] for a in ATTRIBUTES])
def test_private_attributes_are_there(owner, name, use):
    assert getattr(owner, name, None) is False, f"{name}: {use}"
    source = inspect.getsource(AuxiliaryTrainingWrapper.forward) + inspect.getsource(AuxiliaryTrainingWrapper.__init__)
    assert "self._disable_adapters = False" in source
    assert "self.disable_adapters" in source


def test_no_other_file_touches_a_private_name_of_peft():
    classes = (BaseTuner, BaseTunerLayer, AuxiliaryTrainingWrapper, peft.PeftModel, peft.PeftConfig)
    private = {n for c in classes for n in vars(c) if n.startswith("_") and not n.startswith("__")}
    private -= {n for n in vars(torch.nn.Module) if n.startswith("_")} | {"_abc_impl"}
    folder = Path(aifs_peft.__file__).parent
    found = []
    for path in sorted(folder.rglob("*.py")):
        if path.name == "_peft.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            touched = {node.attr} if isinstance(node, ast.Attribute) else set()
            touched |= {node.name} if isinstance(node, ast.FunctionDef) else set()
            unlisted = isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("peft.mapping", "peft.tuners.tuners_utils", "peft.utils.")
            )
            if touched & private or unlisted:
                found.append(f"{path.relative_to(folder)}:{node.lineno}: {touched & private or node.module}")
    assert not found, "move it to tuner/_peft.py and add a line above"


def test_the_state_dict_is_selected_by_structure_not_by_prefix():
    # New in PEFT 0.21: everything on a tuner layer but `base_layer` is saved, buffers and nested LoRA included.
    model = get_peft_model(build("vit"), AIFSConfig(encoder_adapter=LoraConfig()))
    prefixes = tuners_utils._get_tuner_state_dict_key_prefixes(model)
    assert {p.rpartition(".")[2] for p in prefixes} >= {"aifs_head", "aifs_state", "lora_A", "lora_B"}
    assert not any("base_layer" in p for p in prefixes)


def test_tables_hold_the_enum_under_the_plain_string():
    register()
    register()
    assert PEFT_TYPE_TO_CONFIG_MAPPING["AIFS"] is AIFSConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING["AIFS"] is AIFSModel
    assert AIFSPeftType.AIFS == "AIFS"
    assert hash(AIFSPeftType.AIFS) == hash("AIFS")
    assert AIFSPeftType.AIFS.value == "AIFS"


def test_the_prefix_is_registered_beside_the_type_not_under_it():
    # `build_peft_weight_mapping` renames every known prefix only for a type that has no entry of its own.
    assert PEFT_TYPE_TO_PREFIX_MAPPING["AIFS_HEAD"] == "aifs_"
    assert "AIFS" not in PEFT_TYPE_TO_PREFIX_MAPPING
    source = inspect.getsource(transformers_weight_conversion.build_peft_weight_mapping)
    assert "prefixes.update(PEFT_TYPE_TO_PREFIX_MAPPING.values())" in source


def test_pefts_own_move_would_round_the_mask():
    # The reason for overriding `_move_adapter_to_device_of_base_layer`.
    layer = AIFSLayer(torch.nn.Linear(4, 2).to(torch.bfloat16), "default", AIFSConfig())
    assert layer.head.weight.dtype == torch.float32
    layer._move_adapter_to_device_of_base_layer("default")
    assert layer.head.weight.dtype == torch.float32
    BaseTunerLayer._move_adapter_to_device_of_base_layer(layer, "default")
    assert layer.head.weight.dtype == torch.bfloat16


def test_pefts_own_key_translation_would_keep_the_adapter_name_in_a_block():
    key = "base_model.model.classifier.aifs_head.default.dense.weight"
    assert BaseTuner._remove_adapter_name_from_key(key, "default") == key
    assert AIFSModel._remove_adapter_name_from_key(key, "default") == key.replace(".default", "")
    assert AIFSModel._remove_adapter_name_from_key("a.aifs_state.x.mask", "x") == "a.aifs_state.mask"
    assert AIFSModel._remove_adapter_name_from_key("a.lora_A.x.weight", "x") == "a.lora_A.weight"
    assert AIFSModel._remove_adapter_name_from_key("a.aifs_head.xx.weight", "x") == "a.aifs_head.xx.weight"


def test_the_pinned_minor_version():
    assert peft.__version__.startswith("0.21.")
