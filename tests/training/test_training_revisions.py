"""A revision that is asked for reaches every loader, and the card, the summary and the adapter say which it was."""

from types import SimpleNamespace

import pytest
import transformers
from training_zoo import make_model, make_trainer

from aifs_peft import AIFSConfig
from aifs_peft.audit.model import audit_model
from aifs_peft.data import load
from aifs_peft.data.image_attributes import caption_attributes, clip_attributes
from aifs_peft.experiments import FinetuneSpec, encode
from aifs_peft.experiments.build import adapter_config
from aifs_peft.models import LatentClassifier, TabularEncoder, commit_of, load_model, load_processor
from aifs_peft.report import render_card, summary_from_trainer
from aifs_peft.report.usage import snippets
from aifs_peft.training.from_names import build_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Asked(Exception):  # noqa: N818 - no error of the package
    pass


@pytest.fixture
def hub(monkeypatch):
    """Every loader of transformers notes what it was asked for, and gives nothing."""
    asked = []

    def note(name, **options):
        asked.append((name, options.get("revision")))
        raise Asked(name)

    for loader in ("AutoConfig", "AutoImageProcessor", "AutoTokenizer", "AutoModelForImageTextToText", "CLIPModel"):
        monkeypatch.setattr(getattr(transformers, loader), "from_pretrained", note)
    return asked


@pytest.fixture(scope="module")
def scenes():
    return load("spurious_scenes", n_train=10, n_validation=10, n_test=10, image_size=16)["train"]


CALLS = {
    "load_model": lambda rows: load_model("me/vit", modality="image", label_names=["a"], revision="r1"),
    "load_processor": lambda rows: load_processor("me/vit", modality="image", revision="r1"),
    "LatentClassifier": lambda rows: LatentClassifier.from_pretrained("me/vit", num_labels=2, revision="r1"),
    "audit": lambda rows: audit_model("me/vit", rows, revision="r1"),
    "encode": lambda rows: encode("me/vit", rows, revision="r1"),
    "clip_attributes": lambda rows: clip_attributes(rows["image"], model="me/vit", revision="r1"),
    "caption_attributes": lambda rows: caption_attributes(rows["image"], model="me/vit", revision="r1"),
    "AIFSTrainer by name": lambda rows: build_model("me/vit", AIFSConfig(revision="r1"), rows, None),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_revision_reaches_the_loader(name, hub, scenes):
    with pytest.raises(Asked):
        CALLS[name](scenes)
    assert hub == [("me/vit", "r1")]


def test_the_adapter_of_a_run_holds_the_revision_of_its_base_model():
    assert adapter_config("aifs", FinetuneSpec(revision="r1")).revision == "r1"
    assert adapter_config("aifs", FinetuneSpec()).revision is None


def test_the_commit_is_the_one_that_transformers_noted():
    model = make_model(AIFSConfig()).get_base_model()
    assert commit_of(model) is None
    model.config._commit_hash = COMMIT
    assert commit_of(model) == COMMIT
    ours = LatentClassifier(TabularEncoder(4, 8), num_labels=2)
    assert commit_of(ours) is None
    ours.encoder.config = SimpleNamespace(_commit_hash=COMMIT)
    assert commit_of(ours) == COMMIT


def test_card_and_summary_say_which_version_was_trained_on(tmp_path):
    trainer = make_trainer(tmp_path, model=make_model(AIFSConfig(revision="v2")), num_train_epochs=1)
    base = trainer.adapted.get_base_model()
    base.config.name_or_path, base.config._commit_hash = "google/vit-base-patch16-224", COMMIT
    told = summary_from_trainer(trainer)
    assert told["model_revision"] == {"asked": "v2", "commit": COMMIT}
    card = str(render_card(told))
    assert f"google/vit-base-patch16-224, revision v2, commit {COMMIT}." in card.replace("\\", "")
    assert f"from_pretrained('google/vit-base-patch16-224', revision='{COMMIT}')" in snippets(told)[0].code
    del told["model_revision"]
    assert "revision" not in snippets(told)[0].code
