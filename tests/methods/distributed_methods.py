"""Run by `test_methods_distributed.py`, alone or in two processes: every method once, what it trained in a file."""

import sys
from pathlib import Path

import torch
from methods_zoo import make_trainer

from aifs_peft.methods import get, names
from aifs_peft.training.parallel import close_process_group


def main(out, processes):
    results = {}
    for method in names():
        modality = "image" if get(method).reads_tokens else "table"
        # The same batch of 16 on one process and on two.
        options = {"per_device_train_batch_size": 16 // processes, "num_train_epochs": 2}
        trainer = make_trainer(method, modality, "lora", Path(out) / method, **options)
        assert trainer.accelerator.num_processes == processes
        trainer.train()
        for name, value in trainer.model.named_parameters():
            if value.requires_grad:
                results[f"{method}.{name}"] = value.detach().clone()
    if trainer.accelerator.is_main_process:
        torch.save(results, Path(out) / "results.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    close_process_group()
