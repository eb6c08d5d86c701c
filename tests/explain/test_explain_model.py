"""`model.explain(...)`: through PEFT, on latents, pictures and texts; refusals that say what to do."""

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from planted import planted
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from aifs_peft import AIFSConfig
from aifs_peft.errors import InvalidInputError, NothingFoundError, NotTrainedError
from aifs_peft.explain import fit_reader
from aifs_peft.models import LatentClassifier, TabularEncoder
from aifs_peft.tuner import find_aifs_layer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "scan", "shows", "a", "mass", "none", "alpha", "beta"]


def learn(model, z, y, a):
    """Fill the state of an adapter as training with method `aifs` does, from known values."""
    within = [z[(y == k) & (a == 1)].mean(0) - z[(y == k) & (a == 0)].mean(0) for k in (0, 1)]
    step = torch.stack(within).mean(0)
    beta = torch.stack([-step / 2, step / 2])
    centre, reader = fit_reader(z, y, a, beta)
    find_aifs_layer(model).state.update(
        mask=[1.0], basis=(step / step.norm())[:, None], displacements=beta, centre=centre, reader=reader
    )
    return beta


@pytest.fixture
def tabular():
    """A model whose head leans on the attribute and on nothing else, with latents, labels and attribute."""
    z, y, a = planted(n=400, shortcut=4.0)
    model = get_peft_model(LatentClassifier(TabularEncoder(16, 16), num_labels=2), AIFSConfig(head="linear"))
    beta = learn(model, z, y, a)
    head = find_aifs_layer(model).head
    with torch.no_grad():
        head.weight.copy_(torch.stack([beta[0], beta[1]]))
        head.bias.zero_()
    return model, z, y, a


def test_a_model_that_leans_on_the_attribute_is_seen_through(tabular) -> None:
    model, z, _, a = tabular
    told = model.explain(latents=z)
    assert np.mean(told.inferred == a.numpy()) > 0.99
    assert np.mean(told.predicted == a.numpy()) > 0.99
    assert np.mean(told.changes) > 0.99
    assert told.share.min() > 0.999
    assert (told.confidence > 0.5).all()
    assert "400 examples" in repr(told)
    assert len(repr(told)) < 200
    frame = told.to_frame()
    assert len(frame) == len(told) == 400
    assert frame["changes"].mean() > 0.99
    assert set(frame["inferred"]) == {"LABEL_0", "LABEL_1"}
    np.testing.assert_allclose(told.probabilities.sum(axis=1), 1)


def test_a_model_that_does_not_lean_on_it_is_cleared(tabular) -> None:
    model, z, _, _ = tabular
    head, state = find_aifs_layer(model).head, find_aifs_layer(model).state
    with torch.no_grad():
        head.weight.copy_(torch.randn(2, 16))
        head.weight -= head.weight @ state.basis @ state.basis.T
    told = model.explain(latents=z)
    assert told.share.max() < 1e-3  # rounding, on the example whose parts are smallest
    assert not told.changes.any()


def test_through_the_wrapper_and_through_a_file(tabular, tmp_path) -> None:
    model, z, _, _ = tabular
    told = model.explain(latents=z[:5])
    model.save_pretrained(tmp_path)
    base = LatentClassifier(TabularEncoder(16, 16), num_labels=2)
    loaded = PeftModel.from_pretrained(base, str(tmp_path))
    again = loaded.explain(latents=z[:5])
    assert isinstance(loaded, PeftModel)
    np.testing.assert_array_equal(told.probabilities, again.probabilities)
    np.testing.assert_array_equal(told.along, again.along)


def test_inputs_go_through_the_encoder(tabular) -> None:
    model, _, _, _ = tabular
    x = torch.randn(6, 16)
    model.train()
    modes = [module.training for module in model.modules()]
    told = model.explain({"features": x, "labels": torch.zeros(6)})
    with torch.no_grad():
        model.eval()
        np.testing.assert_allclose(told.probabilities, model(x).logits.double().softmax(1).numpy(), atol=1e-6)
    model.train()
    assert [module.training for module in model.modules()] == modes
    assert told.highlights == ()


