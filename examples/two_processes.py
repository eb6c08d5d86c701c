"""Two processes, one adapter: DDP on the CPU, the same directions and the same weights on both.

Run `torchrun --nproc_per_node 2 examples/two_processes.py` (`python` does so by itself); on GPUs leave use_cpu out.
"""

import gc
import os
import subprocess
import sys
from tempfile import TemporaryDirectory

import torch
from _offline import quiet
from accelerate.utils import gather_object
from peft import get_peft_model
from transformers import PrinterCallback, set_seed

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments
from aifs_peft.models import LatentClassifier, TabularEncoder


def rows(n: int) -> list[dict[str, torch.Tensor]]:
    """Numbers of which one says the class, and a stronger one goes with it in 95 % of the rows."""
    label = torch.randint(0, 2, (n,))
    x = torch.randn(n, 16)
    x[:, 0] += 2.5 * label
    x[:, 1] += 6 * torch.where(torch.rand(n) < 0.95, label, 1 - label)
    return [{"features": row, "label": y} for row, y in zip(x, label, strict=True)]


def main() -> None:
    """Train, and compare what the processes hold."""
    set_seed(0)
    model = get_peft_model(LatentClassifier(TabularEncoder(16, 32), num_labels=2), AIFSConfig())
    with TemporaryDirectory() as folder:
        args = AIFSTrainingArguments(
            folder, num_train_epochs=3, learning_rate=1e-2, per_device_train_batch_size=32, use_cpu=True,
            disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        trainer = AIFSTrainer(model, args, train_dataset=rows(2000))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    weights = [p.tolist() for p in model.parameters() if p.requires_grad]
    held = gather_object([(trainer.layer.state.basis.tolist(), weights)])
    if trainer.is_world_process_zero():
        print(f"{len(held)} processes, {trainer.state.global_step} steps of {trainer.get_total_train_batch_size(args)}")
        print("directions found:", trainer.layer.state.basis.shape[1] if trainer.layer.state.has_basis else 0)
        print("directions and weights equal on all:", all(entry == held[0] for entry in held))


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        quiet()
        main()
        gc.collect()  # the trainer holds the process group, whose threads may abort a process that ends
        torch.distributed.destroy_process_group()
    else:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
        sys.exit(subprocess.call(launch))  # noqa: S603 - this file
