"""RaVL-style: gaps, influence and losses by hand, planted regions, the trainer, refusals."""

import doctest
import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from sklearn.datasets import make_blobs
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from aifs_peft.errors import InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.methods import EpochContext, Regions, Setup, StepContext, make
from aifs_peft.methods.attributes.ravl_clusters import (
    cluster_gaps,
    cluster_influence,
    cluster_range,
    find_spurious_clusters,
)
from aifs_peft.methods.attributes.ravl_regions import follow_centroids, grid_regions, nearest_cluster, span_regions
from aifs_peft.methods.common.held_out import stratified_rows
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.training.latent_trainer import fit_on_latents
from aifs_peft.tuner import AIFSConfig, AIFSState, LatentOutput

MODULES = (
    "methods.attributes.ravl",
    "methods.attributes.ravl_regions",
    "methods.attributes.ravl_clusters",
    "models.tokens",
)
OPTIONS = {"ks": [4, 5, 6], "min_influence": 0.25, "sample": 1000, "seed": 0}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(f"aifs_peft.{name}")
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def planted_regions(m=300, aligned=0.8, seed=0):
    """Three regions each: class signal (0/1), attribute (0/1), noise; predictions follow the attribute."""
    rng = np.random.default_rng(seed)
    labels = np.arange(m) % 2
    attribute = np.where(rng.random(m) < aligned, labels, 1 - labels)
    directions = np.eye(8)
    features = rng.normal(size=(m, 3, 8)) * 0.05
    features[:, 0] += directions[labels]
    features[:, 1] += directions[2 + attribute]
    features[:, 2] += directions[4]
    scores = np.full((m, 3, 2), 0.5)
    scores[np.arange(m), 1, attribute] = 0.9
    scores[np.arange(m), 1, 1 - attribute] = 0.1
    return features, np.ones((m, 3), dtype=bool), scores, labels, attribute


def test_gaps_equal_the_definition():
    rng = np.random.default_rng(0)
    inside, labels, correct = rng.random((120, 4)) < 0.3, rng.integers(0, 3, 120), rng.random(120) < 0.6
    inside[labels == 2, 0] = True  # no image without the cluster
    got = cluster_gaps(inside, labels, correct, 4)
    for k in range(4):
        for label in range(4):
            a, b = (correct[(labels == label) & (inside[:, k] == side)] for side in (True, False))
            weight = 2 * min(len(a), len(b)) / max(len(a) + len(b), 1)
            expected = weight * (a.mean() - b.mean()) if len(a) and len(b) else 0.0
            assert got[k, label] == pytest.approx(expected)


def test_influence_equals_the_definition():
    code = np.array([[0, 1], [0, 1], [1, 0], [0, -1], [0, 1]])
    labels, predicted = np.array([0, 0, 0, 0, 1]), np.array([1, 1, 1, 1, 1])
    scores = np.zeros((5, 2, 2))
    scores[:, :, 1] = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [1.0, 0.0], [0.9, 0.1]]
    gaps = np.array([[-0.5, 0.1], [0.5, -0.1]])
    # Wrong with two regions: the first three; region 0 is the loudest of examples 0 and 2 (there in second place).
    np.testing.assert_allclose(cluster_influence(code, scores, labels, predicted, gaps), [2 / 3, 0.0])


def test_planted_cluster_is_found_and_the_class_cluster_is_not():
    features, present, scores, labels, attribute = planted_regions()
    found = find_spurious_clusters(features, present, scores, labels, attribute, **OPTIONS)
    where = (features / np.linalg.norm(features, axis=2, keepdims=True) @ found.centroids.T).argmax(2)
    flagged = found.spurious[where]
    assert flagged[:, 1].all()
    assert not flagged[:, 0].any()
    assert not flagged[:, 2].any()
    again = find_spurious_clusters(features, present, scores, labels, attribute, **OPTIONS)
    np.testing.assert_array_equal(found.centroids, again.centroids)
    assert found.silhouette > 0.8


def test_nothing_is_found_where_predictions_are_right_or_influence_is_low():
    features, present, scores, labels, attribute = planted_regions()
    assert not find_spurious_clusters(features, present, scores, labels, labels, **OPTIONS).spurious.any()
    quiet = np.full_like(scores, 0.5)
    quiet[:, 2] = 0.9  # the noise region speaks most for every class
    assert not find_spurious_clusters(features, present, quiet, labels, attribute, **OPTIONS).spurious.any()