def test_an_mlp_head_is_split_by_integrated_gradients() -> None:
    z, y, a = planted(n=300)
    model = get_peft_model(LatentClassifier(TabularEncoder(16, 16), num_labels=2), AIFSConfig(head="mlp"))
    learn(model, z, y, a)
    told = model.explain(latents=z[:20])
    layer = find_aifs_layer(model).eval()
    with torch.no_grad():
        at, start = layer.classify(z[:20]), layer.classify(layer.state.centre[None])
    lead = np.abs((at[:, 1] - at[:, 0]).numpy()) - np.where(told.predicted == 1, 1, -1) * float(
        start[0, 1] - start[0, 0]
    )
    np.testing.assert_allclose(told.along + told.rest, lead, atol=2e-3)


def test_refusals() -> None:
    model = get_peft_model(LatentClassifier(TabularEncoder(4, 8), num_labels=2), AIFSConfig())
    with pytest.raises(NotTrainedError, match="has not been trained"):
        model.explain(latents=torch.zeros(1, 8))
    state = find_aifs_layer(model).state
    state.update(groups=torch.zeros(0, dtype=torch.int64))  # what training that finds nothing leaves
    with pytest.raises(NothingFoundError, match="knows no spurious attribute"):
        model.explain(latents=torch.zeros(1, 8))
    beta = torch.eye(8)[:2]
    state.update(mask=[1.0], basis=torch.eye(8)[:, :1], displacements=beta)
    with pytest.raises(InvalidInputError, match="saved by an earlier release"):
        model.explain(latents=torch.zeros(1, 8))
    state.update(centre=torch.zeros(8), reader=torch.cat([beta, torch.zeros(2, 1)], dim=1))
    with pytest.raises(InvalidInputError, match=r"latents must have shape \(n, 8\), got \(1, 7\)"):
        model.explain(latents=torch.zeros(1, 7))
    with pytest.raises(InvalidInputError, match="got nothing"):
        model.explain()
    with pytest.raises(InvalidInputError, match="explain needs a batch of tensors"):
        model.explain(latents=torch.zeros(0, 8))
    model.merge_adapter()
    with pytest.raises(InvalidInputError, match="unmerge_adapter"):
        model.explain(latents=torch.zeros(1, 8))


@pytest.fixture(scope="module")
def texts():
    """A small random BERT and texts in which one word, alpha or beta, is the attribute."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.08,
    )  # fmt: skip
    model = get_peft_model(BertForSequenceClassification(config), AIFSConfig()).eval()
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    a = np.where(rng.random(300) < 0.9, y, 1 - y)
    lines = []
    for k, v in zip(y, a, strict=True):
        words = ["the", "scan", "shows", "a" if k else "none", "mass"]
        words.insert(int(rng.integers(0, 6)), "beta" if v else "alpha")
        lines.append(" ".join(words))
    batch = tokenizer(lines, return_tensors="pt", padding=True)
    layer = find_aifs_layer(model)
    with torch.no_grad():
        model(**{k: batch[k] for k in ("input_ids", "attention_mask")})
    learn(model, layer.take_output().z, torch.as_tensor(y), torch.as_tensor(a))
    return model, tokenizer, lines, a


def test_the_planted_word_is_the_one_that_is_read(texts) -> None:
    model, tokenizer, lines, a = texts
    batch = tokenizer(lines[:40], return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    told = model.explain(**inputs, processor=tokenizer)
    assert np.mean(told.inferred == a[:40]) > 0.9
    first = [told.words(i)[0] for i in range(40)]
    assert np.mean([word == ("beta" if v else "alpha") for word, v in zip(first, told.inferred, strict=True)]) > 0.8
    for line, highlight in zip(lines, told.highlights, strict=False):
        assert "".join(text for text, _ in highlight.words) == line  # padding and special tokens are left out
    page = told._repr_html_()
    assert "<mark" in page
    assert "alpha" in page


def test_words_need_a_tokenizer(texts) -> None:
    model, tokenizer, lines, _ = texts
    batch = dict(tokenizer(lines[:2], return_tensors="pt"))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(InvalidInputError, match=r"explain\(\.\.\., processor=tokenizer\)"):
        model.explain(**inputs)
    assert model.explain(**inputs, highlights=False).highlights == ()


def test_plots_and_pages(tabular, texts) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    model, z, _, _ = tabular
    told = model.explain(latents=z)
    figure = told.plot(most=5)
    assert len(figure.axes) == 1
    assert [bar.get_width() for bar in figure.axes[0].containers[1]] == pytest.approx(told.along[:5].tolist())
    assert dict(mpl.rcParams) == before
    page = told._repr_html_()
    assert page.count("<tr>") == 13
    assert "388 more" in page
