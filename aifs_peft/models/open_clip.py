"""Models of open_clip: which names are theirs, loading them, and their image processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from aifs_peft._hub import expecting_answers
from aifs_peft.errors import InvalidConfigError, MissingDependencyError, ModelNotFoundError

ON_THE_HUB = "hf-hub:"
CONFIG_FILE = "open_clip_config.json"
# What open_clip takes where a configuration says nothing: OpenAI's CLIP.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def is_open_clip(name: str) -> bool:
    """Whether a name or folder is open_clip's: `hf-hub:owner/name`, or a folder with `open_clip_config.json`.

    Example:
        >>> is_open_clip("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"), is_open_clip("openai/clip-vit-base-patch16")
        (True, False)
    """
    return name.startswith(ON_THE_HUB) or (Path(name) / CONFIG_FILE).is_file()


def load_open_clip(name: str, folder: Path, kwargs: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Load an open_clip model, image and text tower. A model whose weights are not to be had is refused.

    Args:
        name: architecture, or `hf-hub:owner/name`.
        folder: looked at first; where it is no folder, the name is used.
        kwargs: passed on to `open_clip.create_model`; `load_weights=False` asks for random weights.

    Returns:
        The model, in evaluation mode, and what it is made again from: `model_cfg` and the options that change it.

    Raises:
        MissingDependencyError: if open_clip cannot be imported.
        ModelNotFoundError: if it has no such model or no weights of it.
    """
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"open_clip cannot be imported ({error}); install it with pip install 'aifs_peft[openclip]', beside a "
            "torchvision that fits the installed torch."
        ) from error
    architecture = f"local-dir:{folder}" if folder.is_dir() else name
    # Without it open_clip makes a random model where weights are missing, and only logs that.
    required = {"require_pretrained": kwargs.get("load_weights", True)}
    try:
        with expecting_answers():
            encoder: nn.Module = open_clip.create_model(architecture, **{**required, **kwargs})
        made_from = open_clip.get_model_config(architecture)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelNotFoundError(
            f"open_clip did not load {name!r}: {error} Needed are hf-hub:owner/name, a folder with {CONFIG_FILE} and "
            "weights, or an architecture with pretrained=, one of its tags in open_clip.list_pretrained()."
        ) from error
    changing = {key: value for key, value in kwargs.items() if key.startswith("force_")}
    return encoder.eval(), {"model_cfg": made_from, "options": changing}


def save_open_clip_config(encoder: Any, made_from: dict[str, Any], folder: Path) -> None:
    """Write `open_clip_config.json`, by which a folder is known as open_clip's.

    Args:
        encoder: the model; its preprocessing is written, too.
        made_from: as `load_open_clip` gave it.
        folder: an existing folder.
    """
    preprocessing = getattr(encoder.visual, "preprocess_cfg", {})
    saved = {"model_cfg": made_from["model_cfg"], "preprocess_cfg": preprocessing}
    (folder / CONFIG_FILE).write_text(json.dumps(saved, indent=2))


def open_clip_processor(source: Any) -> Any:
    """The image processor of transformers that does what open_clip's evaluation transform does; needs no torchvision.

    Args:
        source: an open_clip model, or a name or folder for which `is_open_clip` holds; of those only the configuration
            is read.

    Returns:
        An image processor, for `processing_class` of a trainer and `processor` of an audit.

    Raises:
        ModelNotFoundError: if the Hub does not give the configuration.
        InvalidConfigError: for a transform that transformers does not have.

    Example:
        >>> from types import SimpleNamespace
        >>> visual = SimpleNamespace(image_size=32, preprocess_cfg={"size": (32, 32), "mean": [0.5] * 3})
        >>> open_clip_processor(SimpleNamespace(visual=visual)).image_mean
        (0.5, 0.5, 0.5)
    """
    from transformers import CLIPImageProcessorPil

    if isinstance(source, str | Path):
        given, size = _saved_preprocessing(str(source))
    else:
        given, size = dict(getattr(source.visual, "preprocess_cfg", {})), source.visual.image_size
    size = given.get("size", size)
    height, width = (size, size) if isinstance(size, int) else (int(side) for side in size)
    mode, interpolation = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
    square = height == width
    if mode not in ("shortest", "squash") or (mode == "shortest" and not square):
        raise InvalidConfigError(
            f"open_clip prepares these images with resize_mode={mode!r} to {height} x {width} pixels, which no image "
            "processor of transformers does; pass a data set of pixel_values, made by open_clip's own transform."
        )
    whole = {"height": height, "width": width}
    return CLIPImageProcessorPil(
        do_resize=True,
        size={"shortest_edge": height} if mode == "shortest" else whole,
        resample=2 if interpolation == "bilinear" else 3,
        do_center_crop=mode == "shortest",
        crop_size=whole,
        image_mean=tuple(given.get("mean", _MEAN)),
        image_std=tuple(given.get("std", _STD)),
        do_convert_rgb=True,
    )


def _saved_preprocessing(name: str) -> tuple[dict[str, Any], Any]:
    """What `open_clip_config.json` says of images, and their size."""
    path = Path(name) / CONFIG_FILE
    if not path.is_file():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            with expecting_answers():
                path = Path(hf_hub_download(name.removeprefix(ON_THE_HUB), CONFIG_FILE))
        except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise ModelNotFoundError(f"the Hub did not give {CONFIG_FILE} of {name!r}: {error}") from error
    saved = json.loads(path.read_text())
    return dict(saved.get("preprocess_cfg", {})), saved["model_cfg"]["vision_cfg"]["image_size"]
