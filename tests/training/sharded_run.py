"""Run by `test_training_sharding.py` in several processes: a base model split by FSDP2 trains as a whole one."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))
import pytest
import torch
from architectures import AUTO, config_for, inputs_for
from distributed_run import Rows, run
from peft import LoraConfig, PeftModel, get_peft_model
from torch.distributed.tensor import DTensor
from training_zoo import lora, make_data, make_model, shortcut_data, trained
from transformers import ViTConfig, ViTForImageClassification

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training.parallel import close_process_group
from aifs_peft.training.sharding import shard_base
from aifs_peft.tuner import AIFSConfig, find_aifs_layer


def paper(dropout=0.0, encoder=True):
    return AIFSConfig.paper(mask_scale="max", encoder_adapter=lora(dropout) if encoder else None)


def held(model):
    """Numbers of the base model that this process holds, and of the whole."""
    parameters = list(model.parameters())
    mine = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters)
    return mine, sum(p.numel() for p in parameters)


def assert_same(one, other, what):
    one, other = trained(one.model), trained(other.model)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert not isinstance(other[name], DTensor), name
        assert torch.equal(value, other[name]), f"{what}: {name}"


def check_architecture(kind, model_type):
    """Logits and gradients of an encoder are the same before and after it is split."""
    torch.manual_seed(0)
    config = config_for(kind, model_type)
    every = LoraConfig(r=2, target_modules="all-linear")
    model = get_peft_model(AUTO[kind].from_config(config), AIFSConfig.paper(encoder_adapter=every)).eval()

    def outcome():
        model.zero_grad()
        logits = model(**inputs_for(kind, config))["logits"]
        logits.square().sum().backward()
        return logits.detach().clone(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    logits, gradients = outcome()
    shard_base(model, find_aifs_layer(model))
    for _ in range(2):
        again, others = outcome()
        assert torch.equal(again, logits), model_type
        assert others.keys() == gradients.keys(), model_type
        assert all(torch.equal(value, others[name]) for name, value in gradients.items()), model_type
    mine, whole = held(model)
    assert mine < whole


def main(out, processes):
    out = Path(out)
    evaluated = {"eval_dataset": make_data(21, seed=1), "eval_strategy": "epoch"}  # 21 do not divide
    cases = {
        "paper": (paper, make_data(64), {**evaluated, "save_strategy": "epoch", "load_best_model_at_end": True}),
        "uneven": (paper, make_data(61), {"num_train_epochs": 1}),
        "frozen": (lambda: paper(encoder=False), make_data(64), {}),
        "cached": (lambda: AIFSConfig(), shortcut_data(248), {"cache_latents": True}),  # 31 batches: not even
        "discovery": (lambda: AIFSConfig(encoder_adapter=lora()), shortcut_data(248), {}),
        "stream": (lambda: AIFSConfig(encoder_adapter=lora()), Rows(shortcut_data(248)), {}),
        "multi": (
            lambda: AIFSConfig(latents="multi", encoder_adapter=lora()),
            shortcut_data(120),
            {"num_train_epochs": 1},
        ),
        "checkpointing": (paper, make_data(64), {"activation_checkpointing": True}),
        "bf16": (paper, make_data(64), {"bf16": True}),
        "accumulation": (paper, make_data(64), {"gradient_accumulation_steps": 2}),
    }
    for name, (config, data, options) in cases.items():
        whole = run(out / name, config(), data, processes, **options)
        split = run(out / f"{name}_split", config(), data, processes, shard_base_model=True, **options)
        assert_same(whole, split, name)
        mine, all_of_it = held(split.model)
        assert mine < all_of_it * (0.75 if processes == 2 else 0.6), (mine, all_of_it)
        if "eval_strategy" in options:
            assert [r.get("eval_loss") for r in whole.state.log_history] == [
                r.get("eval_loss") for r in split.state.log_history
            ]

    options = {"save_strategy": "steps", "save_steps": 3, "mask_samples": 40, "shard_base_model": True}
    # DDP orders its buckets anew after a run's first step, which more than two processes see in the rounding.
    options["ddp_find_unused_parameters"] = processes > 2
    first = run(out / "resume", paper(0.1), make_data(64), processes, **options)
    again = run(out / "again", paper(0.1), make_data(64), processes, str(out / "resume" / "checkpoint-3"), **options)
    assert_same(first, again, "resumed within an epoch")

    # What is saved is an adapter like any other, for a base in one piece.
    first.save_model(str(out / "final"))
    first.accelerator.wait_for_everyone()
    torch.manual_seed(0)
    sizes = make_model().get_base_model().config.to_dict()
    torch.manual_seed(0)
    base = ViTForImageClassification(ViTConfig(**sizes))
    loaded = PeftModel.from_pretrained(base, str(out / "final")).eval()
    images = torch.stack([row["pixel_values"] for row in make_data(16)])
    first.adapted.eval()
    with torch.no_grad():
        wanted = first.adapted(pixel_values=images)["logits"]
        torch.testing.assert_close(loaded(pixel_values=images)["logits"], wanted, atol=1e-6, rtol=1e-5)

    for kind, model_type in (("image", "swin"), ("image", "clip"), ("text", "roberta"), ("text", "llama")):
        check_architecture(kind, model_type)

    with pytest.raises(InvalidConfigError, match="torch_compile"):
        run(out / "compiled", paper(), make_data(64), processes, shard_base_model=True, torch_compile_backend="eager")
    if first.accelerator.is_main_process:
        torch.save({"held": torch.tensor(held(first.model))}, out / "results.pt")
    first.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    close_process_group()
