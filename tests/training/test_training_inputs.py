"""Plain data sets in `AIFSTrainer`: what is processed, what passes through, what is refused."""

import doctest

import architectures
import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from aifs_peft.errors import InvalidInputError
from aifs_peft.training import inputs
from aifs_peft.training.inputs import ProcessedDataset, encode_labels, input_column, longest_text, processed

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
WORDS = {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}


def vit(names=("cat", "dog")):
    known = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **known, **SIZES))


def bert(positions=6):
    return BertForSequenceClassification(BertConfig(vocab_size=9, max_position_embeddings=positions, **SIZES))


def tokenizer(limit=None):
    words = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    extra = {} if limit is None else {"model_max_length": limit}
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", **extra)


def pictures(labels, mode="RGB"):
    rows = {
        "image": [Image.new(mode, (8, 8), i) for i in range(len(labels))],
        "label": labels,
        "site": [3] * len(labels),
    }
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def processor():
    return ViTImageProcessorPil(size={"height": 8, "width": 8})


def test_examples_run():
    result = doctest.testmod(inputs)
    assert result.attempted
    assert not result.failed


def test_images_and_names_become_pixels_and_indices():
    ready = processed(pictures(["dog", "cat", "dog"]), processor(), vit(), "training", keep=["site"])
    assert isinstance(ready, ProcessedDataset)
    assert ready.labels.tolist() == [1, 0, 1]
    one = ready[2]
    assert one["pixel_values"].shape == (3, 8, 8)
    assert (int(one["labels"]), int(one["site"])) == (1, 3)
    assert ready.columns["site"].tolist() == [3, 3, 3]
    assert torch.equal(ready.__getitems__([2, 0])[0]["pixel_values"], one["pixel_values"])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_have_three_channels(mode):
    assert processed(pictures([0, 1], mode), processor(), vit(), "training")[0]["pixel_values"].shape == (3, 8, 8)


def scans(folder):
    """Files of more than 8 bits, with the same brightest and darkest pixel."""
    ramp = np.linspace(0, 60_000, 64).reshape(8, 8)
    for name, image in {
        "deep.png": Image.fromarray(ramp.astype(np.uint16)),
        "deep.tif": Image.fromarray(ramp.astype(np.int32)),
        "real.tif": Image.fromarray((ramp / 60_000).astype(np.float32)),
    }.items():
        image.save(folder / name)
    return ["deep.png", "deep.tif", "real.tif"], np.round(ramp / 60_000 * 255).astype(np.uint8)


def test_deep_scans_keep_their_contrast_on_the_way_to_the_model(tmp_path):
    """Pillow's own conversion clips them at 255: all white, or all black."""
    names, grey = scans(tmp_path)
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / name) for name in names], "label": [0, 1, 0]})
    rows = rows.cast_column("image", datasets.Image())
    ready = processed(rows, processor(), vit(), "training")
    wanted = processor()(images=[Image.fromarray(grey).convert("RGB")], return_tensors="pt")["pixel_values"][0]
    for i in range(3):
        torch.testing.assert_close(ready[i]["pixel_values"], wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "absent"])
def test_a_damaged_picture_is_a_line_with_split_row_and_path(tmp_path, content):
    Image.new("RGB", (8, 8)).save(tmp_path / "sound.png")
    if content is not None:
        (tmp_path / "broken.png").write_bytes(content)
    paths = [str(tmp_path / name) for name in ("sound.png", "broken.png")]
    rows = datasets.Dataset.from_dict({"image": paths, "label": [0, 1]}).cast_column("image", datasets.Image())
    ready = processed(rows, processor(), vit(), "evaluation")
    assert ready[0]["pixel_values"].shape == (3, 8, 8)
    with pytest.raises(
        InvalidInputError, match=r"the picture in row 1 of evaluation, .*broken\.png, cannot be read \("
    ):
        ready[1]


