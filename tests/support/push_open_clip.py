"""Run as a script in a fresh process: an adapter on an open_clip model is trained, pushed, and read back from the Hub.

`python push_open_clip.py FOLDER`, where FOLDER holds the open_clip model; HF_ENDPOINT names the Hub.
"""

from __future__ import annotations

import sys
import warnings

import torch
from open_clip_alone import import_open_clip
from peft import LoraConfig, PeftModel, get_peft_model
from tuner_zoo import logits

from aifs_peft import AIFSConfig
from aifs_peft.models import load_model
from aifs_peft.tuner import find_aifs_layer

if __name__ == "__main__":
    import_open_clip()
    warnings.filterwarnings("ignore", "Could not find a config file in")
    folder = sys.argv[1]

    def base() -> torch.nn.Module:
        return load_model(folder, modality="image", label_names=["disc", "cross"])

    torch.manual_seed(0)
    model = get_peft_model(base(), AIFSConfig(encoder_adapter=LoraConfig(r=2, init_lora_weights=False)))
    torch.nn.init.normal_(find_aifs_layer(model).head.weight)
    trained = logits(model.eval(), "vit")
    model.push_to_hub("me/open-clip")
    again = PeftModel.from_pretrained(base(), "me/open-clip").eval()
    assert torch.equal(logits(again, "vit"), trained)
    sys.stdout.write("done\n")
