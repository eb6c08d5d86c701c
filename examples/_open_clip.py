"""For open_clip_lora.py alone: what it uses where no model is named, so that nothing is downloaded."""

import json
from pathlib import Path

import torch


def tiny_open_clip(folder: str) -> str:
    """A random open_clip model of two layers, in a folder as open_clip saves it."""
    import open_clip

    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": {"width": 32, "heads": 2, "layers": 1}}
    Path(folder).mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(open_clip.model.CLIP(**config).state_dict(), Path(folder) / "open_clip_pytorch_model.bin")
    (Path(folder) / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder
