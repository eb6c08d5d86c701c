"""AIFSConfig: recipes, validation all at once, JSON."""

import json

import pytest
from peft import AdaLoraConfig, LoraConfig, PeftConfig, PrefixTuningConfig, PromptTuningConfig, VeraConfig

from aifs_peft import AIFSConfig
from aifs_peft.errors import InvalidConfigError


def test_paper_is_the_published_method_literally():
    config = AIFSConfig.paper()
    got = {
        name: getattr(config, name)
        for name in ("lambda_", "alpha", "beta", "sensitivity_sign", "mask_rule", "mask_scale", "noise", "attribution")
    }
    assert got == {
        "lambda_": 0.5,
        "alpha": 1.0,
        "beta": 0.5,
        "sensitivity_sign": -1,
        "mask_rule": "inverse",
        "mask_scale": "sum",
        "noise": "gaussian",
        "attribution": "gradient_x_input",
    }
    assert config.use_basis is False
    assert config == AIFSConfig(recipe="paper")


def test_default_penalises_and_intervenes_in_discovered_directions():
    config = AIFSConfig()
    assert (config.recipe, config.noise, config.use_basis, config.sensitivity_sign) == (
        "discovery",
        "counterfactual",
        True,
        1,
    )
    assert AIFSConfig(recipe="paper", noise="l1", sensitivity_sign=1).noise == "l1"


def test_every_problem_is_reported_at_once():
    with pytest.raises(InvalidConfigError) as error:
        AIFSConfig(lambda_=-1, eps0=0, ema_decay=1.0, top_k=0, head="tree", labels=["a", "a"], encoder_adapter="lora")
    text = str(error.value)
    assert text.startswith("7 problems in AIFSConfig:")
    for name in ("lambda_", "eps0", "ema_decay", "top_k", "head", "labels", "encoder_adapter"):
        assert f"\n- {name} " in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipe": "magic"}, "recipe must be one of 'discovery', 'paper', 'erm'; got 'magic'"),
        ({"noise": "pink"}, "noise must be one of"),
        ({"mask_rule": "none"}, "mask_rule must be one of"),
        ({"mask_scale": "none"}, "mask_scale must be one of"),
        ({"sensitivity_sign": 0}, "sensitivity_sign must be one of -1, 1; got 0"),
        ({"attribution": "shap"}, "attribution must be one of"),
        ({"pool": "max"}, "pool must be one of"),
        ({"class_weights": "equal"}, "class_weights must be finite numbers, not all 0, or 'probability' or None"),
        ({"class_weights": [0.0, 0.0]}, "class_weights must be finite numbers, not all 0"),
        ({"class_weights": [1.0, 2.0], "labels": float("nan")}, "labels must be"),
        ({"class_weights": [1.0, float("nan")]}, "class_weights must be finite numbers"),
        ({"class_weights": [1.0], "num_labels": 2}, "class_weights needs one number for each of 2 classes; got 1"),
        ({"alpha": float("nan")}, "alpha must be a finite number of at least 0; got nan"),
        ({"beta": "0.5"}, "beta must be a finite number of at least 0; got '0.5'"),
        ({"gamma": float("inf")}, "gamma must be a finite number"),
        ({"attribution_steps": None}, "attribution_steps must be an integer of at least 1; got None"),
        ({"num_labels": True}, "num_labels must be an integer from 1 to 10000000; got True"),
        ({"head_hidden": 1.5}, "head_hidden must be an integer"),
        ({"adversarial": True}, "adversarial noise needs noise='gaussian', 'l1' or 'l2'"),
        ({"target_modules": ["a", "b"]}, "target_modules must name one head"),
        ({"labels": ["a", "b"], "num_labels": 3}, "num_labels is 3, but labels names 2 classes"),
        ({"encoder_adapter": {"r": 4}}, "encoder_adapter needs a peft_type that PEFT knows; got None"),
        ({"encoder_adapter": PromptTuningConfig()}, "cannot be prompt learning .PROMPT_TUNING."),
        ({"encoder_adapter": PrefixTuningConfig()}, "cannot be prompt learning .PREFIX_TUNING."),
        ({"encoder_adapter": AdaLoraConfig(total_step=10)}, "cannot be ADALORA: it must reallocate ranks"),
        ({"encoder_adapter": AIFSConfig()}, "cannot be AIFS: an AIFS adapter holds no other"),
        ({"encoder_adapter": VeraConfig()}, "cannot be VERA: it shares state between layers"),
        ({"encoder_adapter": LoraConfig(bias="all")}, "has bias='all', which would not be saved; use bias='none'"),
        ({"encoder_adapter": LoraConfig(bias="lora_only")}, "has bias='lora_only'"),
    ],
)
def test_each_wrong_field_is_named(fields, message):
    with pytest.raises(InvalidConfigError, match=message):
        AIFSConfig(**fields)


def test_json_round_trip_with_a_nested_configuration(tmp_path):
    inner = LoraConfig(r=3, lora_alpha=5, target_modules=["v_proj", "q_proj"], modules_to_save=["norm"], use_dora=True)
    config = AIFSConfig.paper(
        encoder_adapter=inner, labels=["cat", "dog"], target_modules="classifier", class_weights=[1, 2]
    )
    config.save_pretrained(tmp_path)
    for cls in (AIFSConfig, PeftConfig):
        again = cls.from_pretrained(tmp_path)
        assert type(again) is AIFSConfig
        assert again.to_dict() == config.to_dict()
    assert again.nested.target_modules == {"q_proj", "v_proj"}
    assert again.nested.use_dora
    text = json.loads((tmp_path / "adapter_config.json").read_text())
    assert text["peft_type"] == "AIFS"
    assert text["encoder_adapter"]["peft_type"] == "LORA"
    assert "runtime_config" not in text["encoder_adapter"]


def test_a_dictionary_does_for_the_nested_configuration_and_copies_are_private():
    inner = LoraConfig(r=3)
    config = AIFSConfig(encoder_adapter=inner)
    assert AIFSConfig(encoder_adapter=inner.to_dict()).to_dict() == config.to_dict()
    config.nested.r = 4
    assert inner.r == 3


def test_unknown_keys_of_a_newer_version_are_dropped_with_a_warning(tmp_path):
    AIFSConfig(encoder_adapter=LoraConfig()).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["from_the_future"] = 1
    path.write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match="from_the_future"):
        again = PeftConfig.from_pretrained(tmp_path)
    assert type(again) is AIFSConfig
    del saved["from_the_future"]
    saved["encoder_adapter"]["also_new"] = 1
    path.write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match="also_new"):
        assert PeftConfig.from_pretrained(tmp_path).nested.r == 8
