"""Pretrain the embedded tiny CLIP on procedural captioned scenes, evaluate it and write it as a Hugging Face folder.

    python scripts/pretrain_tiny_clip.py --output-dir aifs_peft/assets/tiny_clip

The loss is CLIP's (Radford et al. 2021, https://arxiv.org/abs/2103.00020) with every true caption of an image as a
positive (as in UniCL, Yang et al. 2022, https://arxiv.org/abs/2204.03610): once against the captions of the batch,
and once per attribute against one short caption for each of its values. To it comes the cross-entropy of a linear
head per attribute; the heads are thrown away. Half of both is applied to the class token (what CLIPModel returns) and
half to the mean of the patch tokens (what CLIPForImageClassification feeds its classifier).
"""

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tiny_clip_captions import CONTEXT_LENGTH, PROMPTS, prompts, scene_captions, train_tokenizer
from tiny_clip_report import evaluate, write_card
from tiny_clip_scenes import ATTRIBUTES, IMAGE_SIZE, TRAIN_FONTS, draw_labels, render, subject_bank
from torch.optim import AdamW
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

# Identity of the digit or shape is the hardest of the seven attributes.
ATTRIBUTE_WEIGHTS = {
    "subject": 3.0,
    "texture": 1.0,
    "ground": 0.5,
    "color": 0.5,
    "tone": 0.25,
    "size": 0.25,
    "position": 0.5,
}
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
PROJECTION = 128


def build_tokenizer(seed: int) -> CLIPTokenizer:
    """Train the tokenizer on captions of 20,000 scenes and all short captions."""
    rng = random.Random(seed)  # noqa: S311 no secret
    labels = draw_labels(500, torch.Generator().manual_seed(seed))
    corpus = [text for _ in range(40) for text in scene_captions(labels, rng)[0]]
    corpus += [text for _ in range(50) for name in PROMPTS for text in prompts(name, rng)]
    return train_tokenizer(corpus, vocab_size=768)


def build_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP with a 32 pixel ViT (patch 8, width 160, 4 layers) and a text transformer (width 128, 2 layers)."""
    vision = {
        "projection_dim": PROJECTION,
        "hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 5,
        "image_size": IMAGE_SIZE, "patch_size": 8,
    }  # fmt: skip
    text = {
        "projection_dim": PROJECTION,
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=PROJECTION))


@torch.no_grad()
def whiten_patches(model: CLIPModel, pixels: torch.Tensor) -> None:
    """Start the patch embedding as the whitening transform of patches, and give positions a comparable scale.

    From CLIP's own initialisation (scale 0.02) a small model sees little but the mean colour of each patch for
    hundreds of steps. Whitening as first layer: Coates and Ng, "Learning Feature Representations with K-Means" (2012).
    """
    embeddings = model.vision_model.embeddings
    weight = embeddings.patch_embedding.weight
    patches = F.unfold(pixels, weight.shape[-1], stride=weight.shape[-1]).transpose(1, 2).reshape(-1, weight[0].numel())
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    # 1 % of the mean variance keeps the directions that hold only noise small.
    filters = vectors / (values + 0.01 * values.mean()).sqrt()
    weight.copy_(filters.T.flip(0)[: len(weight)].reshape(weight.shape))
    embeddings.position_embedding.weight.normal_(0, 0.5)
    model.text_model.embeddings.token_embedding.weight.mul_(5)


def build_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """CLIP's processor for 32 pixel images."""
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    )
    return CLIPProcessor(images, tokenizer)


def pooled_tokens(model: CLIPModel, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The class token and the mean patch token, both (n, width), after the same layer norm."""
    tower = model.vision_model
    output = tower(pixel_values=pixels)
    return output.pooler_output, tower.post_layernorm(output.last_hidden_state[:, 1:].mean(dim=1))


def text_embeddings(model: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Unit embeddings (n, p) of captions."""
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    pooled = model.text_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).pooler_output
    return F.normalize(model.text_projection(pooled), dim=-1)


def matching_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Symmetric cross-entropy (images, captions) with all true pairs as positives."""
    truth = truth.float()
    rows, columns = truth.sum(1, keepdim=True), truth.sum(0, keepdim=True)
    by_image = -(truth / rows * logits.log_softmax(1)).sum(1).mean()
    # A caption that is true of no image of the batch has no positive, and is left out.
    present = columns[0] > 0
    by_text = -(truth / columns.clamp(min=1) * logits.log_softmax(0)).sum(0)[present].mean()
    return (by_image + by_text) / 2


def contrastive_loss(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    images: Sequence[torch.Tensor],
    labels: dict[str, torch.Tensor],
    rng: random.Random,
) -> tuple[torch.Tensor, float]:
    """The matching losses of long captions and of short ones; and the zero-shot accuracy of subjects.

    Args:
        model: The model; gives the text embeddings and the scale.
        tokenizer: Its tokenizer.
        images: Unit image embeddings (n, p) of every pooling.
        labels: Attribute values, each (n,).
        rng: Chooses the captions' templates.
    """
    # Long captions cost as much as the images: a quarter of the batch gets one.
    captioned = max(2, len(images[0]) // 4)
    texts, truth = scene_captions({name: values[:captioned] for name, values in labels.items()}, rng)
    short = {name: prompts(name, rng) for name in PROMPTS}
    # Long and short captions have their own batch: padding the short ones would double their cost.
    long_text = text_embeddings(model, tokenizer, texts)
    short_text = text_embeddings(model, tokenizer, [t for group in short.values() for t in group])
    groups = short_text.split([len(group) for group in short.values()])
    scale = model.logit_scale.exp()
    total = torch.zeros(())
    for image in images:
        total = total + matching_loss(scale * image[:captioned] @ long_text.T, truth) / len(images)
        for (name, values), text in zip(labels.items(), groups, strict=True):
            match = F.one_hot(values, len(text)).bool()
            weight = ATTRIBUTE_WEIGHTS[name] / len(images)
            total = total + weight * matching_loss(scale * image @ text.T, match)
    right = (images[-1] @ groups[0].T).argmax(1) == labels["subject"]
    return total, right.float().mean().item()


def auxiliary_loss(
    heads: torch.nn.ModuleDict, tokens: Sequence[torch.Tensor], labels: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """Cross-entropy of linear attribute heads on the pooled tokens; and the accuracy of subjects."""
    total = torch.zeros(())
    for pooled in tokens:
        for name, values in labels.items():
            weight = ATTRIBUTE_WEIGHTS[name] / len(tokens)
            total = total + weight * F.cross_entropy(heads[name](pooled), values)
    right = heads["subject"](tokens[-1]).argmax(1) == labels["subject"]
    return total, right.float().mean().item()


def _optimizer(modules: list[torch.nn.Module]) -> AdamW:
    """AdamW without decay of vectors."""
    parameters = [p for module in modules for p in module.parameters()]
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, betas=(0.9, 0.98), fused=True)


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Linear warm-up over 100 steps, cosine decay over the progress from 0 to 1."""
    return peak * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))


