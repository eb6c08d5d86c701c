"""Audits see pictures as training does: with their contrast, upright, over white; a damaged file is named."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from peft import get_peft_model
from pictures import DAMAGED, deep_and_plain, write_damaged, write_kinds

from aifs_peft.audit import audit_model
from aifs_peft.audit.encoding import encode
from aifs_peft.data import load
from aifs_peft.errors import InvalidInputError
from aifs_peft.models.loading import load_model, load_processor
from aifs_peft.report.contact import MOST
from aifs_peft.report.folder import audit_sheets
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig

FEATURES = Features({"image": ImageFeature(), "label": Value("int64")})


@pytest.fixture(scope="module")
def tiny():
    """The embedded model and its processor."""
    model = load_model("tiny_clip", modality="image", label_names=["a", "b"])
    return model, load_processor("tiny_clip", modality="image")


@pytest.fixture(scope="module")
def both():
    """The same scenes in 16 bits and in 8, as data sets."""
    scenes = load("spurious_scenes", n_train=60, n_validation=10, n_test=10, image_size=16)["train"]
    labels = scenes["label"][:]
    return [Dataset.from_dict({"image": p, "label": labels}, FEATURES) for p in deep_and_plain(scenes["image"][:])]


def files(paths):
    labels = [i % 2 for i in range(len(paths))]
    return Dataset.from_dict({"image": [str(p) for p in paths], "label": labels}, FEATURES)


def test_every_kind_gives_the_latents_of_what_it_shows(tiny, tmp_path):
    model, processor = tiny
    given, plain = write_kinds(tmp_path)
    expected = encode(model, files(plain), processor=processor).Z
    for rows in (files(given), files(given).with_format("numpy")):
        found = encode(model, rows, processor=processor, batch_size=4).Z
        for path, one, other in zip(given, found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5, err_msg=path.name)
    assert np.ptp(expected, axis=0).max() > 0.1


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line_with_its_path(name, tiny, tmp_path):
    model, processor = tiny
    sound = write_kinds(tmp_path)[1][:3]
    path = next(p for p in write_damaged(tmp_path) if p.name == name)
    with pytest.raises(InvalidInputError, match=r"row 3, .* cannot be read \(.+\); replace the file") as caught:
        audit_model(model, files([*sound, path]), processor=processor)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_audit_of_deep_pictures_is_that_of_plain_ones(tiny, both):
    model, processor = tiny
    deep, plain = (audit_model(model, rows, processor=processor, clip=False) for rows in both)
    assert deep.to_dict() == plain.to_dict()
    assert same_sheets(deep, plain) > 0


def test_a_trainer_audits_deep_pictures_with_their_contrast(both, tmp_path):
    audits = []
    for number, rows in enumerate(both):
        torch.manual_seed(0)  # the head's start
        base = load_model("tiny_clip", modality="image", label_names=["a", "b"])
        model = get_peft_model(base, AIFSConfig(recipe="erm"))
        args = AIFSTrainingArguments(
            output_dir=str(tmp_path / str(number)), max_steps=2, use_cpu=True, disable_tqdm=True, save_strategy="no"
        )
        processor = load_processor("tiny_clip", modality="image")
        trainer = AIFSTrainer(model, args, train_dataset=rows, processing_class=processor)
        trainer.train()
        audits.append(trainer.audit())
    assert audits[0].to_dict() == audits[1].to_dict()
    assert same_sheets(*audits) > 0


def same_sheets(deep, plain):
    """Compare the contact sheets of two audits picture by picture; how many there were."""
    one, other = audit_sheets(deep), audit_sheets(plain)
    assert one.keys() == other.keys()
    pairs = [pair for kind in one for pair in zip(one[kind], other[kind], strict=True)]
    for a, b in pairs:
        assert a.row == b.row
        np.testing.assert_array_equal(np.asarray(a.picture), np.asarray(b.picture))
    assert len(pairs) <= 3 * MOST
    return len(pairs)
