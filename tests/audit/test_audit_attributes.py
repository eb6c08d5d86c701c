"""Attributes that a found direction looks like: the right one is named, and chance names none."""

import numpy as np
import pytest
from audit_fields import planted_latents

from aifs_peft import data
from aifs_peft.audit import DEFAULT_ATTRIBUTES, audit_model
from aifs_peft.audit.attributes import COLUMNS, embed_attributes, score_attributes
from aifs_peft.discovery import discover
from aifs_peft.errors import InvalidInputError


def texts(count, d, seed, common=3.0):
    """Unit embeddings of pairs of sentences that share most of their length, as a CLIP's do."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=d) * common
    embedded = {}
    for i in range(count):
        pair = shared + rng.normal(size=(2, d))
        embedded[f"attribute {i}"] = pair / np.linalg.norm(pair, axis=1, keepdims=True)
    return embedded, {name: [f"{name} yes", f"{name} no"] for name in embedded}


def latents(n, d, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < 0.9, y, 1 - y)
    direction = rng.normal(size=d)
    return rng.normal(size=(n, d)) + 3 * (a - 0.5)[:, None] * direction / np.linalg.norm(direction), y, a, direction


def test_the_attribute_is_named_and_its_value_told():
    Z, y, a, direction = latents(800, 64, 0)
    embedded, sentences = texts(20, 64, 1)
    embedded["attribute 7"] = embedded["attribute 7"] + np.outer([1, -1], direction / np.linalg.norm(direction))
    table = score_attributes(Z, y, a, embedded, sentences, ["cat", "dog"], rng=np.random.default_rng(0))
    assert table.columns.tolist() == list(COLUMNS)
    assert table["attribute"].is_unique
    first = table.iloc[0]
    assert first[["attribute", "looks_like", "rather_than", "value"]].tolist() == [
        "attribute 7", "attribute 7 yes", "attribute 7 no", "dog"
    ]  # fmt: skip
    assert table["significant"].tolist() == [True] + [False] * 19


def test_attributes_that_have_nothing_to_do_with_it_are_rarely_named():
    named = 0
    for seed in range(40):
        Z, y, a, _ = latents(500, 64, seed)
        embedded, sentences = texts(15, 64, 1000 + seed)
        table = score_attributes(Z, y, a, embedded, sentences, [0, 1], rng=np.random.default_rng(seed))
        named += bool(table["significant"].any())
    assert named <= 5  # five of a hundred are expected


def test_cells_that_are_too_small_to_compare_give_no_row():
    Z, y, _, _ = latents(100, 8, 0)
    embedded, sentences = texts(3, 8, 0)
    table = score_attributes(Z, y, y, embedded, sentences, [0, 1], rng=np.random.default_rng(0))
    assert table.columns.tolist() == list(COLUMNS)
    assert not len(table)


def test_the_usual_attributes_have_a_sentence_for_each_of_their_values():
    wanted = {
        "place",
        "light",
        "texture",
        "medium",
        "sex",
        "age",
        "skin",
        "clothing",
        "device",
        "watermark",
        "language",
    }
    assert wanted <= set(DEFAULT_ATTRIBUTES)
    for name, sentences in DEFAULT_ATTRIBUTES.items():
        assert len(set(sentences)) == len(sentences) >= 2, name


@pytest.mark.parametrize("wrong", [{}, {"light": ["bright"]}, {"light": "bright"}])
def test_an_attribute_needs_two_sentences(wrong):
    with pytest.raises(InvalidInputError, match="two or more sentences"):
        embed_attributes(None, None, wrong)


def test_a_clip_names_the_colour_of_the_line_and_nothing_where_nothing_is_found():
    options = {"world": "factory", "n_validation": 10, "n_test": 10, "image_size": 32, "core_strength": 2.0}
    scenes = data.load("spurious_scenes", n_train=800, **options)["train"].select_columns(["image", "label"])
    found = audit_model("tiny_clip", scenes, harm=False)
    assert found.looks_like.loc[0, "attribute"] == "background colour"
    assert "looks most like 'background colour'" in found.sentence
    assert "'a blue background' rather than" in found.sentence
    assert found.to_dict()["looks_like"][0]["significant"] is True
    # Own attributes; of those that do not fit none is named.
    other = {"sex": ["a man", "a woman"], "age": ["young", "old"]}
    assert "looks most like" not in audit_model("tiny_clip", scenes, harm=False, attributes=other).sentence
    nothing = data.load("spurious_scenes", n_train=300, shortcuts=(), **options)["train"].select_columns(
        ["image", "label"]
    )
    assert audit_model("tiny_clip", nothing, harm=False).looks_like is None


def test_of_many_named_directions_each_must_show_more():
    Z, y, _ = planted_latents(600, 0.93)
    alone = discover(Z, y, attributes={"mark": np.eye(12)[0]}, random_state=0)
    many = discover(Z, y, attributes={f"d{i}": np.eye(12)[i] for i in range(12)}, random_state=0)
    one, first = (
        next(c for c in found.candidates_ if c.source.endswith(name)) for found, name in ((alone, "mark"), (many, "d0"))
    )
    assert first.gain == pytest.approx(one.gain - 2 * np.log(12))
    assert "named attributes that were tried were not used" in many.message_
