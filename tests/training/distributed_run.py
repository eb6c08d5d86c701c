"""Run by `test_training_distributed.py`, alone or in two processes: several trainings, their results in files."""

import sys
from pathlib import Path

import pytest
import torch
from accelerate.utils import gather_object
from torch.utils.data import IterableDataset
from training_zoo import lora, make_data, make_trainer, shortcut_data, trained

from aifs_peft.errors import InvalidInputError
from aifs_peft.training.parallel import close_process_group, digest, gather_rows, on_main
from aifs_peft.tuner import AIFSConfig


class Rows(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def run(folder, config, data, processes, resume=None, **options):
    trainer = make_trainer(folder, config, data, per_device_train_batch_size=16 // processes, **options)
    assert trainer.accelerator.num_processes == processes
    trainer.train(resume_from_checkpoint=resume)
    states = gather_object([digest(trainer.layer.state)])
    assert len(states) == processes
    assert len(set(states)) == 1, "the adapter's state differs between processes"
    return trainer


def paper(dropout=0.0):
    return AIFSConfig.paper(mask_scale="max", ema_decay=0.5, encoder_adapter=lora(dropout))


def main(out, processes, part="all"):
    out = Path(out)
    data = make_data(64)
    one = run(out / "paper", paper(), data, processes, eval_dataset=make_data(21, seed=1), eval_strategy="epoch")
    results = {f"paper.{name}": value for name, value in trained(one.model).items()}
    rows = [row for row in one.state.log_history if "loss" in row]
    results["paper.log"] = torch.tensor([[r["cross_entropy"], r.get("invariance", 0.0)] for r in rows])
    # 21 examples do not divide: the padded duplicates must not count.
    results["paper.eval"] = torch.tensor([r["eval_accuracy"] for r in one.state.log_history if "eval_accuracy" in r])
    if part == "paper":
        if one.accelerator.is_main_process:
            torch.save(results, out / "results.pt")
        return

    two = run(out / "discovery", AIFSConfig(encoder_adapter=lora()), shortcut_data(), processes)
    results |= {f"discovery.{name}": value for name, value in trained(two.model).items()}

    # Streams: each process reads all of them, and takes its part of each batch.
    config = AIFSConfig(encoder_adapter=lora())
    streamed = run(out / "stream", config, Rows(shortcut_data()), processes, stream_shuffle_buffer=32)
    results |= {f"discovery.stream.{name}": value for name, value in trained(streamed.model).items()}
    uneven = run(out / "uneven_stream", paper(), Rows(make_data(61)), processes, num_train_epochs=1)
    assert [r["mask_samples"] for r in uneven.state.log_history if "mask_samples" in r] == [61.0]
    if processes > 1:
        share = Rows(make_data(32)[int(uneven.accelerator.process_index) :])
        with pytest.raises(InvalidInputError, match="the streamed training set differs between processes"):
            run(out / "shares", paper(), share, processes)

    three = run(out / "uneven", paper(), make_data(61), processes, num_train_epochs=1)
    counts = [row["mask_samples"] for row in three.state.log_history if "mask_samples" in row]
    assert counts == [61.0], counts

    options = {"save_strategy": "steps", "save_steps": 3, "mask_samples": 40}
    whole = run(out / "resume", paper(0.1), data, processes, **options)
    again = run(out / "again", paper(0.1), data, processes, str(out / "resume" / "checkpoint-3"), **options)
    for name, value in trained(whole.model).items():
        assert torch.equal(value, trained(again.model)[name]), f"{name} differs after a resume in mid-epoch"

    accelerator = one.accelerator
    rank = accelerator.process_index
    rows = gather_rows(accelerator, torch.full((rank + 1, 2), float(rank)))
    assert len(rows) == processes * (processes + 1) // 2
    assert rows[:, 0].tolist() == [float(r) for r in range(processes) for _ in range(r + 1)]

    def fail():
        raise InvalidInputError("only here")

    with pytest.raises(InvalidInputError, match="only here"):
        on_main(accelerator, fail)
    if accelerator.is_main_process:
        torch.save(results, out / "results.pt")
    accelerator.wait_for_everyone()


def gloo_threads():
    """Names of this process's threads that belong to a process group (Linux only; elsewhere none are seen)."""
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text().strip() for task in tasks.iterdir()] if tasks.is_dir() else []
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
    close_process_group()
    assert gloo_threads() == [], "a thread of the process group outlives it and can abort the process at its exit"
