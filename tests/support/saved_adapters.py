"""Small adapters of every recipe, and what each predicted when it was written.

`python tests/support/saved_adapters.py` writes those of this release that `tests/tuner/saved` lacks. What
is there is never written again: it is what releases have left on the disks of users.
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from aifs_peft import __version__
from aifs_peft.models import LatentClassifier, TabularEncoder
from aifs_peft.tuner import AIFSConfig, find_aifs_layer

SAVED = Path(__file__).parents[1] / "tuner" / "saved"
EXPECTED = "expected.json"
WIDTH, FEATURES = 6, 4


def lora() -> LoraConfig:
    return LoraConfig(target_modules=["fc1"], r=2)


CONFIGS = {
    "aifs-frozen": lambda: AIFSConfig(),
    "aifs-lora": lambda: AIFSConfig(encoder_adapter=lora()),
    "paper-frozen": lambda: AIFSConfig.paper(),
    "paper-lora": lambda: AIFSConfig.paper(encoder_adapter=lora()),
    "erm-lora": lambda: AIFSConfig(recipe="erm", encoder_adapter=lora()),
    "erm-mlp-head": lambda: AIFSConfig(recipe="erm", head="mlp", head_hidden=3),
    "erm-second-head": lambda: AIFSConfig(recipe="erm", auxiliary="linear"),
}  # fmt: skip


def fill(tensor: torch.Tensor, shift: float) -> None:
    """Numbers that no release of torch draws otherwise."""
    with torch.no_grad():
        tensor.copy_(torch.sin(shift + torch.arange(tensor.numel(), dtype=torch.float64)).reshape(tensor.shape) / 2)


def base_model() -> LatentClassifier:
    """The same on every machine."""
    model = LatentClassifier(TabularEncoder(FEATURES, WIDTH), num_labels=2)
    for i, parameter in enumerate(model.parameters()):
        fill(parameter, float(i))
    return model


def observed(model: PeftModel) -> dict:
    """Predictions on fixed inputs, and the state, as plain numbers."""
    inputs = torch.empty(5, FEATURES)
    fill(inputs, 0.5)
    with torch.no_grad():
        logits = model.eval()(features=inputs).logits
    state = {name: value.double().tolist() for name, value in find_aifs_layer(model).state.named_buffers()}
    return {"logits": logits.double().tolist(), "state": state}


def write(name: str, folder: Path) -> None:
    """An adapter as training leaves one: weights and state of some size."""
    model = get_peft_model(base_model(), CONFIGS[name]())
    for i, (_, parameter) in enumerate(p for p in model.named_parameters() if p[1].requires_grad):
        fill(parameter, 0.1 * i)
    state, axes = find_aifs_layer(model).state, torch.eye(WIDTH)
    if name.startswith("aifs"):
        offsets = axes[:2] - axes[:2].mean(0)
        state.update(
            mask=torch.ones(1), basis=(offsets[:1] / offsets[0].norm()).T, displacements=offsets,
            centre=torch.zeros(WIDTH), class_displacements=axes[2:4] - axes[2:4].mean(0), groups=torch.arange(10) % 2,
            reader=torch.cat([4 * offsets, torch.zeros(2, 1)], dim=1),
        )  # fmt: skip
    elif name.startswith("paper"):
        state.update(mask=torch.linspace(0, 1, WIDTH))
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / EXPECTED).write_text(json.dumps(observed(model), indent=1) + "\n")


if __name__ == "__main__":
    for name_ in CONFIGS:
        place = SAVED / f"{__version__}-{name_}"
        if not place.exists():
            write(name_, place)
