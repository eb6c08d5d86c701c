"""Audits of a model and a data set: one frozen pass, then `audit` on the latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from aifs_peft.audit.attributes import DEFAULT_ATTRIBUTES, embed_attributes, score_attributes
from aifs_peft.audit.build import WordScores, build_audit
from aifs_peft.audit.columns import as_frame, metadata_columns
from aifs_peft.audit.encoding import batches, column_of, encode, is_hub
from aifs_peft.audit.names import DEFAULT_WORDS, TEMPLATE, embed_words, score_words
from aifs_peft.audit.result import Audit
from aifs_peft.discovery import Discovery
from aifs_peft.errors import InvalidInputError
from aifs_peft.models import LatentClassifier, commit_of, load_model, load_processor, resolve_model
from aifs_peft.models.encoders import base_of, embedding_of
from aifs_peft.training.labels import LABEL_NAMES, label_of, read_labels
from aifs_peft.tuner import initial_encoder

IntArray = NDArray[np.integer]

# Words are compared on at most so many conflicting and so many other examples.
MAX_FOR_WORDS = 1000
NO_TEXT_TOWER = (
    "words were not looked for: {name!r} is a CLIP whose text part is not at hand; pass clip=(model, processor)"
)


def audit_model(
    model: nn.Module | str,
    dataset: Any,
    *,
    processor: Any = None,
    revision: str | None = None,
    metadata: Any = None,
    judge: bool = False,
    clip: Any = None,
    words: Sequence[str] = DEFAULT_WORDS,
    attributes: Mapping[str, Sequence[str]] = DEFAULT_ATTRIBUTES,
    unlabelled: Any = None,
    batch_size: int = 64,
    max_length: int | None = None,
    discovery: Discovery | None = None,
    random_state: int | np.random.RandomState | None = 0,
    harm: bool = True,
    folds: int = 5,
) -> Audit:
    """Audit the latents that a model's classification head is fed, over a data set, in one frozen pass.

    Args:
        model: a classifier, with or without adapters; an encoder; or a name (a Hub name, a folder, `"tiny_clip"`),
            which is loaded with its processor.
        dataset: a `datasets.Dataset` with a column of labels and one of images, texts or model inputs; or a map-style
            set of dictionaries of model inputs with a label.
        processor: image processor or tokenizer, for images and texts.
        revision: branch, tag or commit on the Hub of a model given by name.
        metadata: see `audit`; `None` takes the other columns of a `datasets.Dataset`.
        judge: whether to judge the model's own predictions: for a model with a trained head.
        clip: a CLIP model and its processor to name the shortcut in images with, by words and by attributes; `None`
            takes the model's own text part where it is a CLIP that lies on this machine, `False` none.
        words: vocabulary of names.
        attributes: what the shortcut may look like: names, and two or more sentences each, one per value. The result is
            in `looks_like`, and in the sentence where it stands out of as many random pairs of texts.
        unlabelled: examples of the same kind in which a shortcut goes with the label less, encoded by the same model;
            labels in them are ignored. See `audit`.
        batch_size: examples per forward pass.
        max_length: tokens per text; `None` for what the model takes.
        discovery: see `audit`.
        random_state: see `audit`.
        harm: see `audit`.
        folds: see `audit`.

    Returns:
        An `Audit`.

    Raises:
        InvalidInputError: for data without labels or inputs, or without the processor that they need.
        ModelNotFoundError: for a name that cannot be loaded.

    Example:
        >>> from aifs_peft.data import load
        >>> scenes = load("spurious_scenes", n_train=60, n_validation=10, n_test=10, image_size=16)["train"]
        >>> audit_model("tiny_clip", scenes).looked_at["d"]
        160
    """
    labels, names = labels_of(dataset)
    if isinstance(model, str):
        model, processor = _load(model, dataset, len(names or np.unique(labels)), processor, revision)
    if judge and hasattr(model, "get_image_features"):
        raise InvalidInputError(f"judge=True was given, and this {type(model).__name__} has no head that predicts.")
    if hasattr(model, "get_image_features"):
        with torch.random.fork_rng(devices=[]):  # its head is never used
            model = LatentClassifier(model)
    encoded = encode(model, dataset, processor=processor, batch_size=batch_size, max_length=max_length)
    if judge and encoded.logits is None:
        raise InvalidInputError(f"judge=True was given, and this {type(model).__name__} has no head that predicts.")
    predictions = None if not judge or encoded.logits is None else _predicted(encoded.logits, labels, model)
    pool = None
    if unlabelled is not None:
        pool = encode(model, unlabelled, processor=processor, batch_size=batch_size, max_length=max_length).Z
    word_scores, warnings = None, []
    if clip is not False and _holds_images(dataset):
        pair, why = (clip, "") if clip is not None else _own_clip(model)
        warnings += [why] if why else []
        word_scores = None if pair is None else _scores_by(pair, dataset, words, attributes, batch_size)
    found = build_audit(
        encoded.Z, labels, metadata=_metadata(dataset) if metadata is None else metadata, inputs=_inputs(dataset),
        predictions=predictions, word_scores=word_scores, unlabelled=pool, discovery=discovery, class_names=names,
        random_state=random_state, harm=harm, folds=folds,
    )  # fmt: skip
    if found.found:
        found.looked_at["warnings"] += warnings
    return found


def audit_trainer(trainer: Any, *, split: str = "train", random_state: int | None = 0, harm: bool = True) -> Audit:
    """Audit a trainer's data set in the encoder as it was before tuning, and judge the model where it has been trained.

    The shortcut is looked for in the untuned latents, since training against it takes it out of the tuned ones.

    Args:
        trainer: an `AIFSTrainer`.
        split: `"train"`, or `"eval"` for examples that the model was not trained on.
        random_state: seed.
        harm: see `audit`.

    Returns:
        An `Audit`; `model_harm` judges the trained model, `None` before training.

    Raises:
        InvalidInputError: for another split, or one that the trainer does not have.
    """
    dataset = {"train": trainer.train_dataset, "eval": trainer.eval_dataset}.get(split)
    if dataset is None:
        raise InvalidInputError(
            f"split={split!r} was given; it is 'train' or 'eval', and the trainer needs a data set of that name."
        )
    if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
        raise InvalidInputError(
            f"the {split} set is a streamed one, and an audit looks at single examples of it; call "
            "aifs_peft.audit.audit_model with a part of it in memory (Dataset.from_list(list(stream.take(n))))"
        )
    model = trainer.accelerator.unwrap_model(trainer.model)
    processor = getattr(trainer, "processing_class", None)
    size = trainer.args.eval_batch_size
    pool = getattr(trainer, "unlabelled_dataset", None)
    with initial_encoder(model):
        before = encode(model, dataset, processor=processor, batch_size=size)
        unlabelled = None if pool is None else encode(model, pool, processor=processor, batch_size=size).Z
    labels, names = labels_of(dataset)
    predictions = None
    if trainer.state.global_step:
        after = encode(model, dataset, processor=processor, batch_size=size)
        assert after.logits is not None  # noqa: S101 - an adapter has a head
        predictions = _predicted(after.logits, labels, model)
    # A data set that the trainer has processed knows where it comes from.
    source = getattr(dataset, "source", dataset)
    class_names = _model_names(model) if names is None and not isinstance(labels[0], str) else names
    return build_audit(
        before.Z, labels, metadata=_metadata(source), inputs=_inputs(source), predictions=predictions, word_scores=None,
        unlabelled=unlabelled, discovery=None, class_names=class_names, random_state=random_state, harm=harm, folds=5,
    )  # fmt: skip


def labels_of(dataset: Any) -> tuple[Any, list[str] | None]:
    """Labels of a data set as they are, integers or strings, and class names where the data set has them.

    Args:
        dataset: see `audit_model`.

    Raises:
        InvalidInputError: without labels.

    Example:
        >>> labels_of([{"x": 0.0, "label": "cat"}, {"x": 1.0, "label": "dog"}])
        (['cat', 'dog'], None)
    """
    if is_hub(dataset):
        name = next((name for name in LABEL_NAMES if name in dataset.column_names), None)
        if name is None:
            raise InvalidInputError(
                f"no label column: the data set has {dataset.column_names}; rename yours to 'label'."
            )
        known = getattr(dataset.features[name], "names", None)
        return list(dataset.with_format(None)[name]), None if known is None else list(known)
    try:
        return read_labels(dataset).tolist(), None
    except InvalidInputError:
        # Labels that are no integers: names.
        return [label_of(dataset[i]) for i in range(len(dataset))], None


def _load(name: str, dataset: Any, n_labels: int, processor: Any, revision: str | None) -> tuple[nn.Module, Any]:
    """The model that `aifs finetune --model NAME` would train, with a fresh head, and its processor."""
    column, modality = column_of(dataset)
    if modality not in ("image", "text"):
        raise InvalidInputError(
            f"the data set holds {column!r}, for which no model is loaded by name ({name!r}); pass the model itself, "
            "or, for feature vectors, call audit(features, labels)."
        )
    # The head of a fresh classifier is drawn at random, and not from the user's generators.
    with torch.random.fork_rng(devices=[]):
        classes = [str(i) for i in range(max(n_labels, 2))]
        model = load_model(name, modality=modality, label_names=classes, revision=revision)
    if processor is None:
        processor = load_processor(name, modality=modality, revision=revision)
    return model, processor


def _holds_images(dataset: Any) -> bool:
    if not is_hub(dataset):
        return "pixel_values" in dataset[0]
    column, kind = column_of(dataset)
    return kind == "image" or column == "pixel_values"


def _metadata(dataset: Any) -> pd.DataFrame | None:
    """The other columns of a `datasets.Dataset`; of another set none are known."""
    if not is_hub(dataset):
        return None
    rest = metadata_columns(dataset, (*LABEL_NAMES, column_of(dataset)[0]))
    return as_frame(dataset.select_columns(rest), len(dataset)) if rest else None


def _inputs(dataset: Any) -> Any:
    """The images or texts, one per example, read when they are asked for."""
    if not is_hub(dataset):
        return None
    column, kind = column_of(dataset)
    return dataset.with_format(None)[column] if kind in ("image", "text") else None


def _model_names(model: nn.Module) -> dict[int, str] | None:
    """Class names in a model's configuration, where somebody gave some."""
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not names or all(str(name) == f"LABEL_{i}" for i, name in names.items()):
        return None
    return {int(i): str(name) for i, name in names.items()}


