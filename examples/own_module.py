"""An encoder of your own, any `nn.Module` from a batch to `(batch, dim)`: tuned with LoRA, saved, loaded again.

Run `python examples/own_module.py`; replace `make_encoder` and `recordings` by yours.
"""

from copy import deepcopy
from tempfile import TemporaryDirectory

import numpy as np
import torch
from _offline import quiet
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PrinterCallback

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments
from aifs_peft.metrics import group_metrics
from aifs_peft.models import LatentClassifier


def make_encoder() -> nn.Module:
    """Recordings `(n, 4, 32)`, channels and steps, to embeddings `(n, 16)`; yours would have been pretrained."""
    return nn.Sequential(nn.Conv1d(4, 32, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 16))


def recordings(n: int, aligned_share: float) -> tuple[list[dict[str, Tensor]], Tensor]:
    """A tone says the class; the offset of another channel, the device, goes with it in a share of the recordings."""
    label = torch.randint(0, 2, (n,))
    device = torch.where(torch.rand(n) < aligned_share, label, 1 - label)
    signal = 0.5 * torch.randn(n, 4, 32)
    signal[:, 0] += 0.6 * label[:, None] * torch.sin(torch.arange(32) / 2)
    signal[:, 1] += 2 * device[:, None]
    return [{"features": x, "label": y} for x, y in zip(signal, label, strict=True)], 2 * label + device


def main() -> None:
    """Accuracy of the worst cell of label and device where the device says nothing: plain training, then AIFS."""
    torch.manual_seed(0)
    encoder, (train, _), (test, cells) = make_encoder(), recordings(2000, 0.95), recordings(1000, 0.5)
    with TemporaryDirectory() as folder:
        for recipe in ("erm", "discovery"):
            config = AIFSConfig(recipe=recipe, encoder_adapter=LoraConfig(target_modules=["0", "4"]))
            model = get_peft_model(LatentClassifier(deepcopy(encoder), dim=16), config)
            args = AIFSTrainingArguments(folder, num_train_epochs=8, learning_rate=1e-2, disable_tqdm=True)
            trainer = AIFSTrainer(model, args, train_dataset=train)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            logits = trainer.predict(test).predictions
            print(recipe, round(group_metrics(cells // 2, logits.argmax(1), cells)["worst_group_accuracy"], 3))
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(LatentClassifier(encoder, dim=16), folder).eval()
        again = loaded(features=torch.stack([row["features"] for row in test[:8]])).logits.detach().numpy()
        print("the reloaded adapter predicts the same:", np.allclose(again, logits[:8], atol=1e-4))


if __name__ == "__main__":
    quiet()
    main()
