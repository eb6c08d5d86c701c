"""Captions of the procedural scenes, and the tokenizer trained on them."""

import random

import torch
from tiny_clip_scenes import ATTRIBUTES, DIGIT_WORDS, SUBJECTS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

CONTEXT_LENGTH = 32
# Each names at least three attributes; an image matches a caption when all that the caption names are true of it.
TEMPLATES = (
    "a {size} {color} {subject} on a {tone} {ground} {texture} background",
    "a {texture} {ground} background with a {color} {subject} {position}",
    "the {subject} in {color}, {position}, over a {tone} {texture} surface",
    "a photo of a {color} {subject} in front of a {texture} {tone} {ground} wall",
    "{subject}, {color}, {size}, {position}; the background is {ground} and {texture}",
    "a {size} {subject} {position} of a {texture} {ground} picture",
    "there is a {color} {subject} on something {texture} and {tone}",
    "a {tone} {ground} scene showing the {size} {subject} {position}",
)
# One attribute each. The first of each is the zero-shot prompt.
PROMPTS: dict[str, tuple[str, ...]] = {
    "subject": ("a photo of the {}", "the {}", "a picture of a {}", "this shows the {}", "{}"),
    "color": ("something {} in front of a background", "the sign is {}", "a {} mark", "painted in {}"),
    "texture": ("a {} background", "a scene with a {} surface", "the wall is {}"),
    "ground": ("a {} background", "a scene on a {} wall", "the surface is {}"),
    "tone": ("a {} background", "a {} scene", "the wall is {}"),
    "size": ("a {} sign", "something {} in a scene"),
    "position": ("a sign {}", "something {} of the picture", "the mark is {}"),
}


def _subject_name(index: int, rng: random.Random | None) -> str:
    if index < len(DIGIT_WORDS) and rng is not None and rng.random() < 0.3:
        return rng.choice(("digit {}", "number {}")).format(DIGIT_WORDS[index])
    return SUBJECTS[index]


def named_attributes(template: str) -> frozenset[str]:
    """The attributes that a template of `TEMPLATES` names."""
    return frozenset(name for name in ATTRIBUTES if "{" + name + "}" in template)


def caption(values: dict[str, int], template: str, rng: random.Random | None = None) -> str:
    """Fill a template; with `rng` digits are sometimes written as words.

    Example:
        >>> caption({"subject": 3, "size": 0, "position": 0, "texture": 1, "ground": 5}, TEMPLATES[5])
        'a small digit 3 in the center of a checkered blue picture'
    """
    words = {name: ATTRIBUTES[name][i] for name, i in values.items() if name != "subject"}
    return template.format(subject=_subject_name(values["subject"], rng), **words)


def prompts(attribute: str, rng: random.Random | None = None) -> list[str]:
    """One caption for every value of an attribute: the first template, or random ones when `rng` is given."""
    templates = PROMPTS[attribute]
    names = ATTRIBUTES[attribute]
    if attribute == "subject":
        names = tuple(_subject_name(i, rng) for i in range(len(names)))
    return [(rng.choice(templates) if rng else templates[0]).format(name) for name in names]


def scene_captions(labels: dict[str, torch.Tensor], rng: random.Random) -> tuple[list[str], torch.Tensor]:
    """One caption per scene and the truth of each caption for each scene.

    Args:
        labels: Attribute values, each (n,) int64.
        rng: Chooses the templates.

    Returns:
        n captions, and a (n, n) bool tensor: entry [i, j] says that caption j is true of scene i.
    """
    rows = {name: values.tolist() for name, values in labels.items()}
    n = len(rows["subject"])
    chosen = [rng.choice(TEMPLATES) for _ in range(n)]
    texts = [caption({k: v[i] for k, v in rows.items()}, chosen[i], rng) for i in range(n)]
    truth = torch.ones(n, n, dtype=torch.bool)
    for name, values in labels.items():
        named = torch.tensor([name in named_attributes(t) for t in chosen])
        truth &= (values[:, None] == values[None, :]) | ~named[None, :]
    return texts, truth


def train_tokenizer(corpus: list[str], vocab_size: int) -> CLIPTokenizer:
    """A byte-level BPE tokenizer in CLIP's format (lower case, `</w>` at word ends), trained on `corpus`.

    Every byte has a token, in the middle and at the end of a word, so any text can be encoded.
    """
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    # Words, single digits and punctuation, as CLIPTokenizer splits them.
    reference = CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])
    trained.pre_tokenizer = reference.backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = alphabet + [c + "</w>" for c in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(corpus, trainer)
    import json

    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    room = vocab_size - len(base) - 2
    merges = merges[:room]
    tokens = base + [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT_LENGTH)