def _predicted(logits: NDArray[np.floating], labels: Any, model: nn.Module) -> Any:
    """Predicted classes, by name where the labels are names."""
    predicted = logits.argmax(axis=1)
    if not isinstance(labels[0], str):
        return predicted
    names = _model_names(model)
    if names is None:
        raise InvalidInputError(
            "the labels are names, and the model's configuration has none (id2label), so that its predictions cannot "
            "be compared with them; load it with id2label=, or pass integer labels."
        )
    return [names[int(i)] for i in predicted]


def _own_clip(model: nn.Module) -> tuple[Any, str]:
    """The CLIP that a model's encoder comes from, with its processor, if it lies on this machine; else why not."""
    from transformers import AutoProcessor, CLIPModel

    base: Any = base_of(model)
    config = getattr(getattr(base, "encoder", None), "config", None) or getattr(base, "config", None)
    if getattr(config, "model_type", "") not in ("clip", "clip_vision_model"):
        return None, ""
    name = str(getattr(base.config, "name_or_path", "") or getattr(config, "name_or_path", ""))
    try:
        # Of the commit that the encoder is of, where that is known: the latents are to be read by its own words.
        where: dict[str, Any] = {"revision": commit_of(base), "local_files_only": True}
        clip: nn.Module = CLIPModel.from_pretrained(resolve_model(name), **where)
        return (clip.eval(), AutoProcessor.from_pretrained(resolve_model(name), **where)), ""
    except (OSError, ValueError):
        return None, NO_TEXT_TOWER.format(name=name)


