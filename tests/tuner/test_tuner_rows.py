"""`adapter_names=[...]`: every row of a batch through the adapter named for it."""

import copy

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from tuner_zoo import batch, build, fill_state, logits

from aifs_peft import AIFSConfig
from aifs_peft.errors import InvalidInputError
from aifs_peft.tuner import find_aifs_layer

NAMES = ["lora", "__base__", "frozen", "lora", "whole", "frozen"]
LORA = LoraConfig(r=2, init_lora_weights=False)


def three_adapters(name):
    """One model with a LoRA, a frozen and a wholly trained adapter whose weights differ."""
    model = get_peft_model(build(name), AIFSConfig(encoder_adapter=LORA), adapter_name="lora")
    model.add_adapter("frozen", AIFSConfig(head="linear" if name == "vit" else "copy"))
    # LoRA sits on the attention projections; another layer is trained whole.
    dense = {"vit": "mlp.fc1", "distilbert": "ffn.lin1"}[name]
    model.add_adapter("whole", AIFSConfig(trained_modules=[dense]))
    for seed, adapter in enumerate(["lora", "frozen", "whole"]):
        model.set_adapter(adapter)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in (p for p in model.parameters() if p.requires_grad):
                p += 0.2 * torch.randn(p.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("active", ["lora", "frozen", "whole"])
@pytest.mark.parametrize("name", ["vit", "distilbert"])
@torch.no_grad()
def test_every_row_equals_its_own_adapters(name, active):
    model = three_adapters(name)
    inputs = batch(name, n=len(NAMES))
    alone = {}
    for adapter in ("lora", "frozen", "whole"):
        model.set_adapter(adapter)
        alone[adapter] = model(**inputs).logits
    with model.disable_adapter():
        alone["__base__"] = model(**inputs).logits
    expected = torch.stack([alone[adapter][row] for row, adapter in enumerate(NAMES)])
    assert len({tuple(value[0].tolist()) for value in alone.values()}) == 4
    model.set_adapter(active)
    mixed = model(**inputs, adapter_names=NAMES).logits
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    assert not find_aifs_layer(model).has_output
    # Nothing is left behind.
    assert torch.equal(model(**inputs).logits, alone[active])
    assert not any(module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_one_name_for_all_rows_and_the_loss():
    model = three_adapters("vit")
    model.set_adapter("frozen")
    expected = logits(model, "vit")
    model.set_adapter("lora")
    out = model(**batch("vit"), labels=torch.tensor([0, 1, 2, 0]), adapter_names=["frozen"] * 4)
    assert torch.equal(out.logits, expected)
    assert torch.isfinite(out.loss)


@torch.no_grad()
def test_a_task_type_and_a_reloaded_adapter_route_alike(tmp_path):
    base = build("distilbert")
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(task_type="SEQ_CLS", encoder_adapter=LORA))
    fill_state(find_aifs_layer(model))
    model.eval().save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, adapter_name="other").eval()
    names = ["other", "__base__", "other", "__base__"]
    expected = torch.stack([(logits(model, "distilbert") if n == "other" else logits(base, "distilbert"))[i]
                            for i, n in enumerate(names)])  # fmt: skip
    mixed = again(**batch("distilbert"), adapter_names=names).logits
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)


def with_ia3(model):
    model.add_adapter("ia3", AIFSConfig(encoder_adapter=IA3Config()))


def with_more_classes(model):
    model.add_adapter("wide", AIFSConfig(num_labels=5))


@pytest.mark.parametrize(
    ("change", "names", "words"),
    [
        (lambda model: model.train(), ["lora"] * 4, "evaluation mode only"),
        (lambda model: None, ["lora", "lorra", "x", "lora"], r"holds \['lorra', 'x'\], which are no adapters"),
        (lambda model: None, ["lora"] * 3, "got 3 names, and a layer was fed 4 rows"),
        (lambda model: model.merge_adapter(), ["lora"] * 4, "not merged"),
        (with_ia3, ["lora"] * 4, "cannot send rows through different adapters"),
        (with_more_classes, ["lora", "wide"] * 2, r"same number of classes; got \{'lora': 3, 'wide': 5\}"),
        (with_more_classes, ["__base__", "wide"] * 2, r"got \{'wide': 5, '__base__': 3\}"),
    ],
)
def test_what_cannot_be_routed_is_refused_and_leaves_nothing_behind(change, names, words):
    model = get_peft_model(build("vit"), AIFSConfig(trained_modules=["mlp.fc1"]), adapter_name="lora").eval()
    change(model)
    before = logits(model, "vit")
    with pytest.raises(InvalidInputError, match=words):
        model(**batch("vit"), adapter_names=names)
    assert torch.equal(logits(model, "vit"), before)
