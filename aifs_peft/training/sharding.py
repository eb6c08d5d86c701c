"""FSDP2 for the frozen base model alone: its weights are split over the processes, the adapter stays whole on each.

Heads, masks, discovery and checkpoints read the adapter, which is small; what does not fit onto one device is the base.
So the base's frozen parameters become shards of `torch.distributed.fsdp.fully_shard`, gathered block by block as a
forward or backward pass reaches them, and everything that is trained is a plain tensor, equal on every process, whose
gradients `DistributedDataParallel` averages.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft import PeftModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.sharded import is_sharded
from aifs_peft.tuner import AIFSLayer


def check_shardable(model: nn.Module, args: AIFSTrainingArguments, world_size: int) -> None:
    """Refuse what has not been shown to work with a base model that is split.

    Args:
        model: with its adapter.
        args: of the trainer.
        world_size: number of processes.

    Raises:
        InvalidConfigError: naming the argument.
    """
    if world_size == 1:
        raise InvalidConfigError(
            "shard_base_model=True splits the base model over processes, and there is one; leave it out, or start "
            "several: torchrun --nproc_per_node N ..., or accelerate launch --multi_gpu"
        )
    small = [name for name, p in model.named_parameters() if not p.requires_grad and not p.is_floating_point()]
    if small:
        told = f"{small[0]} is {model.get_parameter(small[0]).dtype}"
        raise InvalidConfigError(
            f"shard_base_model=True and a base model in 4 or 8 bits ({told}) have not been shown to work together; "
            "load the base without quantization, or leave shard_base_model out"
        )
    if args.torch_compile:
        raise InvalidConfigError(
            "shard_base_model=True and torch_compile have not been shown to work together; leave one of them out"
        )
    if getattr(args.accelerator_config, "even_batches", True) is False:
        raise InvalidConfigError(
            "accelerator_config even_batches=False gives processes unequal numbers of batches, and with "
            "shard_base_model=True all of them take part in each forward pass; leave it at True"
        )


def shard_base(model: PeftModel, layer: AIFSLayer) -> None:
    """Split the frozen parameters of the base model over all processes, in place; done once.

    Every process then has to take part in every forward pass.

    Args:
        model: with its adapter, on its device, not wrapped for distribution.
        layer: its AIFS layer, whose head stays whole.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if is_sharded(model):
        return
    mesh = init_device_mesh(layer.state.mask.device.type, (dist.get_world_size(),))
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad} | set(layer.parameters())
    base = model.get_base_model()
    for module in (*_blocks(base), base):
        # Also the outermost: what stayed whole after an evaluation would be split again by a process that saves, and
        # by no other, and the next forward pass would wait for ever.
        fully_shard(module, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
    split = [name for name, parameter in model.named_parameters() if parameter not in whole]
    # They have no gradients, and are not equal on all processes.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, split)


def _blocks(base: nn.Module) -> Iterator[nn.Module]:
    """The blocks of an encoder: what its outermost lists of modules hold."""
    for child in base.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
