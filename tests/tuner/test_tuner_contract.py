"""What this package relies on inside PEFT 0.21 and may change without notice: one test per item.

When one of these fails after an upgrade, read the item it names before touching anything else.
"""

import inspect
import subprocess
import sys

import peft
import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, LoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners import tuners_utils
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import transformers_weight_conversion
from tuner_zoo import build

from aifs_peft.tuner import AIFSConfig, AIFSLayer, AIFSModel, AIFSPeftType, register


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (
            BaseTuner,
            "inject_adapter",
            ["self", "model", "adapter_name", "autocast_adapter_dtype", "low_cpu_mem_usage", "state_dict"],
        ),
        (BaseTuner, "_replace_module", ["self", "parent", "child_name", "new_module", "child"]),
        (BaseTuner, "_remove_adapter_name_from_key", ["key", "adapter_name"]),
        (BaseTuner, "_remap_adapter_state_dict_for_load", ["model", "config", "adapter_name", "state_dict"]),
        (
            BaseTuner,
            "_unload_and_optionally_merge",
            ["self", "merge", "progressbar", "safe_merge", "adapter_names"],
        ),
        (BaseTuner, "_prepare_adapter_config", ["self", "peft_config", "model_config"]),
        (BaseTuner, "_check_target_module_exists", ["peft_config", "key"]),
        (
            BaseTuner,
            "_create_and_replace",
            ["self", "peft_config", "adapter_name", "target", "target_name", "parent", "current_key", "parameter_name"],
        ),
        (BaseTunerLayer, "_move_adapter_to_device_of_base_layer", ["self", "adapter_name", "device"]),
        (BaseTunerLayer, "merge", ["self", "safe_merge", "adapter_names"]),
        (tuners_utils, "check_adapters_to_merge", ["module", "adapter_names"]),
    ],
)
def test_signatures_of_what_is_overridden_or_called(owner, name, expected):
    assert parameters(getattr(owner, name)) == expected


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


def test_importing_registers_and_changes_nothing_else():
    code = """
import logging, random, warnings
import numpy, torch, transformers, peft
before = (list(warnings.filters), random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads(),
          numpy.random.get_state()[1].tolist(), logging.getLogger().level)
import aifs_peft
after = (list(warnings.filters), random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads(),
         numpy.random.get_state()[1].tolist(), logging.getLogger().level)
assert before == after, [a == b for a, b in zip(before, after)]
assert "AIFS" in peft.PEFT_TYPE_TO_TUNER_MAPPING
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
