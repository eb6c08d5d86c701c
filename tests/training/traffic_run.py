"""Run by `test_training_traffic.py` in two processes: bytes that an update of the mask moves."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from peft import get_peft_model
from training_zoo import make_trainer
from weak_scaling import counted

from aifs_peft.models import LatentClassifier, TabularEncoder
from aifs_peft.training.parallel import close_process_group
from aifs_peft.tuner import AIFSConfig

DIM = 512


def rows(n):
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % 2
    mark = torch.where(torch.arange(n) // 2 % 20 > 0, label, 1 - label)
    x = torch.randn(n, 16, generator=generator)
    x[:, 0] += 2.5 * label
    x[:, 1] += 6 * mark
    return [{"features": row, "label": int(y)} for row, y in zip(x, label, strict=True)]


def update(out, config, n, **options):
    torch.manual_seed(0)
    model = get_peft_model(LatentClassifier(TabularEncoder(16, DIM), num_labels=2), config)
    trainer = make_trainer(out, model=model, data=rows(n), num_train_epochs=1, **options)
    callback = next(c for c in trainer.callback_handler.callbacks if hasattr(c, "_finish_epoch"))
    finish, seen = callback._finish_epoch, {}

    def counting(epoch):
        with counted() as received:
            finish(epoch)
        seen.update(received)

    callback._finish_epoch = counting
    trainer.train()
    state = sum(buffer.nbytes for _, buffer in trainer.layer.state.named_buffers())
    return torch.tensor([sum(seen.values()), state, trainer.accelerator.num_processes])


def main(out):
    out = Path(out)
    results = {
        "paper": update(out / "a", AIFSConfig.paper(), 400),
        "some": update(out / "b", AIFSConfig.paper(), 400, mask_samples=100),
        "discovery": update(out / "c", AIFSConfig(trained_modules="all-linear"), 400),
    }
    torch.save(results, out / "results.pt")


if __name__ == "__main__":
    main(sys.argv[1])
    close_process_group()