def test_too_few_regions_and_absent_regions():
    features, present, scores, labels, attribute = planted_regions(m=40)
    with pytest.raises(InvalidInputError, match="1 distinct regions are too few"):
        find_spurious_clusters(np.ones_like(features), present, scores, labels, attribute, **OPTIONS)
    present[:, 2] = False
    found = find_spurious_clusters(features, present, scores, labels, attribute, **OPTIONS | {"ks": [4]})
    assert (found.centroids @ np.eye(8)[4]).max() < 0.5


def test_range_of_cluster_numbers():
    assert cluster_range(2, 100) == list(range(4, 33))
    assert cluster_range(3, 100) == list(range(6, 15))
    assert cluster_range(10, 4) == [20, 30, 39, 49]


def test_pooling_of_patches_and_of_tokens():
    tokens = torch.randn(2, 12, 5)
    features, present = grid_regions(tokens, (4, 3), 4)
    plane = tokens.view(2, 4, 3, 5)
    torch.testing.assert_close(features[:, 0], plane[:, :2, :2].mean((1, 2)))
    assert present.all()
    assert grid_regions(tokens, (4, 3), 100)[0].shape == (2, 12, 5)
    mask = torch.tensor([[1] * 12, [1] * 5 + [0] * 7])
    features, present = span_regions(tokens, mask, 5)
    assert present.tolist() == [[True, True, True], [True, False, False]]
    torch.testing.assert_close(features[0, 2], tokens[0, 10:].mean(0))
    torch.testing.assert_close(features[1, 0], tokens[1, :5].mean(0))
    assert (features[1, 1:] == 0).all()


