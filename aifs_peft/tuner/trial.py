"""A trial run of a base model on one made-up example: what its predictions depend on, and whether its head decides.

Nothing is known where no trial works (a model that takes other inputs, sharded weights; quantised ones, where gradients
are asked for); then nothing is concluded.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.latent._support import evaluating

logger = logging.getLogger(__name__)

_TOKENS, _TOKEN = 8, 3


def taking_part(model: nn.Module, names: list[str]) -> list[str]:
    """Those of some modules that a prediction depends on.

    Some models carry layers that their predictions do not read (the pooler of a ViT whose first token is taken, the
    text tower of a CLIP that sees images). Training them would leave parameters without gradient.

    Args:
        model: any model; its modes, gradients and the global random generators are left as they are.
        names: full names of modules.

    Returns:
        The names of the modules from which a gradient comes back, in order; all of them where no trial worked.

    Example:
        >>> taking_part(nn.Sequential(nn.Linear(2, 2)), ["0"])  # takes neither images nor texts: nothing is known
        ['0']
    """
    own = {name: list(model.get_submodule(name).parameters()) for name in names}
    wanted = [parameter for parameters in own.values() for parameter in parameters]
    if not wanted:
        return names
    with _trial(model) as examples:
        for inputs in examples:
            reached = _reached(model, inputs, wanted)
            if reached is not None:
                return [name for name in names if not own[name] or any(id(p) in reached for p in own[name])]
    return names


def decides(model: nn.Module, head: str) -> bool | None:
    """Whether a model's logits are what one of its modules gives, unchanged.

    They are not where two heads are averaged (distilled vision models), or where every token is classified and the
    result pooled afterwards (decoders).

    Args:
        model: any model; left as it is.
        head: full name of the module.

    Returns:
        None where no trial worked.

    Example:
        >>> from aifs_peft.models import LatentClassifier, TabularEncoder
        >>> decides(LatentClassifier(TabularEncoder(3, 8)), "classifier") is None  # takes features
        True
    """
    with _given_by(model, head) as given, _trial(model) as examples:
        for inputs in examples:
            given.clear()
            logits = _logits(model, inputs)
            if logits is not None:
                same = [isinstance(g, Tensor) and g.shape == logits.shape and torch.equal(g, logits) for g in given]
                return same == [True]
    return None


def reads_last_token(model: nn.Module, head: str) -> bool | None:
    """Whether a model's logits are those its head gives for the last token that is no padding, on either side.

    Args:
        model: any model; left as it is.
        head: full name of the module.

    Returns:
        None where no trial worked.

    Example:
        >>> reads_last_token(nn.Sequential(nn.Linear(2, 2)), "0") is None  # takes no texts
        True
    """
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    pad, words = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None) or 0
    tokens = [token for token in range(words) if token != pad][-_TOKENS:]  # special tokens come first
    padded = [] if pad is None else [([*tokens[:5], pad, pad, pad], 4), ([pad, pad, pad, *tokens[:5]], 7)]
    with _given_by(model, head) as given, _trial(model) as examples:
        if not any(True for _ in examples) or len(tokens) < _TOKENS:
            return None
        device = next(model.parameters()).device
        for ids, last in [(tokens, 7), *padded]:
            given.clear()
            batch = torch.tensor([ids], device=device)
            mask = (batch != pad).long() if pad is not None else torch.ones_like(batch)
            logits = _logits(model, {"input_ids": batch, "attention_mask": mask})
            if logits is None:
                return None
            each = given[0] if len(given) == 1 and isinstance(given[0], Tensor) else None
            if each is None or each.dim() != 3 or each.shape[:2] != batch.shape or each.shape[2] != logits.shape[-1]:
                return False
            same = [torch.equal(row, logits[0]) for row in each[0]]
            if not same[last] or sum(same) > 1:
                return False
    return True


@dataclass(frozen=True)
class Trial:
    """What modules were called with and gave in one forward pass.

    Attributes:
        rows: examples that were run.
        has_mask: whether the model was handed an attention mask.
        outputs: of each module that was asked about, one per call.
        calls: module, positional and named arguments of each call of the modules around them, by full name.
    """

    rows: int
    has_mask: bool
    outputs: dict[str, list[Any]]
    calls: dict[str, list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]]

    def at(self, name: str) -> list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]:
        """Calls of one module."""
        return self.calls.get(name, [])


def trial_of(model: nn.Module, names: list[str], inputs: dict[str, Any] | None = None) -> Trial | None:
    """What some modules give for one example, and what the modules around them were called with.

    Args:
        model: any model; left as it is.
        names: full names of modules.
        inputs: of the model, some examples; None makes one up.

    Returns:
        None where no trial worked.

    Example:
        >>> trial_of(nn.Sequential(nn.Linear(2, 2)), ["0"]) is None  # takes neither images nor texts
        True
    """
    outputs: dict[str, list[Any]] = {name: [] for name in names}
    calls: dict[str, list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]] = {}
    around = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 1)}

    def note(name: str) -> Any:
        return lambda _module, _inputs, output: outputs[name].append(output)

    def called(name: str) -> Any:
        return lambda module, args, kwargs: calls.setdefault(name, []).append((module, args, kwargs))

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(model.get_submodule(name).register_forward_hook(note(name)).remove)
        for name in around:
            handle = model.get_submodule(name).register_forward_pre_hook(called(name), with_kwargs=True)
            hooks.callback(handle.remove)
        with _trial(model, quantised=True) as examples:
            for example in examples if inputs is None else [inputs]:
                for seen in (*outputs.values(), *calls.values()):
                    seen.clear()
                if _logits(model, example) is not None:
                    rows = len(next(iter(example.values())))
                    return Trial(rows, "attention_mask" in example, outputs, calls)
    return None


@contextmanager
def _given_by(model: nn.Module, name: str) -> Iterator[list[Any]]:
    """What a module gives in the forward passes within, one entry per call."""
    given: list[Any] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: given.append(output))
    try:
        yield given
    finally:
        handle.remove()


@contextmanager
def _trial(model: nn.Module, *, quantised: bool = False) -> Iterator[Iterator[dict[str, Tensor]]]:
    """Examples to try, with everything in evaluation mode and the random generators guarded.

    Of a quantised model none without `quantised`: its forward pass runs, and no gradient reaches its weights.
    """
    every = list(model.parameters())
    parameters = [p for p in every if p.is_floating_point()]
    whole = quantised or len(parameters) == len(every)
    if not parameters or not whole or any(p.is_meta or hasattr(p, "ds_id") for p in every):
        yield iter(())  # not loaded yet, quantised or sharded
        return
    devices = [parameters[0].device] if parameters[0].device.type == "cuda" else []
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices):
        yield _examples(model, parameters[0])


def _logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor | None:
    """Logits of an example, None when the model does not take it."""
    try:
        logits = model(**inputs).logits
    except Exception as error:  # noqa: BLE001 - any model, any reason: then nothing is known
        logger.debug("a trial with %s failed: %s", sorted(inputs), error)
        return None
    return logits if isinstance(logits, Tensor) else None


def _reached(model: nn.Module, inputs: dict[str, Tensor], parameters: Sequence[Tensor]) -> set[int] | None:
    """Identities of the parameters that the logits depend on; None when the model does not take such inputs."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            logits = _logits(model, inputs)
            if logits is None or not logits.requires_grad:
                return None
            gradients = torch.autograd.grad(logits.float().sum(), parameters, allow_unused=True)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _examples(model: nn.Module, reference: Tensor) -> Iterator[dict[str, Tensor]]:
    """One example of each kind of input, the likeliest first."""
    # Not zeros: two heads on a latent of zeros would agree.
    pixels = torch.randn(1, *_image_shape(model), generator=torch.Generator().manual_seed(0))
    images = {"pixel_values": pixels.to(reference)}
    vision: Any = getattr(getattr(model, "config", None), "vision_config", getattr(model, "config", None))
    if str(getattr(vision, "model_type", "")).startswith("siglip2"):  # patches of any grid, cut beforehand
        patches = torch.randn(
            1, 4, vision.num_channels * vision.patch_size**2, generator=torch.Generator().manual_seed(0)
        )
        grid = {"pixel_attention_mask": torch.ones(1, 4), "spatial_shapes": torch.full((1, 2), 2)}
        images = {"pixel_values": patches.to(reference), **{k: v.to(reference.device) for k, v in grid.items()}}
    ids = torch.full((1, _TOKENS), _TOKEN, dtype=torch.long, device=reference.device)
    config = getattr(model, "config", None)
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int) and end < (getattr(config, "vocab_size", None) or 0):
        ids[:, -1] = end  # BART and its like read the last end of a sequence
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    examples = [images, texts]
    columns = getattr(config, "num_features", None)
    if isinstance(columns, int) and "features" in inspect.signature(model.forward).parameters:
        features = {"features": torch.randn(1, columns, generator=torch.Generator().manual_seed(1)).to(reference)}
        examples = [{**images, **features}, {**texts, **features}, features]
    yield from examples if getattr(model, "main_input_name", "") == "pixel_values" else reversed(examples)


def _image_shape(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width that the configuration of a model (or of its encoder) names."""
    configs: list[Any] = [getattr(model, "config", None), getattr(getattr(model, "encoder", None), "config", None)]
    for config in configs:
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", None)
        if size:
            high, wide = (size, size) if isinstance(size, int) else (size[-2], size[-1])
            return int(getattr(vision, "num_channels", 3)), int(high), int(wide)
    return 3, 224, 224
