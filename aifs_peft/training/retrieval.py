"""`RetrievalTrainer`: contrastive fine-tuning of a CLIP on images and captions that a shortcut does not decide.

Captions say what is in a picture, and a model learns to match them by whatever goes with that: a place, a colour, a
device. Which examples go against it is found in the untuned image latents (`discover`), without group labels, from a
label that says what each caption is about. Training then draws all cells of label and inferred value equally often;
on request it also asks that pairs whose image and text latents were both moved to the attribute's other value match as
the pairs do (`aifs_peft.latent.contrastive`). Where nothing is found, it is plain contrastive tuning.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

from aifs_peft._checks import check_number
from aifs_peft.data.images import read_images
from aifs_peft.discovery import Discovery, discover
from aifs_peft.errors import InvalidInputError
from aifs_peft.latent._support import evaluating
from aifs_peft.latent.contrastive import contrastive_loss, mirrored
from aifs_peft.methods import Sampling
from aifs_peft.models.encoders import base_of
from aifs_peft.training import _transformers
from aifs_peft.training.labels import LABEL_NAMES
from aifs_peft.training.sampling import EpochSampler

CAPTION_COLUMNS = ("text", "caption", "sentence")
NO_MODEL = (
    "{model} embeds no images and texts; needed is a CLIP of transformers (get_image_features, get_text_features), "
    "with or without an adapter of PEFT"
)


class RetrievalTrainer(Trainer):
    """`transformers.Trainer` for a CLIP on images with captions, robust to a shortcut that goes with the label.

    Args:
        model: a `CLIPModel`, or a `PeftModel` on one, which is the usual way: LoRA on both towers.
        args: of `transformers`; left as they are.
        train_dataset: a `datasets.Dataset` with a column of images, one of captions (`text` or `caption`) and a
            `label`: what each caption is about, an integer or a name. The label is needed by the search alone.
        processing_class: the model's processor, for images and texts.
        eval_dataset: likewise; a label is not needed. Its loss is the plain one.
        discovery: of the training set in the order of its rows, by which to train; None searches, with the seed of
            `args`; False trains plainly.
        moved: weight of the moved pairs' loss, from 0 to below 1; the pairs' own has the rest. 0 moves nothing: cells
            are drawn equally often, which was enough where it was measured, and better.
        max_repeats: most times that an example is drawn in an epoch, on average over its cell.
        **kwargs: as for `Trainer`.

    Raises:
        InvalidInputError: for a model, a data set or a processor of another kind, or `moved` out of range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import AutoProcessor, CLIPModel, TrainingArguments
        >>> from aifs_peft.data import load
        >>> from aifs_peft.data.spurious_scenes import captions
        >>> from aifs_peft.models import resolve_model
        >>> scenes = load("spurious_scenes", n_train=60, n_validation=2, n_test=2, image_size=32)["train"]
        >>> scenes = scenes.add_column("text", captions(scenes).texts)
        >>> name = resolve_model("tiny_clip")
        >>> with TemporaryDirectory() as folder:
        ...     args = TrainingArguments(folder, max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True)
        ...     trainer = RetrievalTrainer(
        ...         CLIPModel.from_pretrained(name), args, train_dataset=scenes,
        ...         processing_class=AutoProcessor.from_pretrained(name),
        ...     )
        ...     images, texts = trainer.embed(scenes)
        >>> images.shape, texts.shape
        ((60, 128), (60, 128))
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Any = None,
        processing_class: Any = None,
        eval_dataset: Any = None,
        discovery: Discovery | bool | None = None,
        moved: float = 0.0,
        max_repeats: float = 20.0,
        **kwargs: Any,
    ) -> None:
        base = base_of(model)
        if not (hasattr(base, "get_image_features") and hasattr(base, "get_text_features")):
            raise InvalidInputError(NO_MODEL.format(model=type(base).__name__) + ".")
        if not (hasattr(processing_class, "image_processor") and hasattr(processing_class, "tokenizer")):
            raise InvalidInputError(
                f"processing_class={type(processing_class).__name__} was given; needed is the model's processor for "
                "images and texts, as AutoProcessor.from_pretrained gives it."
            )
        if discovery is True:
            raise InvalidInputError("discovery=True was given; None searches, False trains plainly.")
        args = copy.copy(args) if args is not None else TrainingArguments()
        args.remove_unused_columns = False  # the collator needs more than the model takes
        pairs = {
            name: None if dataset is None else Pairs(dataset, processing_class, name)
            for name, dataset in (("training", train_dataset), ("evaluation", eval_dataset))
        }
        super().__init__(
            model=model, args=args, train_dataset=pairs["training"], eval_dataset=pairs["evaluation"],
            processing_class=processing_class, data_collator=Collator(processing_class.tokenizer), **kwargs,
        )  # fmt: skip
        # CLIP takes any keyword, which `Trainer` reads as dividing the loss by itself when gradients are accumulated.
        self.model_accepts_loss_kwargs = False
        self.discovery, self.max_repeats, self.pairs = discovery, max_repeats, pairs["training"]
        self.moved = check_number("moved", moved, 0, 1, below=True, error=InvalidInputError)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`; before the first call the untuned images are encoded once and searched.

        Args:
            *args: as there.
            **kwargs: as there.

        Raises:
            InvalidInputError: without a training set, or one without labels.
        """
        pairs = self._required_pairs()
        if self.discovery is None:
            # Before a checkpoint is read, so that a resumed run searches the same latents.
            images = self._embedded(pairs, texts=False)[0]
            self.discovery = discover(images, pairs.required_labels(), random_state=self.args.seed)
        if isinstance(self.discovery, Discovery):
            if len(self.discovery.groups_) != len(pairs):
                raise InvalidInputError(
                    f"discovery is of {len(self.discovery.groups_)} examples and the training set has {len(pairs)}; "
                    "search the training set itself."
                )
            pairs.cells = (self.discovery.labels_, self.discovery.groups_)
        return super().train(*args, **kwargs)

    @property
    def robust(self) -> bool:
        """Whether an attribute was found that training guards against."""
        return isinstance(self.discovery, Discovery) and self.discovery.found

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in which cells of label and inferred value come equally often, where something was found."""
        pairs, plan = self._required_pairs(), None
        if self.robust and pairs.cells is not None:
            labels, values = (torch.as_tensor(part) for part in pairs.cells)
            plan = Sampling(cells=labels * (int(values.max()) + 1) + values)
        sampler = EpochSampler(len(pairs), lambda _epoch: plan, self.args.seed, self.max_repeats)
        return _transformers.training_loader(self, pairs, sampler)

    def _required_pairs(self) -> Pairs:
        if self.pairs is None:
            raise InvalidInputError("no training set; pass RetrievalTrainer(train_dataset=...)")
        return self.pairs

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """The contrastive loss; in training, where something was found, weighted with that of the moved pairs.

        Args:
            model: as it was wrapped for the machine.
            inputs: the batch.
            return_outputs: whether the model's outputs are wanted, too.
            num_items_in_batch: not used: the loss is a mean over the batch.
        """
        given = dict(inputs)
        classes, values, same = given.pop("classes", None), given.pop("values", None), given.pop("same")
        out = model(**given)
        scale = base_of(self.accelerator.unwrap_model(model)).logit_scale.exp().clamp(max=100.0)
        images, texts = out.image_embeds, out.text_embeds
        loss = contrastive_loss(images, texts, scale, same)
        if self.robust and self.moved and model.training and classes is not None and values is not None:
            moved_images, moved_texts = mirrored(images, classes, values), mirrored(texts, classes, values)
            loss = torch.lerp(loss, contrastive_loss(moved_images, moved_texts, scale, same), self.moved)
        return (loss, out) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,  # noqa: ARG002
        ignore_keys: Any = None,  # noqa: ARG002
    ) -> tuple[Tensor, None, None]:
        """The plain contrastive loss of an evaluation batch.

        Args:
            model: as it was wrapped for the machine.
            inputs: the batch.
            prediction_loss_only: nothing else is ever given: see `embed`.
            ignore_keys: not used.
        """
        given = {name: value.to(self.args.device) for name, value in inputs.items()}
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, given).detach().mean(), None, None

    def embed(self, dataset: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Unit embeddings of a data set's images and captions, in the order of its rows, by the model as it is now.

        Args:
            dataset: a `datasets.Dataset` like `train_dataset`; a label is not needed.

        Returns:
            Images and captions, `(n, d)` each; for `recall_at_k(images @ texts.T, ...)`.
        """
        return self._embedded(Pairs(dataset, self.processing_class, "given"), texts=True)

    @torch.no_grad()
    def _embedded(self, pairs: Pairs, *, texts: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        model = self.accelerator.unwrap_model(self.model)
        base, size = base_of(model), self.args.eval_batch_size
        device = next(base.parameters()).device
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        with evaluating(model):
            for start in range(0, len(pairs), size):
                batch = self.data_collator(pairs.__getitems__(list(range(start, min(start + size, len(pairs))))))
                pixels = batch["pixel_values"].to(device)
                parts[0].append(_unit(base.get_image_features(pixel_values=pixels)))
                if texts:
                    tokens = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
                    parts[1].append(_unit(base.get_text_features(**tokens)))
        images, captions = (torch.cat(part).cpu().numpy() if part else np.zeros((0, 0), np.float32) for part in parts)
        return images, captions


class Pairs(Dataset[dict[str, Any]]):
    """Images and captions as a CLIP takes them; texts are tokenised once, images processed when they are asked for.

    Args:
        source: a `datasets.Dataset`.
        processor: of the model.
        what: which set, for messages.

    Attributes:
        cells: label and inferred value of every row, once they are known.

    Raises:
        InvalidInputError: without images or captions.
    """

    def __init__(self, source: Any, processor: Any, what: str) -> None:
        columns = list(getattr(source, "column_names", []))
        images = [name for name in columns if type(source.features[name]).__name__ == "Image"]
        captions = [name for name in CAPTION_COLUMNS if name in columns]
        if not images or not captions:
            raise InvalidInputError(
                f"the {what} set has the columns {', '.join(columns) or 'of no datasets.Dataset'}; needed are one of "
                f"images and one of captions, named {' or '.join(CAPTION_COLUMNS)}."
            )
        self.source, self.image, self.what = source.with_format(None), images[0], what
        self.processor = processor.image_processor
        self.texts = [str(text) for text in self.source[captions[0]][:]]
        limit = processor.tokenizer.model_max_length
        self.tokens = processor.tokenizer(self.texts, truncation=limit < 1_000_000)
        label = next((name for name in LABEL_NAMES if name in columns), None)
        self.labels = None if label is None else np.asarray(self.source[label][:])
        self.cells: tuple[NDArray[Any], NDArray[Any]] | None = None

    def required_labels(self) -> NDArray[Any]:
        """What each caption is about.

        Raises:
            InvalidInputError: without a column of labels.
        """
        if self.labels is None:
            raise InvalidInputError(
                f"the {self.what} set has no label, by which a shortcut is looked for; add a column 'label' that says "
                "what each caption is about, or pass discovery=False for plain tuning."
            )
        return self.labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.__getitems__([int(position)])[0]

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]:
        """Several examples at once: an image processor is faster on a batch."""
        chosen = [int(i) for i in positions]
        images = read_images(self.source, chosen, column=self.image, split=self.what)
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        rows = []
        for k, i in enumerate(chosen):
            row = {"pixel_values": pixels[k], "input_ids": self.tokens["input_ids"][i], "text": self.texts[i]}
            if self.cells is not None:
                row["classes"], row["values"] = int(self.cells[0][i]), int(self.cells[1][i])
            rows.append(row)
        return rows


class Collator:
    """Batches of `Pairs`: padded texts, which texts are the same, and label and value where they are known.

    Args:
        tokenizer: pads.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch of rows of `Pairs`."""
        padded = self.tokenizer.pad([{"input_ids": row["input_ids"]} for row in rows], return_tensors="pt")
        texts = np.array([row["text"] for row in rows])
        batch = {
            "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
            "input_ids": padded["input_ids"],
            "attention_mask": padded["attention_mask"],
            "same": torch.as_tensor(texts[:, None] == texts[None]),
        }
        for name in ("classes", "values"):
            if all(name in row for row in rows):
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch


def _unit(out: Any) -> Tensor:
    features = out if isinstance(out, Tensor) else out.pooler_output
    return nn.functional.normalize(features.float(), dim=-1)
