"""Fine-tune the embedded CLIP encoder with LoRA and AIFS on the embedded data, save the adapter, load it again.

Put your own model's name and your own data in the two marked places.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments, data
from aifs_peft.experiments import PreparedDataset, make_encoder
from aifs_peft.models import load_model, load_processor

MODEL = "tiny_clip"  # or any Hub name or local directory, such as "openai/clip-vit-base-patch16"


def main() -> None:
    """Train for one epoch, print the log-likelihood terms, check that the reloaded adapter predicts the same."""
    splits = data.load("digits_on_scenes")  # or your own `datasets.DatasetDict` with `image` and `label` columns
    names = splits["train"].features["label"].names
    encode = make_encoder(load_processor(MODEL, modality="image"), "image")
    train, valid, test = (PreparedDataset(splits[split], encode) for split in ("train", "validation", "test"))
    model = get_peft_model(
        load_model(MODEL, modality="image", label_names=names), AIFSConfig(encoder_adapter=LoraConfig(r=8))
    )
    model.print_trainable_parameters()
    with TemporaryDirectory() as folder:
        args = AIFSTrainingArguments(
            output_dir=folder, num_train_epochs=1, learning_rate=2e-3, report_to="none", disable_tqdm=True
        )
        AIFSTrainer(model=model, args=args, train_dataset=train, eval_dataset=valid).train()
        adapter = Path(folder) / "adapter"
        model.save_pretrained(adapter)
        base = load_model(MODEL, modality="image", label_names=names)
        reloaded = PeftModel.from_pretrained(base, adapter).eval()
        pixels = torch.stack([test[i]["pixel_values"] for i in range(8)])
        with torch.no_grad():
            same = torch.equal(reloaded(pixel_values=pixels).logits, model.eval()(pixel_values=pixels).logits)
        print("files:", sorted(path.name for path in adapter.iterdir()))
        print("reloaded adapter predicts the same:", same)
        if not same:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
