"""Every method on tiny encoders of three modalities, with data whose shortcut is planted."""

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from aifs_peft.methods import get, names
from aifs_peft.models.tabular import TabularClassifier, TabularConfig
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig

MODALITIES = ("image", "text", "table")
# Numbers that make a method fit data this small; everything else is its default.
OPTIONS = {
    "ags": {"warmup_epochs": 1},
    "irm": {"environments": "given", "min_examples": 1},
    "xrm-gdro": {"twins": {"draws": 2, "steps": 200}},
    "afr": {"steps": 50},
    "leia": {"steps": 50},
    "shortcutprobe": {"detector_epochs": 5, "epochs": 5},
}


METHODS = [name for name in names() if not name.startswith("doctest-")]


def runs_on(method, modality):
    """Whether the method is defined on this modality; some need tokens, which tables do not have."""
    return modality != "table" or not get(method).reads_tokens


class Rows(torch.utils.data.Dataset):
    """Examples with labels, and the columns a method may ask for."""

    def __init__(self, inputs, labels, attribute):
        self.inputs, self.labels = inputs, labels
        environment = torch.arange(len(labels)) // 2 % 2
        self.columns = {"group": 2 * labels + attribute, "environment": environment}

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {**{name: values[i] for name, values in self.inputs.items()}, "labels": self.labels[i]}


def make_rows(modality, n=96, seed=0, rate=8):
    """A weak class signal, and an attribute that is stronger and agrees with the class except once in `rate`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    attribute = torch.where(torch.arange(n) // 2 % rate > 0, labels, 1 - labels)
    if modality == "image":
        pixels = torch.randn(n, 3, 8, 8, generator=generator) * 0.5
        pixels[:, 1] += (labels - 0.5)[:, None, None]
        pixels[:, 0, :4] += 4 * (attribute - 0.5)[:, None, None]
        inputs = {"pixel_values": pixels}
    elif modality == "text":
        ids = torch.randint(10, 40, (n, 8), generator=generator)
        ids[:, 0] = 4 + attribute  # where the encoder pools: the shortcut is the easier one
        ids[:, 5] = torch.where(torch.rand(n, generator=generator) < 0.9, 6 + labels, ids[:, 5])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    else:
        features = torch.randn(n, 6, generator=generator)
        features[:, 0] += 4 * attribute
        features[:, 1] += 2 * labels
        inputs = {"features": features}
    return Rows(inputs, labels, attribute)


def base_model(modality):
    torch.manual_seed(0)
    if modality == "image":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        return hf.ViTForImageClassification(hf.ViTConfig(num_labels=2, image_size=8, patch_size=4, **sizes))
    if modality == "text":
        config = hf.DistilBertConfig(
            vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=32, num_labels=2, initializer_range=0.3
        )
        return hf.DistilBertForSequenceClassification(config)
    return TabularClassifier(TabularConfig(num_features=6, hidden_size=16, num_labels=2))


def make_trainer(method, modality, adapter, folder, rows=None, **options):
    cls = get(method)
    lora = LoraConfig(r=4, target_modules=None if modality != "table" else ["fc1", "fc2"])
    head = "mlp" if adapter == "frozen" and cls.latent_head == "mlp" else "copy"
    config = AIFSConfig(
        recipe=cls.recipe, head=head, auxiliary=cls.auxiliary, encoder_adapter=lora if adapter == "lora" else None
    )
    torch.manual_seed(1)
    model = get_peft_model(base_model(modality), config)
    defaults = {
        "num_train_epochs": 4,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 48,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 3,
        "method": method,
        "method_options": OPTIONS.get(method),
    }
    args = AIFSTrainingArguments(output_dir=str(folder), **{**defaults, **options})
    rows = make_rows(modality) if rows is None else rows
    return AIFSTrainer(model, args, train_dataset=rows, eval_dataset=make_rows(modality, 64, seed=1, rate=2))
