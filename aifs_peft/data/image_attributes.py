"""Attributes of images, by a vision-language model: a CLIP with a vocabulary of prompts, or a captioner.

The CLIP that ships with this package needs no download and knows its own kind of scenes; for photographs give a CLIP
that has seen photographs, or a captioner as the paper does (ViT-GPT2 or BLIP; then `words_of_captions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.attributes import Attributes, frequent, from_word_sets, words_of
from aifs_peft.data.images import to_rgb
from aifs_peft.errors import InvalidInputError, MissingDependencyError, ModelNotFoundError

TINY_CLIP = "tiny_clip"
CAPTIONER = "nlpconnect/vit-gpt2-image-captioning"

_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "grey")
SCENE_VOCABULARY: dict[str, tuple[str, ...]] = {
    "mark": tuple(f"something {hue} in front of a background" for hue in _HUES),
    "ground": tuple(f"a {hue} background" for hue in _HUES),
    "texture": tuple(
        f"a {texture} background"
        for texture in ("plain", "checkered", "striped", "dotted", "noisy", "gradient", "cloudy", "brick")
    ),
    "tone": ("a dark background", "a light background"),
    "size": ("a small sign", "a large sign"),
    "position": tuple(
        f"a sign {place}"
        for place in ("in the center", *(f"at the {v} {h}" for v in ("upper", "lower") for h in ("left", "right")))
    ),
}
"""Questions and their answers, in the words the embedded CLIP was trained on."""
PHOTO_VOCABULARY: dict[str, tuple[str, ...]] = {
    "place": tuple(
        f"a photo of something {place}"
        for place in (
            *("in a forest", "on the water", "at the beach", "in the sky", "on grass", "in the snow", "in a desert"),
            *("in the mountains", "on a street", "in a room", "on a plain background"),
        )
    ),
    "light": tuple(f"a photo taken {when}" for when in ("in bright daylight", "at night", "indoors", "at sunset")),
    "colour": tuple(f"a photo that is mostly {hue}" for hue in (*_HUES, "white", "black", "brown")),
    "company": ("a photo with a person", "a photo with several people", "a photo without people"),
    "text": ("a photo with writing on it", "a photo without writing"),
}
"""Questions for photographs, for a CLIP that has seen some."""

# What a caption says about actions and relations; with scikit-learn's stop words, what is neither noun nor adjective.
_VERBS = frozenset(
    {
        *("sits", "stands", "lies", "walks", "rides", "runs", "flies", "holds", "wears", "looks", "plays", "eats"),
        *("swims", "shows", "has", "made", "covered", "filled", "seen", "sat", "stood", "parked", "perched", "topped"),
        *("dressed", "surrounded"),
    }
)
_ARTICLES = frozenset({"a", "an", "the"})


def clip_attributes(
    images: Sequence[Any],
    *,
    model: str = TINY_CLIP,
    revision: str | None = None,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
    top: int = 1,
    more_than: int = 10,
    batch_size: int = 64,
) -> Attributes:
    """Answer each question of a vocabulary with the prompts that a CLIP finds most similar to the image.

    Args:
        images: PIL images.
        model: a CLIP by Hub name or folder, or "tiny_clip" (embedded).
        revision: branch, tag or commit on the Hub.
        vocabulary: question to prompts, answers that exclude each other; None takes `SCENE_VOCABULARY` for the
            embedded CLIP, else `PHOTO_VOCABULARY`. For a list of words that do not, give one question and `top`.
        top: answers per image and question, at least 1.
        more_than: an answer counts if more images than this get it.
        batch_size: images per pass.

    Returns:
        Attributes named "question: prompt".

    Raises:
        InvalidInputError: for a vocabulary without choices, no images, or no answer frequent enough.
        ModelNotFoundError: if the CLIP cannot be had.

    Example:
        >>> from PIL import Image
        >>> images = [Image.new("RGB", (32, 32), c) for c in ("#500000", "#000050", "#000050")]
        >>> grounds = {"ground": ("a red background", "a blue background")}
        >>> have = clip_attributes(images, vocabulary=grounds, more_than=0)
        >>> have.names
        ('ground: a blue background', 'ground: a red background')
        >>> have.values[:, 0]
        array([0, 1, 1], dtype=uint8)
    """
    if vocabulary is None:
        vocabulary = SCENE_VOCABULARY if model == TINY_CLIP else PHOTO_VOCABULARY
    if not len(images) or not vocabulary or top < 1 or min(len(set(prompts)) for prompts in vocabulary.values()) <= top:
        sizes = {question: len(prompts) for question, prompts in vocabulary.items()}
        raise InvalidInputError(
            f"clip_attributes needs images and, for each question, more than top={top} different prompts; got "
            f"{len(images)} images and {sizes}"
        )
    import torch

    clip, processor = _load(model, "clip", revision)
    prompts = [prompt for answers in vocabulary.values() for prompt in answers]
    names = tuple(f"{question}: {prompt}" for question, answers in vocabulary.items() for prompt in answers)
    values = []
    with torch.no_grad():
        words = processor(text=prompts, return_tensors="pt", padding=True)
        text = _unit(clip.get_text_features(**words))
        for part in _batches(images, batch_size):
            pixels = processor(images=part, return_tensors="pt")
            similarity = _unit(clip.get_image_features(pixel_values=pixels["pixel_values"])) @ text.T
            values.append(_answers(similarity.numpy(), [len(answers) for answers in vocabulary.values()], top))
    return frequent(Attributes(names, np.concatenate(values)), more_than=more_than, most=len(names))


def _unit(features: Any) -> Any:
    # transformers 5 wraps the projected features in an output.
    features = getattr(features, "pooler_output", features)
    return features / features.norm(dim=-1, keepdim=True)


def _answers(similarity: NDArray[np.float32], sizes: Sequence[int], top: int) -> NDArray[np.uint8]:
    """The `top` most similar columns within each run of columns."""
    chosen = np.zeros(similarity.shape, dtype=np.uint8)
    start = 0
    for size in sizes:
        best = np.argsort(-similarity[:, start : start + size], axis=1, kind="stable")[:, :top]
        np.put_along_axis(chosen[:, start : start + size], best, 1, axis=1)
        start += size
    return chosen


def captions(
    images: Sequence[Any],
    *,
    model: str = CAPTIONER,
    revision: str | None = None,
    max_length: int = 16,
    beams: int = 4,
    batch_size: int = 16,
) -> list[str]:
    """Captions of images by an image-to-text model (ViT-GPT2, BLIP, ...), by beam search.

    Args:
        images: PIL images.
        model: Hub name or folder; the default is the paper's for Waterbirds.
        revision: branch, tag or commit on the Hub.
        max_length: of a caption, tokens (16 in the paper).
        beams: of the search (4 in the paper).
        batch_size: images per pass.

    Returns:
        One caption per image.

    Raises:
        ModelNotFoundError: if the captioner cannot be had.
    """
    import torch

    captioner, processor = _load(model, "captioner", revision)
    images_to_pixels, tokenizer = processor
    result = []
    with torch.no_grad():
        for part in _batches(images, batch_size):
            pixels = images_to_pixels(images=part, return_tensors="pt")["pixel_values"]
            ids = captioner.generate(pixel_values=pixels, max_length=max_length, num_beams=beams, do_sample=False)
            result += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return result


def caption_attributes(
    images: Sequence[Any],
    *,
    model: str = CAPTIONER,
    revision: str | None = None,
    tagger: str = "rule",
    more_than: int = 10,
    most: int = 512,
) -> Attributes:
    """Nouns and adjectives of the images' captions.

    Args:
        images: PIL images.
        model: see `captions`.
        revision: see `captions`.
        tagger: see `words_of_captions`.
        more_than: a word counts if more captions than this hold it.
        most: at most so many words.

    Returns:
        Attributes named by their words.

    Raises:
        InvalidInputError: if no word is frequent enough.
        ModelNotFoundError: if the captioner cannot be had.
        MissingDependencyError: for "spacy" where it is not installed.
    """
    found = words_of_captions(captions(images, model=model, revision=revision), tagger=tagger)
    return from_word_sets(found, more_than=more_than, most=most)


def words_of_captions(
    texts: Sequence[str], *, tagger: str = "rule", spacy_model: str = "en_core_web_sm"
) -> list[set[str]]:
    """Nouns and adjectives of captions.

    Args:
        texts: captions.
        tagger: "rule": every word that is no function word (scikit-learn's English list), none of the verbs usual in
            captions, and does not end in -ing unless an article precedes it ("a building"). "spacy": lemmas of nouns
            and adjectives by a tagger, as the paper does (with its large model), where spaCy is installed.
        spacy_model: name of an installed spaCy model.

    Returns:
        The words of each caption.

    Raises:
        InvalidInputError: for another tagger.
        MissingDependencyError: if spaCy or its model is not installed.

    Example:
        >>> sorted(words_of_captions(["a small bird is standing on a building"])[0])
        ['bird', 'building', 'small']
    """
    if tagger == "spacy":
        return _tagged(texts, spacy_model)
    if tagger != "rule":
        raise InvalidInputError(f'tagger must be "rule" or "spacy"; got {tagger!r}')
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    dropped = ENGLISH_STOP_WORDS | _VERBS
    result = []
    for text in texts:
        words = words_of(text)
        result.append(
            {
                word
                for before, word in zip(["", *words[:-1]], words, strict=True)
                if word not in dropped and not (word.endswith("ing") and before not in _ARTICLES)
            }
        )
    return result


def _tagged(texts: Sequence[str], name: str) -> list[set[str]]:
    try:
        import spacy

        tagger = spacy.load(name)
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"the spaCy model {name!r} cannot be loaded ({error}); pip install spacy and python -m spacy download "
            f'{name}, or use tagger="rule"'
        ) from error
    return [{word.lemma_.lower() for word in doc if word.pos_ in ("NOUN", "ADJ")} for doc in tagger.pipe(texts)]


def _batches(images: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(images), size):
        yield [to_rgb(images[i]) for i in range(start, min(start + size, len(images)))]


def _load(name: str, kind: str, revision: str | None = None) -> tuple[Any, Any]:
    """A CLIP with its processor, or a captioner with its image processor and tokenizer, in evaluation mode."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, CLIPModel, CLIPProcessor

    source = str(Path(str(files("aifs_peft"))) / "assets" / TINY_CLIP) if name == TINY_CLIP else name
    pinned: Any = {} if revision is None else {"revision": revision}
    try:
        if kind == "clip":
            clip: Any = CLIPModel.from_pretrained(source, **pinned)
            return clip.eval(), CLIPProcessor.from_pretrained(source, **pinned)
        model = AutoModelForImageTextToText.from_pretrained(source, **pinned).eval()
        images = AutoImageProcessor.from_pretrained(source, **pinned)
        return model, (images, AutoTokenizer.from_pretrained(source, **pinned))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"no {kind} {name!r}: neither a folder of one, nor to be had from the Hub now ({error}); download it, or "
            f'use clip_attributes(model="{TINY_CLIP}"), which needs no network'
        ) from error
