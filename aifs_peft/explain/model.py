"""`model.explain(...)`: the explanation of a batch by an adapter that knows a spurious attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidInputError, NothingFoundError, NotTrainedError
from aifs_peft.explain.pictures import REFERENCES, as_seen, choose_references, patch_maps
from aifs_peft.explain.reading import attribute_scores, read_attribute
from aifs_peft.explain.result import Explanation, Highlight
from aifs_peft.explain.share import split_decision
from aifs_peft.explain.toggle import value_names
from aifs_peft.explain.words import embedding_of, neutral_token, token_scores, words_of
from aifs_peft.latent import counterfactual
from aifs_peft.latent._support import evaluating
from aifs_peft.latent.heads import linear_parameters
from aifs_peft.latent.output import Intervention, LatentOutput
from aifs_peft.latent.state import AIFSState

NOT_TRAINED = (
    "this adapter has not been trained: it knows no attribute. Train it with method 'aifs' "
    '(AIFSTrainer(model=model, args=AIFSTrainingArguments(method="aifs"), ...)), or load a trained one'
)
NOTHING_FOUND = (
    "this adapter knows no spurious attribute: its training found none, or its method looks for none. "
    "`aifs_peft.audit` tells whether there is one; method 'aifs' trains against it"
)
NO_READER = (
    "this adapter was saved by an earlier release and cannot read the attribute off a latent; train it again, or set "
    "its reader: `centre, reader = aifs_peft.explain.fit_reader(...)`, `state.update(centre=centre, reader=reader)`"
)
NO_PROCESSOR = (
    "highlighted words need the tokenizer that made input_ids: explain(..., processor=tokenizer), or highlights=False"
)
Score = Callable[[Tensor], Tensor]


class LatentLayer(Protocol):
    """What an explanation needs of the layer that stands where the head stood."""

    @property
    def merged(self) -> Any:
        """Whether the adapter is merged."""

    @property
    def state(self) -> AIFSState:
        """Of the active adapter."""

    @property
    def head(self) -> nn.Module:
        """The trained head."""

    def classify(self, z: Tensor) -> Tensor:
        """Logits of latents."""

    def intervening(self, intervention: Intervention | None) -> AbstractContextManager[None]:
        """Leave latents with their graph."""

    def take_output(self) -> LatentOutput:
        """Of the last forward pass."""


def explain_model(
    model: nn.Module,
    layer: LatentLayer,
    inputs: Mapping[str, Any],
    label_names: Sequence[str],
    *,
    processor: Any = None,
    highlights: bool = True,
) -> Explanation:
    """Explain a batch; see `AIFSModel.explain`, which calls this.

    Args:
        model: takes the inputs.
        layer: its AIFS layer.
        inputs: as the model takes them, or "latents" alone.
        label_names: of the classes.
        processor: tokenizer or image processor that made the inputs.
        highlights: whether to find what the attribute's score reads in each picture or text.

    Returns:
        The explanation.

    Raises:
        NotTrainedError: for an adapter that has not been trained.
        NothingFoundError: for one that knows no attribute.
        InvalidInputError: for inputs that do not fit, or words to be highlighted without a tokenizer.
    """
    state = known_state(layer)
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor) and name != "labels"}
    if not tensors or any(not len(value) for value in tensors.values()):
        raise InvalidInputError(
            "explain needs a batch of tensors as the model takes them (pixel_values=..., input_ids=..., features=...), "
            f"or latents=(n, {state.dim}); got {sorted(inputs) or 'nothing'}"
        )
    device = next(model.parameters()).device
    tensors = {name: value.to(device) for name, value in tensors.items()}
    with evaluating(model):
        if "latents" in tensors:
            z = tensors["latents"].float()
            if z.ndim != 2 or z.shape[1] != state.dim:
                raise InvalidInputError(f"latents must have shape (n, {state.dim}), got {tuple(z.shape)}")
        else:
            with torch.no_grad():
                z = latents_through(model, layer, tensors)
        found = _decisions(layer, z, label_names)
        shown: tuple[Highlight, ...] = ()
        if highlights and {"pixel_values", "input_ids"} & set(tensors):
            if "input_ids" in tensors and processor is None:
                raise InvalidInputError(NO_PROCESSOR)
            values = torch.as_tensor(found.inferred, device=device)
            groups = found.predicted
            shown = highlight_inputs(model, layer, tensors, values, state.reader, processor, groups=groups)
    return replace(found, highlights=shown)


def known_state(layer: LatentLayer) -> AIFSState:
    """The state of an adapter that knows an attribute and can read it.

    Args:
        layer: an AIFS layer.

    Raises:
        NotTrainedError: for an adapter that has not been trained.
        NothingFoundError: for one that knows no attribute.
        InvalidInputError: for one that is merged, or has no reader.
    """
    state = layer.state
    if layer.merged:
        raise InvalidInputError("the adapter is merged, and latents are gone with it: call model.unmerge_adapter()")
    if not int(state.num_updates) and not state.has_basis:
        raise NotTrainedError(NOT_TRAINED)
    if not state.has_basis or len(state.displacements) < 2:
        raise NothingFoundError(NOTHING_FOUND)
    if not state.centre.numel() or not len(state.reader):
        raise InvalidInputError(NO_READER)
    return state


def latents_through(model: nn.Module, layer: LatentLayer, tensors: Mapping[str, Tensor]) -> Tensor:
    """Latents of a batch, `(n, dim)`, with their graph.

    Args:
        model: takes the tensors.
        layer: its AIFS layer.
        tensors: as the model takes them.
    """
    with layer.intervening(None):
        model(**tensors)
    return layer.take_output().z


@torch.no_grad()
def _decisions(layer: LatentLayer, z: Tensor, label_names: Sequence[str]) -> Explanation:
    """Everything but the highlights."""
    state = layer.state
    # A linear head is told apart from others by itself, without the layer around it.
    head: Any = layer.head if linear_parameters(layer.head) is not None else layer.classify
    probabilities = layer.classify(z).double().softmax(dim=1)
    predicted = probabilities.argmax(dim=1)
    with torch.enable_grad():
        split = split_decision(head, z.detach(), state.centre, state.basis)
    confidence, inferred = read_attribute(z, state.reader).max(dim=1)
    target, toggled = _worst_value(layer, z, inferred, predicted)
    names = [str(name) for name in label_names]
    return Explanation(
        tuple(names), tuple(value_names(len(state.displacements), names)), *(_numpy(x) for x in (
            predicted, probabilities, split.along.double(), split.rest.double(), inferred, confidence.double(), target,
            toggled.argmax(dim=1), toggled)),
    )  # fmt: skip


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


def _worst_value(layer: LatentLayer, z: Tensor, inferred: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """The other attribute value that lowers the prediction's probability most, and the probabilities with it."""
    displacements = layer.state.displacements
    # Values that no training example has are never read, and have no displacement.
    known = (layer.state.reader[:, -1] > -1e8).nonzero()[:, 0].tolist()
    best, target = None, torch.zeros_like(inferred)
    lowest = torch.full(inferred.shape, 2.0, dtype=torch.float64, device=z.device)
    for value in known:
        given = torch.full_like(inferred, value)
        after = layer.classify(counterfactual(z, inferred, displacements, target=given)).double().softmax(dim=1)
        own = after.gather(1, predicted[:, None])[:, 0]
        better = (own < lowest) & (inferred != value)
        best = after if best is None else torch.where(better[:, None], after, best)
        target, lowest = torch.where(better, given, target), torch.where(better, own, lowest)
    assert best is not None  # noqa: S101 - `known_state` asks for a reader, which has at least two values
    return target, best


