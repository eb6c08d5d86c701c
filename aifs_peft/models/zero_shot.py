"""CLIP beyond a trained linear head: a head made of sentences, and the way back to it from a tuned model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from aifs_peft._checks import check_number
from aifs_peft.discovery import embed_prompts
from aifs_peft.errors import InvalidInputError
from aifs_peft.models.latent_classifier import LatentClassifier

M = TypeVar("M", bound=nn.Module)


def zero_shot_classifier(
    model: Any, tokenizer: Any, prompts: Mapping[str, str | Sequence[str]], *, name_or_path: str | None = None
) -> LatentClassifier:
    """A classifier whose head is the text embeddings of its classes: CLIP's zero-shot prediction, ready to be tuned.

    The latents are unit image embeddings and the head has no bias, so the logits are CLIP's own. An AIFS adapter starts
    from this head.

    Args:
        model: a CLIP of transformers or open_clip, with its text part.
        tokenizer: its tokenizer or processor.
        prompts: for each class name a sentence, or several: their mean direction is taken (a prompt ensemble).
        name_or_path: where the model comes from; None takes what the model says.

    Returns:
        The classifier, in evaluation mode, with the class names in its configuration.

    Raises:
        InvalidInputError: for fewer than two classes, no sentence, or a model that embeds no text.

    Example:
        >>> from transformers import AutoProcessor, CLIPModel
        >>> from aifs_peft.models import resolve_model
        >>> name = resolve_model("tiny_clip")
        >>> clip, processor = CLIPModel.from_pretrained(name), AutoProcessor.from_pretrained(name)
        >>> prompts = {"red": ["a red background", "a scene on a red wall"], "blue": ["a blue background"]}
        >>> classifier = zero_shot_classifier(clip, processor, prompts)
        >>> classifier.config.id2label, classifier.classifier.weight.shape
        ({0: 'red', 1: 'blue'}, torch.Size([2, 128]))
    """
    if len(prompts) < 2:
        raise InvalidInputError(f"prompts has {len(prompts)} classes; needed are at least two, with a sentence each.")
    directions = torch.as_tensor(embed_prompts(model, tokenizer, list(prompts.values())))
    with torch.random.fork_rng(devices=[]):  # the head that is drawn is replaced at once
        found = LatentClassifier(model, len(prompts), name_or_path=name_or_path, normalize=True)
    head = nn.Linear(directions.shape[1], len(prompts), bias=False).to(found.device, found.dtype)
    with torch.no_grad():
        head.weight.copy_(directions.to(head.weight) * model.logit_scale.exp())
    found.classifier = head
    found.config.id2label = dict(enumerate(prompts))
    found.config.label2id = {name: i for i, name in enumerate(prompts)}
    return found.eval()


def wise_ft(zero_shot: nn.Module, tuned: M, share: float = 0.5) -> M:
    """The model between two: every weight is `(1 - share) * zero_shot + share * tuned` (WiSE-FT).

    Between a zero-shot classifier and what it was tuned to lies often a model that keeps the tuned accuracy on data
    like the training set and much of the zero-shot accuracy elsewhere (Wortsman et al., 2022). Choose `share` on data
    that was not trained on, for example by the worst inferred group.

    Args:
        zero_shot: as it was before tuning.
        tuned: the same model after it; of an adapter, what `merge_and_unload()` gives.
        share: 0 is `zero_shot`, 1 is `tuned`.

    Returns:
        A new model of the type of `tuned`.

    Raises:
        InvalidInputError: for models with other weights than each other, or a share outside 0 to 1.

    Example:
        >>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> between = wise_ft(a, b, 0.25)
        >>> torch.allclose(between.weight, 0.75 * a.weight + 0.25 * b.weight)
        True
    """
    check_number("share", share, 0, 1, error=InvalidInputError)
    first, second = zero_shot.state_dict(), tuned.state_dict()
    differ = sorted(
        name for name in first.keys() | second.keys()
        if name not in first or name not in second or first[name].shape != second[name].shape
    )  # fmt: skip
    if differ:
        raise InvalidInputError(
            f"the two models do not have the same weights ({len(differ)} differ, {differ[0]!r} first); needed is the "
            "model before and after tuning, an adapter merged: model.merge_and_unload()."
        )
    between = {
        name: torch.lerp(first[name].to(value.device, torch.float32), value.float(), share).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in second.items()
    }
    out = copy.deepcopy(tuned)
    out.load_state_dict(between)
    return out