def _scores_by(
    pair: Any, dataset: Any, words: Sequence[str], attributes: Mapping[str, Sequence[str]], batch_size: int
) -> WordScores:
    """How words and attributes tell inferred values apart by a CLIP, on a sample of the images."""
    clip, processor = pair
    if not hasattr(clip, "get_image_features"):
        raise InvalidInputError(
            f"clip={type(clip).__name__} embeds no images; needed is a CLIP model of transformers, and its processor."
        )

    def scores(
        y: IntArray, inferred: IntArray, values: Sequence[Any], rng: np.random.Generator
    ) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        moved = inferred != y
        few = rng.permutation(np.flatnonzero(moved))[:MAX_FOR_WORDS]
        rest = rng.permutation(np.flatnonzero(~moved))[:MAX_FOR_WORDS]
        rows = np.sort(np.concatenate([few, rest]))
        embedded = _image_embeddings(clip, processor, dataset, rows.tolist(), batch_size)
        vocabulary = embed_words(clip, processor, words, TEMPLATE)
        # Drawn from a source of their own, so that the words' table is what it is without them.
        (own,) = rng.spawn(1)
        names = score_words(embedded, y[rows], inferred[rows], vocabulary, values, rng=rng)
        texts = embed_attributes(clip, processor, attributes)
        return names, score_attributes(embedded, y[rows], inferred[rows], texts, attributes, values, rng=own)

    return scores


@torch.no_grad()
def _image_embeddings(clip: Any, processor: Any, dataset: Any, rows: list[int], batch_size: int) -> Any:
    """Unit projected image embeddings `(n, d)`."""
    device, parts = next(clip.parameters()).device, []
    for batch in batches(dataset, rows, processor, batch_size):
        out = clip.get_image_features(pixel_values=batch["pixel_values"].to(device))
        parts.append(F.normalize(embedding_of(out, clip).float(), dim=-1).cpu().numpy())
    return np.concatenate(parts)
