"""`AIFSTrainer(model="name-or-folder", peft_config=...)`: model, processor and adapter from a name and a data set."""

from __future__ import annotations

import copy
from typing import Any

import datasets
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.models import load_model, load_processor
from aifs_peft.training.inputs import input_column
from aifs_peft.training.labels import LABEL_NAMES
from aifs_peft.tuner import AIFSConfig


def build_model(
    model: nn.Module | str | None, peft_config: PeftConfig | None, dataset: Any, processor: Any
) -> tuple[nn.Module | None, Any]:
    """The adapted model that a trainer was asked for.

    Args:
        model: a model, or the name or folder of one that is loaded with the classes of the data set.
        peft_config: an `AIFSConfig`, or the configuration of the encoder's adapter, such as `LoraConfig`; None leaves a
            model as it is, and freezes the encoder of one that is given by name. Its `revision` is the one of the base
            model on the Hub, as in PEFT.
        dataset: the training set; read for a model given by name.
        processor: the trainer's `processing_class`; None loads the one that belongs to a model given by name.

    Returns:
        Model and processor.

    Raises:
        InvalidInputError: if the data set of a model given by name has no images, texts or labels.
        InvalidConfigError: if the model has an adapter already and a configuration is given, too.
        ModelNotFoundError: for a name that is neither a folder nor on the Hub.
    """
    names = None
    if isinstance(model, str):
        name, modality, names = model, _modality(dataset), _class_names(dataset)
        revision = None if peft_config is None else peft_config.revision
        model = load_model(name, modality=modality, label_names=names, revision=revision)
        if processor is None:
            processor = load_processor(name, modality=modality, revision=revision)
        peft_config = AIFSConfig() if peft_config is None else peft_config
    if peft_config is None or model is None:
        return model, processor
    if isinstance(model, PeftModel):
        raise InvalidConfigError(
            "the model has an adapter already and peft_config asks for another; pass one of the two: the model that "
            "get_peft_model gave, or the bare model with peft_config"
        )
    config = peft_config if isinstance(peft_config, AIFSConfig) else AIFSConfig(encoder_adapter=peft_config)
    if config.revision is None and peft_config.revision is not None:
        config.revision = peft_config.revision
    if names is not None and config.labels is None and config.num_labels in (None, len(names)):
        # Kept with the adapter: the base model's own names, which a pipeline would show, are those of other classes.
        config = copy.deepcopy(config)
        config.labels, config.num_labels = names, len(names)
    return get_peft_model(model, config), processor


def _modality(dataset: Any) -> str:
    column = input_column(dataset) if isinstance(dataset, datasets.Dataset) else None
    if column is None:
        raise InvalidInputError(
            "a model given by its name is loaded for the data set's images or texts, and the training set is no "
            "datasets.Dataset with an image or a text column; load the model yourself and pass it"
        )
    return "image" if isinstance(dataset.features[column], datasets.Image) else "text"


def _class_names(dataset: datasets.Dataset) -> list[str]:
    name = next((name for name in LABEL_NAMES if name in dataset.column_names), None)
    if name is None:
        raise InvalidInputError(
            f"the training set has no label column (its columns: {', '.join(dataset.column_names)}); rename yours to "
            "'label'"
        )
    feature = dataset.features[name]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    values = dataset.with_format(None)[name][:]
    if any(isinstance(value, str) for value in values):
        return sorted({str(value) for value in values})
    return [str(number) for number in range(max(int(value) for value in values) + 1)]
