"""A training loop of your own, with Accelerate and without `Trainer`: `EpochHook` gives the batches and the loss.

Run `python examples/accelerate_loop.py`, or on several processes `accelerate launch examples/accelerate_loop.py`.
"""

import torch
from _offline import quiet
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import get_peft_model
from torch import Tensor, nn

from aifs_peft import AIFSConfig
from aifs_peft.metrics import group_metrics
from aifs_peft.models import LatentClassifier
from aifs_peft.training import EpochHook


def table(n: int, aligned_share: float) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Rows of 16 numbers: one says the class, a stronger one goes with it in a share of the rows."""
    label = torch.randint(0, 2, (n,))
    attribute = torch.where(torch.rand(n) < aligned_share, label, 1 - label)
    x = torch.randn(n, 16)
    x[:, 0] += 2.5 * label
    x[:, 1] += 6 * attribute
    return [{"features": row, "label": y} for row, y in zip(x, label, strict=True)], 2 * label + attribute


def train(method: str) -> float:
    """Accuracy of the worst cell where the attribute says nothing, after five epochs."""
    accelerator = Accelerator(cpu=True)
    set_seed(0)
    (rows, _), (test, cells) = table(3000, 0.95), table(2000, 0.5)
    encoder = nn.Sequential(nn.Linear(16, 32), nn.Tanh())
    recipe = "discovery" if method == "aifs" else "erm"
    model = get_peft_model(LatentClassifier(encoder, num_labels=2, dim=32), AIFSConfig(recipe=recipe))
    hook = EpochHook(model, rows, accelerator=accelerator, batch_size=64, method=method)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-2)
    model, optimizer = accelerator.prepare(model, optimizer)
    for _ in hook.epochs(5):  # the search for the shortcut comes before the first epoch
        for batch in hook.loader:
            accelerator.backward(hook.loss(model, batch))
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        logits = model(features=torch.stack([row["features"] for row in test]).to(accelerator.device)).logits
    return group_metrics(cells // 2, logits.argmax(1).cpu(), cells)["worst_group_accuracy"]


if __name__ == "__main__":
    quiet()
    for name in ("erm", "aifs"):
        print(f"{name:4}  worst of label x attribute {train(name):.3f}")
