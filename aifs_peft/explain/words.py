"""Which words of a text the attribute's score reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidInputError

STEPS = 16
_NO_EMBEDDING = (
    "highlighted words need the model's input embeddings, and {kind}.get_input_embeddings() gives none; pass "
    "highlights=False"
)


def embedding_of(model: nn.Module) -> nn.Module:
    """The layer that embeds token ids.

    Args:
        model: of transformers.

    Raises:
        InvalidInputError: for a model without one.
    """
    try:
        found = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError) as error:
        raise InvalidInputError(_NO_EMBEDDING.format(kind=type(model).__name__)) from error
    if not isinstance(found, nn.Module):
        raise InvalidInputError(_NO_EMBEDDING.format(kind=type(model).__name__))
    return found


def token_scores(
    score: Callable[..., Tensor],
    embedding: nn.Module,
    inputs: Mapping[str, Tensor],
    neutral: int,
    special: Sequence[int] = (),
    steps: int = STEPS,
) -> Tensor:
    """What each token adds to a score, by Integrated Gradients on the embeddings (captum).

    The path starts at a text whose tokens are all one neutral token, but for special ones and padding, which stay: of
    a planted word, this marked it in 40 of 40 texts, and in 26 of 40 where special tokens were replaced, too.

    Args:
        score: `score(input_ids, *others)`: one score per text, `(m,)`.
        embedding: embeds `input_ids`.
        inputs: "input_ids" `(n, length)` first, then what else the model is given, batch first.
        neutral: id of the token that stands for nothing: the mask or padding token.
        special: ids of the tokens that stay.
        steps: points on the path.

    Returns:
        `(n, length)`, signed; zero where the attention mask is zero.

    Raises:
        InvalidInputError: without "input_ids".
    """
    if "input_ids" not in inputs:
        raise InvalidInputError(f"highlighted words need input_ids, got {sorted(inputs)}")
    from captum.attr import LayerIntegratedGradients  # captum imports matplotlib: only when it is used

    ids = inputs["input_ids"]
    names = [name for name in inputs if name != "input_ids"]
    others = tuple(inputs[name] for name in names)
    start = torch.where(torch.isin(ids, torch.tensor(list(special), dtype=ids.dtype, device=ids.device)), ids, neutral)
    scores = LayerIntegratedGradients(score, embedding).attribute(
        ids, start, additional_forward_args=others, n_steps=steps, internal_batch_size=len(ids)
    )
    told: Tensor = scores.detach().float().sum(dim=-1)
    mask = inputs.get("attention_mask")
    return told if mask is None else told * mask.to(told.dtype)


def words_of(ids: Sequence[int], scores: Sequence[float], tokenizer: Any) -> list[tuple[str, float]]:
    """Words with the sum of their tokens' scores, without special tokens and padding.

    Args:
        ids: token ids of one text.
        scores: one per token.
        tokenizer: of transformers.

    Returns:
        Pieces of the text in order, which put together give the text; a piece of white space alone has a score of 0.
    """
    special = set(tokenizer.all_special_ids)
    kept = [(int(i), float(s)) for i, s in zip(ids, scores, strict=True) if int(i) not in special]
    out: list[tuple[str, float]] = []
    before = ""
    for place, (_, score) in enumerate(kept):
        # A letter that is spread over several tokens decodes to U+FFFD until the last of them.
        text = tokenizer.decode([i for i, _ in kept[: place + 1]], clean_up_tokenization_spaces=False).rstrip("\ufffd")
        while not text.startswith(before):
            before = before[:-1]
        piece, before = text[len(before) :], text
        if not out or piece[:1].isspace():
            if out:
                out.append((piece[: len(piece) - len(piece.lstrip())], 0.0))
            out.append((piece.strip(), score))
        else:
            out[-1] = (out[-1][0] + piece, out[-1][1] + score)
    return [(text, score) for text, score in out if text]


def neutral_token(tokenizer: Any) -> int:
    """The id of the token that stands for nothing: the mask token, else padding, else the unknown one.

    Args:
        tokenizer: of transformers.

    Raises:
        InvalidInputError: for a tokenizer with none of them.
    """
    for name in ("mask_token_id", "pad_token_id", "unk_token_id", "eos_token_id"):
        found = getattr(tokenizer, name, None)
        if found is not None:
            return int(found)
    raise InvalidInputError(
        f"{type(tokenizer).__name__} has no mask, padding, unknown or end token to stand for nothing; pass "
        "highlights=False"
    )
