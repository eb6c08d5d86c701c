"""Attribute vocabularies of texts, tables and images; the column they become."""

import doctest
import importlib

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from aifs_peft.data import image_attributes, load
from aifs_peft.data.attributes import (
    Attributes,
    frequent,
    from_word_sets,
    table_attributes,
    with_attributes,
    word_attributes,
    words_of,
)
from aifs_peft.data.image_attributes import caption_attributes, captions, clip_attributes, words_of_captions
from aifs_peft.errors import InvalidInputError, MissingDependencyError, ModelNotFoundError


@pytest.mark.parametrize("name", ["attributes", "image_attributes"])
def test_examples_run(name):
    module = importlib.import_module(f"aifs_peft.data.{name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_words_count_documents_not_occurrences():
    texts = ["cat cat cat", "dog", "dog", "the 42 dog", "bird"]
    have = word_attributes(texts, more_than=2)
    assert have.names == ("dog",)
    assert have.values.ravel().tolist() == [0, 1, 1, 1, 0]
    with pytest.raises(InvalidInputError, match="no attribute is found in more than 10 of 5"):
        word_attributes(texts)


def test_most_frequent_stay_and_what_all_have_goes():
    found = [{"all", "often"}, {"all", "often", "once"}, {"all"}]
    assert from_word_sets(found, more_than=0).names == ("often", "once")
    assert from_word_sets(found, more_than=0, most=1).names == ("often",)


def test_words_of_other_scripts_and_curly_apostrophes():
    assert words_of("Käse, don\u2019t 3D") == ["käse", "don\u2019t", "d"]


def test_bins_partition_each_column():
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(size=200), rng.integers(0, 3, 200)])
    have = table_attributes(table, ["age", "sex"], bins=4)
    for title, parts in (("age", 4), ("sex", 3)):
        own = have.values[:, [name.startswith(title) for name in have.names]]
        assert own.shape == (200, parts)
        assert (own.sum(1) == 1).all()
    assert set(have.values[:, [n.startswith("age") for n in have.names]].sum(0)) == {50}
    np.testing.assert_array_equal(have.values[:, have.names.index("sex = 2")], table[:, 1] == 2)


@pytest.mark.parametrize(
    ("table", "names", "bins"),
    [
        (np.zeros(3), None, 4),
        (np.zeros((3, 2)), ["a"], 4),
        (np.full((3, 1), np.nan), None, 4),
        (np.zeros((3, 1)), None, 1),
    ],
)
def test_bad_tables(table, names, bins):
    with pytest.raises(InvalidInputError, match="features must be a finite table"):
        table_attributes(table, names, bins=bins)


def test_values_must_fit_names_and_data():
    with pytest.raises(InvalidInputError, match="got 2 names and values of shape"):
        Attributes(("a", "b"), np.zeros((3, 1), dtype=np.uint8))
    with pytest.raises(InvalidInputError, match="column of 0 and 1"):
        Attributes(("a",), np.full((3, 1), 2, dtype=np.uint8))
    one = Attributes(("a",), np.array([[1], [0]], dtype=np.uint8))
    with pytest.raises(InvalidInputError, match="attributes of 2 examples do not fit a data set of 3"):
        with_attributes(Dataset.from_dict({"text": ["a", "b", "c"]}), one)
    with pytest.raises(InvalidInputError, match="no attribute"):
        frequent(one, more_than=1)


def test_the_column_is_replaced_and_read_by_the_trainer():
    from aifs_peft.training.columns import column_names, read_column

    rows = Dataset.from_dict({"text": ["a", "b"]})
    assert "attributes" not in column_names(rows)
    for value in (0, 1):
        rows = with_attributes(rows, Attributes(("x", "y"), np.array([[value, 1], [0, 1]], dtype=np.uint8)))
    assert read_column(rows, "attributes").tolist() == [[1, 1], [0, 1]]


