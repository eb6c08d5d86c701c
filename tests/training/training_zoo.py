"""Tiny models and data for the training tests."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}


def lora(dropout=0.0):
    return LoraConfig(target_modules=["q_proj", "v_proj"], r=4, lora_dropout=dropout)


def make_model(config=None, dropout=0.0, num_labels=2, adapter_name="default"):
    torch.manual_seed(0)
    vit = ViTForImageClassification(ViTConfig(num_labels=num_labels, hidden_dropout_prob=dropout, **SIZES))
    return get_peft_model(vit, config or AIFSConfig.paper(), adapter_name=adapter_name)


def make_data(n=64, seed=0):
    """Images whose mean tells the label, and whose red channel agrees with it for nine in ten examples."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(n):
        label = i % 2
        spurious = label if i % 10 < 8 else 1 - label
        image = torch.randn(3, 8, 8, generator=generator) * 0.5
        image[1:] += label - 0.5
        image[0] += 4 * (spurious - 0.5)
        out.append({"pixel_values": image, "label": label, "group": 2 * label + spurious})
    return out


def make_args(folder, **options):
    defaults = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 7,
    }
    return AIFSTrainingArguments(output_dir=str(folder), **{**defaults, **options})


def make_trainer(folder, config=None, data=None, model=None, **options):
    """A trainer on a fresh model; `options` are arguments."""
    names = ("eval_dataset", "compute_metrics", "callbacks", "data_collator", "compute_loss_func")
    extra = {name: options.pop(name) for name in names if name in options}
    return AIFSTrainer(
        model if model is not None else make_model(config),
        make_args(folder, **options),
        train_dataset=make_data() if data is None else data,
        **extra,
    )


def trained(model):
    """Trainable parameters and the adapter's buffers, by name, detached and copied."""
    out = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    out |= {name: b.detach().clone() for name, b in model.named_buffers() if "aifs_state" in name}
    assert out
    return out


def assert_equal(a, b, exact=True, tolerance=1e-6):
    assert a.keys() == b.keys()
    for name in a:
        if exact:
            assert torch.equal(a[name], b[name]), name
        else:
            torch.testing.assert_close(a[name], b[name], atol=tolerance, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def shortcut_data(n=240, seed=0, rate=20):
    """A weak class signal and a strong attribute that agrees with the class except in one of `rate` examples."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(n):
        label = i % 2
        attribute = label if (i // 2) % rate else 1 - label
        image = torch.randn(3, 8, 8, generator=generator) * 0.5
        image[1, :, :4] += label - 0.5
        image[0, :4] += 4 * (attribute - 0.5)
        out.append({"pixel_values": image, "label": label, "group": 2 * label + attribute})
    return out
