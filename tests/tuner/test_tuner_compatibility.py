"""What users of PEFT take for granted: every row of the table works, or is refused with its words."""

import pytest
from peft_features import TABLES, adapted
from torch import nn

from aifs_peft import AIFSConfig
from aifs_peft.errors import InvalidConfigError
from aifs_peft.tuner import nested

FEATURES = [feature for rows in TABLES.values() for feature in rows]


@pytest.mark.parametrize("feature", FEATURES, ids=[feature.name for feature in FEATURES])
@pytest.mark.filterwarnings("ignore")  # of PEFT, about what is done here on purpose
def test_what_is_taken_for_granted(feature):
    if feature.refused is None:
        feature.run()
        return
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - some are PEFT's own; the words are compared
        feature.run()
    assert str(raised.value).startswith(feature.refused)


def test_an_adapter_that_replaces_a_weight_of_the_base_model_is_refused(monkeypatch):
    inject = nested.inject_adapter_in_model

    def greedy(inner, model, *given, **options):
        inject(inner, model, *given, **options)
        layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
        layer.weight.data = layer.weight.data * 0.5

    monkeypatch.setattr(nested, "inject_adapter_in_model", greedy)
    with pytest.raises(InvalidConfigError, match="this LoraConfig starts with weights that it takes from the base"):
        adapted(config=AIFSConfig(encoder_adapter={"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}))