def test_embedded_clip_sees_the_photograph_behind_the_digit():
    split = load("digits_on_scenes")["test"].select(range(200))
    have = clip_attributes(split["image"][:])
    grey = have.values[:, have.names.index("ground: a grey background")]
    assert abs(np.corrcoef(grey, split["attribute"][:])[0, 1]) > 0.6
    for question in ("tone", "texture"):
        own = have.values[:, [name.startswith(question) for name in have.names]]
        assert (own.sum(1) <= 1).all()


def test_top_answers_and_batches():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(5)]
    words = {"what": ("a red background", "a blue background", "a green background")}
    two = clip_attributes(images, vocabulary=words, top=2, more_than=0, batch_size=2)
    same = clip_attributes(images, vocabulary=words, top=2, more_than=0)
    np.testing.assert_array_equal(two.values, same.values)
    with pytest.raises(InvalidInputError, match="more than top=3 different prompts"):
        clip_attributes(images, vocabulary=words, top=3)
    with pytest.raises(InvalidInputError, match="got 0 images"):
        clip_attributes([])


def test_photographs_get_another_vocabulary(monkeypatch):
    asked = []
    clip = image_attributes._load(image_attributes.TINY_CLIP, "clip")

    def load_other(name, kind, revision=None):
        asked.append(name)
        return clip

    monkeypatch.setattr(image_attributes, "_load", load_other)
    images = [Image.new("RGB", (32, 32), colour) for colour in ("red", "navy")]
    have = clip_attributes(images, model="openai/clip-vit-base-patch16", more_than=0)
    assert asked == ["openai/clip-vit-base-patch16"]
    assert all(name.partition(":")[0] in image_attributes.PHOTO_VOCABULARY for name in have.names)


def test_words_of_captions_by_rule():
    found = words_of_captions(
        ["Two birds are sitting on the old pier of a building", "a person holds an evening dress"]
    )
    assert found == [{"birds", "old", "pier", "building"}, {"person", "evening", "dress"}]
    with pytest.raises(InvalidInputError, match="tagger must be"):
        words_of_captions(["a"], tagger="llm")
    with pytest.raises(MissingDependencyError, match="no_such_model"):
        words_of_captions(["a"], tagger="spacy", spacy_model="no_such_model")


@pytest.fixture
def captioner(tmp_path):
    """A random ViT-GPT2 captioner in a folder, as `nlpconnect/vit-gpt2-image-captioning` is one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GPT2Config,
        PreTrainedTokenizerFast,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessorPil,
    )

    words = ["<s>", "</s>", "a", "bird", "sitting", "water", "green", "forest"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(image_size=16, patch_size=8, **sizes),
        GPT2Config(vocab_size=8, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=1),
    )
    config.decoder_start_token_id, config.pad_token_id = 0, 1
    model = VisionEncoderDecoderModel(config)
    for kept in (model.generation_config,):
        kept.decoder_start_token_id, kept.pad_token_id, kept.eos_token_id = 0, 1, 1
    model.save_pretrained(tmp_path)
    fast.save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_captioner_gives_words_of_its_vocabulary(captioner):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(6)]
    texts = captions(images, model=captioner, batch_size=4)
    assert len(texts) == 6
    assert texts == captions(images, model=captioner, batch_size=6)
    assert set(" ".join(texts).split()) <= {"a", "bird", "sitting", "water", "green", "forest"}
    found = words_of_captions(texts)
    assert set().union(*found) <= {"bird", "water", "green", "forest", "sitting"}
    common = {word for word in set().union(*found) if 0 < sum(word in words for words in found) < 6}
    if common:
        assert set(caption_attributes(images, model=captioner, more_than=0).names) == common
    else:
        with pytest.raises(InvalidInputError, match="no attribute"):
            caption_attributes(images, model=captioner, more_than=0)


def test_missing_models_say_what_works_offline(tmp_path):
    image = [Image.new("RGB", (8, 8))]
    with pytest.raises(ModelNotFoundError, match='use clip_attributes\\(model="tiny_clip"\\)'):
        captions(image, model=str(tmp_path / "absent"))
    with pytest.raises(ModelNotFoundError, match="no clip"):
        clip_attributes(image, model=str(tmp_path / "absent"))