def pretrain(model: CLIPModel, tokenizer: CLIPTokenizer, args: argparse.Namespace) -> dict[str, float]:
    """Train in place; returns the number of steps and means over the last 100 steps."""
    generator, rng = torch.Generator().manual_seed(args.seed), random.Random(args.seed)  # noqa: S311 no secret
    bank = subject_bank(TRAIN_FONTS)
    width = model.config.vision_config.hidden_size
    # The heads speed the image tower up and are thrown away: at first all captions embed alike, and teach little.
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, len(v)) for name, v in ATTRIBUTES.items()})
    optimizer = _optimizer([model, heads])
    whiten_patches(model, (render(draw_labels(4000, generator), bank, generator) - PIXEL_MEAN) / PIXEL_STD)
    history: dict[str, list[float]] = {"head_loss": [], "head_subject": [], "loss": [], "zero_shot_subject": []}
    start = time.perf_counter()
    model.train()
    for step in range(args.steps):
        minutes = (time.perf_counter() - start) / 60
        progress = max(step / args.steps, minutes / args.max_minutes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, step, args.learning_rate)
        labels = draw_labels(args.batch_size, generator)
        pixels = (render(labels, bank, generator) - PIXEL_MEAN) / PIXEL_STD
        tokens = pooled_tokens(model, pixels)
        total, accuracy = auxiliary_loss(heads, tokens, labels)
        history["head_loss"].append(total.item())
        history["head_subject"].append(accuracy)
        if step % args.text_every == 0:
            images = [F.normalize(model.visual_projection(t), dim=-1) for t in tokens]
            loss, accuracy = contrastive_loss(model, tokenizer, images, labels, rng)
            history["loss"].append(loss.item())
            history["zero_shot_subject"].append(accuracy)
            total = total + loss
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        if step % 100 == 99:
            means = ", ".join(f"{k} {v:.3f}" for k, v in _recent(history, args.text_every).items())
            print(f"{step + 1}: {means}, {time.perf_counter() - start:.0f} s", flush=True)
        if args.snapshot_every and step % args.snapshot_every == args.snapshot_every - 1:
            save(copy.deepcopy(model), build_processor(tokenizer), args.output_dir)
    return {"steps": len(history["head_loss"]), **_recent(history, args.text_every)}


def _recent(history: dict[str, list[float]], text_every: int) -> dict[str, float]:
    length = {name: 100 if name.startswith("head") else max(1, 100 // text_every) for name in history}
    return {name: round(sum(v[-length[name] :]) / len(v[-length[name] :]), 4) for name, v in history.items()}


def save(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    """Write the model (float16 in the file, float32 when loaded), tokenizer and image processor."""
    model.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # Training cut and padded captions; what is saved does so only when it is asked to.
    processor.tokenizer.backend_tokenizer.no_truncation()
    processor.tokenizer.backend_tokenizer.no_padding()
    processor.save_pretrained(folder)
    # Tools that load the image processor alone look for preprocessor_config.json.
    processor.image_processor.save_pretrained(folder)


def main() -> None:
    """Pretrain, save, reload what was saved, evaluate that, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--snapshot-every", type=int, default=0, help="steps between saved snapshots; 0: none")
    parser.add_argument(
        "--max-minutes", type=float, default=math.inf, help="end early, the decay fitted to it; not reproducible"
    )
    parser.add_argument("--text-every", type=int, default=4, help="steps between contrastive losses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(args.seed)
    model = build_model(tokenizer)
    start = time.perf_counter()
    last = pretrain(model, tokenizer, args)
    seconds = time.perf_counter() - start
    save(model, build_processor(tokenizer), args.output_dir)
    report = {
        "steps": last.pop("steps"),
        "max_steps": args.steps,
        "max_minutes": args.max_minutes if math.isfinite(args.max_minutes) else None,
        **{k: getattr(args, k) for k in ("batch_size", "learning_rate", "seed", "threads", "text_every")},
        "seconds": round(seconds),
        "last_100_steps": last,
        **evaluate(args.output_dir, seed=args.seed + 1),
    }
    (args.output_dir / "training_report.json").write_text(json.dumps(report, indent=2) + "\n")
    write_card(args.output_dir)


if __name__ == "__main__":
    main()