def highlight_inputs(
    model: nn.Module,
    layer: LatentLayer,
    tensors: Mapping[str, Tensor],
    values: Tensor,
    reader: Tensor,
    processor: Any = None,
    *,
    groups: Any = None,
    references: Tensor | None = None,
) -> tuple[Highlight, ...]:
    """What the attribute's score reads in pictures or texts.

    Args:
        model: takes the tensors, in evaluation mode.
        layer: its AIFS layer.
        tensors: "pixel_values", or "input_ids" and what comes with it.
        values: inferred attribute values, `(n,)`.
        reader: of the attribute, in the latents that the model gives now.
        processor: tokenizer or image processor.
        groups: of pictures: labels or predictions, `(n,)`; references are other pictures of the batch in the same group
            with another value.
        references: of pictures, in their place, `(n, k, channels, height, width)`.

    Returns:
        One highlight per example.
    """

    def score(z: Tensor, of: Tensor) -> Tensor:
        scores = attribute_scores(z, reader)
        own = scores.gather(1, of[:, None])[:, 0]
        return own - scores.scatter(1, of[:, None], float("-inf")).logsumexp(dim=1)

    with torch.enable_grad():
        if "pixel_values" in tensors:
            pixels = tensors["pixel_values"]
            others = {name: value for name, value in tensors.items() if name != "pixel_values"}
            if references is None and groups is not None:
                chosen = choose_references(np.asarray(groups), _numpy(values), np.arange(len(pixels)), REFERENCES)
                references = None if chosen is None else pixels[torch.as_tensor(chosen, device=pixels.device)]

            def of_pictures(points: Tensor) -> Tensor:
                z = latents_through(model, layer, {"pixel_values": points, **others})
                return score(z, values)

            maps = patch_maps(_one_by_one(of_pictures, len(pixels)), pixels, references)
            seen = as_seen(pixels, processor)
            return tuple(Highlight(_numpy(m), p) for m, p in zip(maps, seen, strict=True))
        names = [name for name in tensors if name != "input_ids"]

        def of_texts(ids: Tensor, *others: Tensor) -> Tensor:
            z = latents_through(model, layer, {"input_ids": ids, **dict(zip(names, others[:-1], strict=True))})
            return score(z, others[-1])

        inputs = {"input_ids": tensors["input_ids"], **{name: tensors[name] for name in names}, "values": values}
        told = token_scores(of_texts, embedding_of(model), inputs, neutral_token(processor), processor.all_special_ids)
        return tuple(
            Highlight(words=tuple(words_of(ids.tolist(), s.tolist(), processor)))
            for ids, s in zip(tensors["input_ids"], told, strict=True)
        )


def _one_by_one(score: Score, size: int) -> Score:
    """A score of the batch itself, for calls with exactly its examples, as `internal_batch_size` makes them."""

    def checked(points: Tensor) -> Tensor:
        if len(points) != size:
            raise InvalidInputError(f"{len(points)} pictures were given for {size} attribute values")
        return score(points)

    return checked
