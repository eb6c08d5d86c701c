"""Checkpoints: which one a run goes on from, and how one is written whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aifs_peft.training.base import TrainerBase
from aifs_peft.training.checkpoint_folders import newest_checkpoint, publish, require_whole
from aifs_peft.training.finite import require_finite_weights
from aifs_peft.training.parallel import processes_of
from aifs_peft.training.resuming import Run, check_same_run, describe, saved_run
from aifs_peft.training.saving import writing
from aifs_peft.training.streams import Stream


class CheckpointingTrainer(TrainerBase):
    """The part of `AIFSTrainer` that writes checkpoints and chooses the one to resume from."""

    def _checkpoint(self, asked: str | bool | None) -> str | None:
        """The checkpoint to resume from, whole and of this run; the same on every process."""
        if asked is None or asked is False:
            return None

        def choose() -> tuple[str, dict[str, Any]]:
            folder = newest_checkpoint(Path(str(self.args.output_dir))) if asked is True else Path(asked)
            return str(folder), require_whole(folder)

        chosen: tuple[str, dict[str, Any]] = processes_of(self.accelerator).on_main(choose)
        (folder, saved), run = chosen, self._run()
        if self.args.auto_find_batch_size:
            saved = {**saved, "batch_size": run.batch_size}  # upstream takes over the one that was found
        check_same_run(Path(folder), saved, run, without_optimizer=self.args.resume_without_optimizer)
        return folder

    def _run(self) -> Run:
        """What this run says of itself in its checkpoints."""
        args, processes = self.args, self.accelerator.num_processes
        return describe(
            self.method, self.labels, self.adapted.peft_config[self.layer.adapter].to_dict(),
            {"mask_update_every": args.mask_update_every, "mask_samples": args.mask_samples},
            world_size=processes, batch_size=self._batch_size() // processes,
            accumulation=args.gradient_accumulation_steps, seed=args.seed,
            data_seed=args.seed if args.data_seed is None else args.data_seed, stream_buffer=self._stream_buffer(),
        )  # fmt: skip

    def _stream_buffer(self) -> int | None:
        """What the order of a streamed training set depends on; None for one in memory, also as latents."""
        streamed = isinstance(self.train_dataset, Stream) and not self.args.cache_latents
        return self.args.stream_shuffle_buffer if streamed else None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As upstream; a checkpoint in mid-epoch also has the latents seen so far.

        Args:
            output_dir: where to; None is `args.output_dir`.
            _internal_call: set by upstream where this is part of a checkpoint.
        """
        super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None and self._runner is not None:
            self._runner.store.save(Path(output_dir), self.args.process_index)

    @contextmanager
    def writing_checkpoint(self, checkpoint: Path) -> Iterator[None]:
        """The block in which a checkpoint is written; weights that are not finite are not saved.

        Args:
            checkpoint: where it will be.
        """
        require_finite_weights(self.adapted, self.state.global_step)
        with writing(checkpoint, self.accelerator, saves=self.args.should_save):
            yield

    def publish_checkpoint(self, checkpoint: Path) -> None:
        """Make what all processes have written a checkpoint, with its manifest.

        Args:
            checkpoint: where it is to be.
        """
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step, epoch, resumable = self.state.global_step, float(self.state.epoch or 0), not self.args.save_only_model
            publish(checkpoint, saved_run(self._run(), step=step, epoch=epoch, resumable=resumable))