@pytest.mark.parametrize(
    "name",
    ["bart", "big_bird", "biogpt", "deberta", "distilbert", "electra", "esm", "flaubert", "fnet", "gpt2", "ibert",
     "layoutlm", "layoutlmv3", "longformer", "luke", "mbart", "mpnet", "mra", "nystromformer", "opt", "perceiver",
     "roberta", "roformer", "squeezebert", "xlm", "xlm-roberta", "xmod", "yoso"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # of architectures' own code
def test_the_longest_text_is_what_the_model_can_read(name):
    config = architectures.config_for("text", name)
    model = architectures.AUTO["text"].from_config(config).eval()
    length = longest_text(model, None)
    ids = torch.full((1, length + 1), 7)
    ids[:, -2:] = 2  # the end of a sequence, which some look for
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:])).logits).all()
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 16),
        ({"local_attn_chunk_length": 5}, 15),  # one of 16 would be padded to 20
        ({"max_position_embeddings": 12}, 12),
        ({"axial_pos_embds": False, "max_position_embeddings": 20}, 20),
        ({"axial_pos_embds": False, "max_position_embeddings": 10}, 8),
        ({"attn_layers": ["local", "lsh"], "lsh_attn_chunk_length": 3, "num_hashes": 1, "num_buckets": 2}, 12),
    ],
)
def test_the_longest_text_of_a_reformer_is_all_that_it_takes(changes, expected):
    config = architectures.config_for("text", "reformer")
    for name, value in changes.items():
        setattr(config, name, value)
    model = architectures.AUTO["text"].from_config(config).eval()
    assert longest_text(model, None) == expected
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=torch.full((1, expected), 7)).logits).all()
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            model(input_ids=torch.full((1, expected + 1), 7))
    rows = datasets.Dataset.from_dict({"text": ["a b", "b " * 40], "label": [0, 1]})
    with pytest.warns(UserWarning, match=f"1 of 2 texts are longer than the model's {expected} positions"):
        ready = processed(rows, tokenizer(), model, "training")
    assert [len(ready[i]["input_ids"]) for i in range(2)] == [2, expected]


def test_positions_of_pictures_are_not_those_of_texts():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    vision = CLIPVisionConfig(image_size=4, patch_size=4, **sizes)
    text = CLIPTextConfig(max_position_embeddings=77, vocab_size=9, eos_token_id=2, **sizes)
    both = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    assert longest_text(both, None) == 77
    assert longest_text(CLIPTextModel(text), None) == 77


def test_texts_are_cut_at_the_models_positions_with_a_warning_that_counts_them():
    rows = datasets.Dataset.from_dict({"text": ["a b", "a " * 6, "a " * 7, "b " * 40], "label": [0, 1, 0, 1]})
    with pytest.warns(UserWarning, match="2 of 4 texts are longer than the model's 6 positions"):
        ready = processed(rows, tokenizer(), bert(6), "training")
    assert [len(ready[i]["input_ids"]) for i in range(4)] == [2, 6, 6, 6]


def test_texts_that_fit_exactly_are_not_called_cut(recwarn):
    rows = datasets.Dataset.from_dict({"text": ["a " * 6], "label": [0]})
    processed(rows, tokenizer(), bert(6), "training")
    assert not list(recwarn)


@pytest.mark.parametrize(
    ("model", "limit", "expected"), [(bert(6), None, 6), (bert(6), 4, 4), (vit(), 4, 4), (vit(), None, None)]
)
def test_longest_text(model, limit, expected):
    assert longest_text(model, tokenizer(limit)) == expected


def test_roberta_counts_positions_from_behind_its_padding():
    model = RobertaForSequenceClassification(RobertaConfig(vocab_size=9, max_position_embeddings=10, **SIZES))
    length = longest_text(model, tokenizer())
    ids = torch.full((1, length), 3)
    model(input_ids=ids)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 3))


def test_what_is_ready_passes_through_untouched():
    ready = datasets.Dataset.from_dict({"input_ids": [[1]], "text": ["a"], "label": [0]})
    listed = [{"pixel_values": torch.zeros(3, 8, 8), "label": 0}]
    unknown = datasets.Dataset.from_dict({"speech": [[0.1]], "label": [0]})
    for dataset in (ready, listed, unknown, None):
        assert processed(dataset, None, vit(), "training") is dataset


def texts(*values):
    return datasets.Dataset.from_dict({"text": list(values), "label": list(range(len(values)))})


CASES = {
    "a whole DatasetDict": (lambda: datasets.DatasetDict(train=pictures([0, 1])), processor, r"data\['train'\]"),
    "no processor": (lambda: pictures([0, 1]), lambda: None, "processing_class="),
    "a tokenizer for images": (lambda: pictures([0, 1]), tokenizer, "images need an image processor"),
    "an image processor for texts": (lambda: texts("a"), processor, "texts a tokenizer"),
    "names the model does not know": (lambda: pictures(["cat", "cow"]), processor, "'cow'.*'cat', 'dog'.*id2label="),
    "an empty text": (lambda: texts("a", None), tokenizer, "row 1 of column 'text'"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_processed_is_refused(case):
    make, with_what, message = CASES[case]
    with pytest.raises(InvalidInputError, match=message):
        processed(make(), with_what(), vit() if "text" not in case else bert(), "training")


def test_integer_labels_stay_and_missing_ones_are_none():
    assert encode_labels(pictures([1, 0]), vit(), "training").tolist() == [1, 0]
    assert encode_labels(pictures([1, 0]).remove_columns("label"), vit(), "training") is None
    assert input_column(pictures([0]).rename_column("image", "photo")) == "photo"