def test_centroids_follow_a_turn_and_stay_without_members():
    points, _ = make_blobs(200, centers=[[5.0, 0.0], [0.0, 5.0]], cluster_std=0.2, random_state=0)
    unit = F.normalize(torch.as_tensor(points), dim=1)
    start = F.normalize(torch.tensor([[1.0, 0.4], [0.3, 1.0], [-1.0, -1.0]], dtype=torch.float64), dim=1)
    moved = follow_centroids(unit, start)
    torch.testing.assert_close(moved[:2], torch.eye(2, dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(moved[2], start[2])


def step(head, labels, memory, **options):
    state = AIFSState(3)
    state.update(memory=memory)
    return StepContext(
        head=head, state=state, labels=labels, index=torch.arange(len(labels)), generator=torch.Generator(),
        draw=lambda width, kind: torch.zeros(len(labels), width), step=0, **options,
    )  # fmt: skip


def test_loss_equals_numpy():
    torch.manual_seed(0)
    head, tokens, labels = nn.Linear(3, 2), torch.randn(4, 4, 3), torch.tensor([0, 1, 1, 0])
    memory = torch.tensor([[1.0, 0.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    tokens[3] = torch.tensor([2.0, 0.1, 0.0])  # every region of this example is spurious
    method = make("ravl", method_options={"region_weight": 0.7, "uniform_weight": 0.3})
    z = tokens.mean(1)
    terms = method.loss(LatentOutput(z, head(z)), labels, step(head, labels, memory, tokens=tokens, token_grid=(2, 2)))
    inside = nearest_cluster(tokens, memory[:, :3]).numpy() == 0
    assert inside[3].all()
    assert inside[:3].any()
    assert not inside[:3].all(1).any()
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()

    def log_p(features):
        logits = features @ weight.T + bias
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    parts = tokens.numpy()
    kept = np.stack([parts[i][~inside[i]].mean(0) for i in range(3)])
    expected = -log_p(kept)[np.arange(3), labels[:3].numpy()].mean()
    assert terms["regions"].item() == pytest.approx(0.7 * expected, rel=1e-5)
    kl = -np.log(2) - log_p(parts[inside]).mean(1)
    assert terms["uniform"].item() == pytest.approx(0.3 * kl.mean(), rel=1e-5)
    assert terms["cross_entropy"].item() == pytest.approx(F.cross_entropy(head(z), labels).item())


def test_plain_training_before_discovery_and_when_nothing_was_found():
    head, labels, z = nn.Linear(3, 2), torch.tensor([0, 1]), torch.randn(2, 3)
    method = make("ravl")
    for memory in (torch.zeros(0), torch.tensor([[1.0, 0.0, 0.0, 0.0]])):
        assert set(method.loss(LatentOutput(z, head(z)), labels, step(head, labels, memory))) == {"cross_entropy"}


def test_held_out_examples_are_left_out_until_discovery():
    labels = torch.arange(200) % 2
    method, state = make("ravl"), AIFSState(3)
    context = EpochContext(nn.Linear(3, 2), state, 2, False, torch.device("cpu"), labels=labels, seed=5)
    plan = method.sampling(labels, context)
    out = stratified_rows(labels, 0.2, 5)
    assert torch.equal(plan.weights == 0, out)
    assert torch.bincount(labels[out]).tolist() == [20, 20]
    state.update(memory=torch.zeros(1, 4))
    assert method.sampling(labels, context) is None
    assert stratified_rows(torch.tensor([0, 0, 1]), 0.5, 0).sum() == 1  # a class of one example keeps it


def patches(n, aligned, seed=0):
    """Four patches: a noisy class signal in the first, a clear attribute in the last, noise in between."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(n):
        label = i % 2
        attribute = label if float(torch.rand(1, generator=generator)) < aligned else 1 - label
        image = torch.randn(3, 8, 8, generator=generator) * 0.3
        image[1, :4, :4] += 3.0 * (label - 0.5) + float(torch.randn(1, generator=generator))
        image[0, 4:, 4:] += 8.0 * (attribute - 0.5)
        out.append({"pixel_values": image, "label": label, "group": 2 * label + attribute})
    return out


def local_clip():
    """A tiny CLIP whose patches do not look at each other, so that regions hold what is drawn in them."""
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**tower, "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**tower, "image_size": 8, "patch_size": 4, "initializer_factor": 8.0}
    model = CLIPForImageClassification(CLIPConfig(vision_config=vision, text_config=text))
    for name, parameter in model.named_parameters():
        if "out_proj" in name:
            nn.init.zeros_(parameter)
    return model


def train(folder, model, data, method="ravl", *, lora=False, evaluation=None, epochs=6, **options):
    nested = LoraConfig(target_modules=["q_proj", "v_proj"] if lora is True else lora, r=2) if lora else None
    wrapped = get_peft_model(model, AIFSConfig.paper(head="linear", num_labels=2, encoder_adapter=nested))
    args = AIFSTrainingArguments(
        output_dir=str(folder), method=method, method_options=options, num_train_epochs=epochs, learning_rate=3e-2,
        per_device_train_batch_size=20, use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1000, seed=3,
    )  # fmt: skip
    trainer = AIFSTrainer(wrapped, args, train_dataset=data, eval_dataset=evaluation)
    trainer.train()
    return trainer


def worst_group(trainer, data):
    right = trainer.predict(data).predictions.argmax(1) == np.array([row["label"] for row in data])
    groups = np.array([row["group"] for row in data])
    return min(right[groups == g].mean() for g in range(4))


def found_numbers(trainer):
    return next(row for row in trainer.state.log_history if "region_clusters" in row)


def test_planted_region_is_found_and_unlearned(tmp_path):
    data, test = patches(400, 0.95), patches(400, 0.5, seed=9)
    plain = train(tmp_path, local_clip(), data, "erm", epochs=12)
    ravl = train(tmp_path, local_clip(), data, epochs=12, cells=4, region_weight=1.0, uniform_weight=1.0, warmup=3)
    assert found_numbers(ravl)["spurious_region_clusters"] >= 1
    assert worst_group(plain, test) < 0.5
    assert worst_group(ravl, test) > 0.7


def test_same_seed_same_run(tmp_path):
    runs = [train(tmp_path, local_clip(), patches(120, 0.9), epochs=3, cells=4) for _ in range(2)]
    assert torch.equal(runs[0].layer.head.weight, runs[1].layer.head.weight)
    assert torch.equal(runs[0].layer.state.memory, runs[1].layer.state.memory)


def test_trained_encoder_and_validation_source(tmp_path):
    trainer = train(
        tmp_path, local_clip(), patches(160, 0.9), lora=True, evaluation=patches(120, 0.5, seed=2), epochs=3, cells=4,
        source="validation",
    )  # fmt: skip
    assert found_numbers(trainer)["region_clusters"] >= 4
    if found_numbers(trainer)["spurious_region_clusters"]:
        assert any("region_clusters_cosine" in row for row in trainer.state.log_history)


def sentences(n, seed=0):
    """A class word early, a loud word later that agrees with it nine times in ten; of different lengths."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = i % 2
        attribute = label if rng.random() < 0.9 else 1 - label
        length = int(rng.integers(14, 21))
        ids = np.full(20, 1)
        ids[:length] = rng.integers(20, 39, length)
        ids[0], ids[2], ids[9:13] = 0, 10 + label, 15 + attribute
        rows.append(
            {
                "input_ids": torch.as_tensor(ids),
                "attention_mask": torch.as_tensor((np.arange(20) < length).astype(int)),
                "label": label,
                "group": 2 * label + attribute,
            }
        )
    return rows


def test_texts(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = RobertaForSequenceClassification(RobertaConfig(vocab_size=40, max_position_embeddings=30, **sizes))
    trainer = train(tmp_path, model, sentences(160), lora=["query", "value"], epochs=3)
    assert found_numbers(trainer)["region_clusters"] >= 4
    assert trainer.layer.state.memory.shape[1] == 17


def test_training_that_ends_in_the_warm_up_says_so(tmp_path, caplog):
    trainer = train(tmp_path, local_clip(), patches(40, 0.9), epochs=1, warmup=2)
    assert trainer.layer.state.memory.numel() == 0
    assert "never looked for spurious regions" in caplog.text


def test_refusals(tmp_path):
    with pytest.raises(InvalidConfigError, match="not defined on precomputed latents"):
        fit_on_latents("ravl", torch.randn(8, 3), torch.arange(8) % 2, num_labels=2)
    mobilenet = MobileNetV2ForImageClassification(MobileNetV2Config(image_size=32, depth_multiplier=0.25))
    with pytest.raises(InvalidConfigError, match="reads the encoder's patch or token features"):
        train(tmp_path, mobilenet, patches(20, 0.9))
    with pytest.raises(InvalidConfigError, match="needs a validation set"):
        train(tmp_path, local_clip(), patches(20, 0.9), source="validation")
    method = make("ravl")
    with pytest.raises(InvalidConfigError, match="train with AIFSTrainer on a transformer"):
        method.end_of_epoch(None, EpochContext(nn.Linear(3, 2), AIFSState(3), 2, False, torch.device("cpu"), epoch=2))
    for options, message in (
        ({"region_weight": -1}, "region_weight must be"),
        ({"cells": 1}, "cells must be"),
        ({"holdout": 0.9}, "holdout must be"),
        ({"min_influence": 2}, "min_influence must be"),
        ({"source": "test"}, "source must be one of 'train'"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            make("ravl", method_options=options)
    method.check(Setup(nn.Linear(3, 2), False, 2, tokens=True))


def test_region_store_refuses_nan_and_drops_repeats():
    from aifs_peft.training.latents import RegionStore
    from aifs_peft.training.processes import Processes

    store = RegionStore()
    for rows, width in (([4, 1], 3), ([1, 0], 2)):
        index = torch.tensor(rows)
        features = index.float()[:, None, None].expand(2, width, 5)
        store.add(index, torch.zeros(2, 5), features, torch.ones(2, width, dtype=torch.bool), index % 2)
    regions = store.gather(Processes(), dim=5)
    assert isinstance(regions, Regions)
    assert regions.index.tolist() == [0, 1, 4]
    assert regions.present.sum(1).tolist() == [2, 3, 3]
    assert regions.features[2, 0, 0] == 4
    store.add(
        torch.tensor([7]),
        torch.zeros(1, 5),
        torch.full((1, 2, 5), torch.nan),
        torch.ones(1, 2).bool(),
        torch.tensor([0]),
    )
    with pytest.raises(NonFiniteError, match="token features are NaN"):
        store.gather(Processes(), dim=5)
