"""Words for the shortcut: planted directions, the null of random texts, and a real CLIP on real pictures."""

import numpy as np
import pytest
from planted_audit import planted

from aifs_peft import audit
from aifs_peft.audit import DEFAULT_WORDS, audit_model, embed_words
from aifs_peft.audit.names import score_words
from aifs_peft.data import load
from aifs_peft.errors import InvalidInputError


def vocabulary(width, count, seed=0, **named):
    rng = np.random.default_rng(seed)
    vectors = {f"word{i}": rng.normal(size=width) for i in range(count)}
    return {word: v / np.linalg.norm(v) for word, v in (vectors | named).items()}


def test_the_word_along_the_attribute_comes_first_with_its_value():
    Z, y, _ = planted(width=60)
    along = np.zeros(60)
    along[3], along[2] = 1.0, -1.0  # mark 1 against mark 0
    words = vocabulary(60, 80, along=along, against=-along)
    names = audit(Z, y, vocabulary=words, class_names=["cat", "dog"], harm=False).names
    assert names.columns.tolist() == ["word", "value", "score", "null_high", "significant"]
    assert set(names["word"][:2]) == {"along", "against"}
    assert names.set_index("word").loc["along", "value"] == "dog"
    assert names.set_index("word").loc["against", "value"] == "cat"
    assert names["significant"][:2].all()
    assert names["score"].is_monotonic_decreasing


def test_random_words_seldom_stand_out():
    Z, y, mark = planted(width=60)
    alarms = 0
    for seed in range(20):
        words = vocabulary(60, 60, seed)
        result = score_words(Z, y, mark, words, ["cat", "dog"], rng=np.random.default_rng(seed))
        alarms += int(result["significant"].any())
    assert alarms <= 4


def test_names_only_where_something_was_found():
    Z, y, _ = planted(contrast=0.0, width=30)
    assert audit(Z, y, vocabulary=vocabulary(30, 5), harm=False).names is None


def test_sentence_tells_the_words_that_stand_out():
    Z, y, _ = planted(width=60)
    along = np.zeros(60)
    along[3], along[2] = 1.0, -1.0
    result = audit(Z, y, vocabulary=vocabulary(60, 80, ruler=along), harm=False)
    assert "Words that go with it: ruler" in result.sentence
    assert "Nearest words: ruler" in " ".join(repr(result).split())


@pytest.mark.parametrize(
    ("words", "message"),
    [({}, "vocabulary has 0 words"), ({"a": np.ones(30), "b": np.ones(3)}, r"'b' has shape \(3,\)")],
)
def test_vocabularies_that_do_not_fit_are_refused(words, message):
    Z, y, mark = planted(width=30)
    with pytest.raises(InvalidInputError, match=message):
        score_words(Z, y, mark, words, ["cat", "dog"], rng=np.random.default_rng(0))


def test_too_few_conflicting_examples_give_no_words():
    Z, y, _ = planted(width=30)
    few = y.copy()
    few[:2] = 1 - y[:2]
    assert len(score_words(Z, y, few, vocabulary(30, 5), ["a", "b"], rng=np.random.default_rng(0))) == 0


def test_default_words_are_distinct_and_many():
    assert len(set(DEFAULT_WORDS)) == len(DEFAULT_WORDS) > 100
    with pytest.raises(InvalidInputError, match="where the word goes"):
        embed_words(None, None, ["a"], template="a photo")


def test_a_clip_names_the_background_of_real_pictures():
    rows = load("digits_on_scenes")["train"]
    result = audit_model("tiny_clip", rows, harm=False)
    true = set(np.flatnonzero(np.asarray(rows["attribute"]) != np.asarray(rows["label"])))
    found = set(result.conflicting["row"])
    assert len(found & true) / len(found) > 0.85
    assert len(found & true) / len(true) > 0.85
    # Its backgrounds are a temple and a green plant.
    assert result.names["word"][0] == "green"
    assert bool(result.names["significant"][0])
    assert result.associations["column"][0] == "attribute"
    assert "group" not in set(result.associations["column"])  # label and attribute in one, which says nothing more
    assert "go against the shortcut" in result.sentence
    assert "images" in result.sentence
