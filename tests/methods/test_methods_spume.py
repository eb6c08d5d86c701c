"""SPUME: scores, tasks and the centroid loss by hand; a planted shortcut; refusals."""

import doctest
import importlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError
from aifs_peft.methods import EpochContext, MethodSettings, StepContext, make
from aifs_peft.methods.attributes.spume_tasks import (
    UNKNOWN,
    centroid_loss,
    class_pools,
    cluster_attributes,
    pair_weights,
    spuriousness,
    task_order,
    tasks_of,
)
from aifs_peft.methods.common.last_linear import embed_all, last_features, last_linear
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSState, LatentOutput

SCHEDULE = LatentSchedule(epochs=20, batch_size=120, learning_rate=5e-3)


@pytest.mark.parametrize("name", ["attributes.spume", "attributes.spume_tasks", "common.last_linear"])
def test_examples_run(name):
    module = importlib.import_module(f"aifs_peft.methods.{name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def planted(n=1200, seed=0, aligned=0.95):
    """A weak class direction, a strong attribute that agrees with the class, eight directions of noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    a = torch.where(torch.rand(n, generator=generator) < aligned, y, 1 - y)
    Z = torch.randn(n, 10, generator=generator)
    Z[:, 0] += 2.5 * (y - 0.5)
    Z[:, 1] += 6.0 * (a - 0.5)
    return Z, y, a


def vocabulary(a, seed=0):
    """The attribute, its negation and two words that mean nothing."""
    noise = torch.randint(0, 2, (len(a), 2), generator=torch.Generator().manual_seed(seed))
    return {"attributes": torch.cat([torch.stack([a, 1 - a], 1), noise], 1)}


def worst_group(head, Z, y, a):
    correct = (head(Z).argmax(1) == y).float()
    return min(float(correct[(y == i) & (a == j)].mean()) for i in (0, 1) for j in (0, 1))


def prepared(method, head, **options):
    options = {"batch_size": 8, "num_labels": 2, "encoder_trains": False, **options}
    method.prepare(EpochContext(head=head, state=AIFSState(3), device=torch.device("cpu"), **options))
    return method


def step(head, labels):
    return StepContext(
        head=head,
        state=AIFSState(3),
        labels=labels,
        index=torch.arange(len(labels)),
        generator=torch.Generator(),
        draw=lambda width, kind: torch.zeros(len(labels), width),
        step=0,
    )


def test_spuriousness_equals_its_definition():
    rng = np.random.default_rng(0)
    correct, labels = rng.random(200) < 0.7, rng.integers(0, 3, 200)
    have = rng.integers(0, 2, (200, 5))
    have[labels == 1, 0] = 1  # every example of class 1: nothing to compare
    correct[labels == 2] = False  # both accuracies 0
    got = spuriousness(torch.as_tensor(correct), torch.as_tensor(labels), torch.as_tensor(have), 4)
    for c in range(3):
        for v in range(5):
            with_it = correct[(labels == c) & (have[:, v] == 1)]
            without = correct[(labels == c) & (have[:, v] == 0)]
            if not len(with_it) or not len(without):
                expected = UNKNOWN
            elif with_it.mean() == without.mean() == 0:
                expected = 0.0
            else:
                expected = abs(math.tanh(math.log(with_it.mean() / without.mean())))
            assert float(got[c, v]) == pytest.approx(expected), (c, v)
    assert (got[3] == UNKNOWN).all()


def test_an_attribute_that_decides_scores_one():
    correct, have = torch.tensor([True, False]), torch.tensor([[1], [0]])
    assert spuriousness(correct, torch.zeros(2, dtype=torch.long), have, 1).tolist() == [[1.0]]


def test_pairs_are_drawn_as_rejection_would_draw_them():
    scores = torch.tensor([0.9, 0.1, 0.5, UNKNOWN])
    possible = ~np.eye(4, dtype=bool)
    possible[0, 1] = possible[1, 0] = False
    weights = pair_weights(scores, possible)
    single = np.array([0.8 + 1e-10, 1e-10, 0.4 + 1e-10, 0.0])
    expected = np.outer(single, single) * possible
    np.testing.assert_allclose(weights, expected / expected.sum())
    assert pair_weights(torch.full((4,), UNKNOWN), possible).sum() == 0
    assert pair_weights(scores, np.zeros((4, 4), dtype=bool)).sum() == 0


@pytest.mark.parametrize("batch", [8, 21, 40])
def test_tasks_hold_what_they_say(batch):
    _, y, a = planted(200)
    have = torch.stack([a, 1 - a], 1)
    scores = torch.ones(2, 2, dtype=torch.float64)
    order = task_order(class_pools(y, have), scores, draws=200, batch=batch, shots=5, rng=np.random.default_rng(0))
    assert order.shape == (200,)
    for block in order.split(batch):
        place = torch.arange(len(block))
        task = tasks_of(place, len(block), 2, 5)
        for t in task.unique():
            for c in (0, 1):
                inside = (task == t) & (y[block] == c)
                even, odd = (a[block[inside & (place % 2 == side)]] for side in (0, 1))
                assert len(even) >= 1
                assert len(even.unique()) == 1
                if len(odd):
                    assert odd.unique().tolist() == [1 - int(even[0])]
        assert (y[block[0 : len(block) // 2 * 2 : 2]] == y[block[1 : len(block) // 2 * 2 : 2]]).all()


def test_a_class_without_a_possible_pair_still_gives_examples():
    y, have = torch.tensor([0, 0, 1, 1]), torch.tensor([[1, 1], [1, 1], [1, 0], [0, 1]])
    scores = spuriousness(torch.tensor([True, False, True, False]), y, have, 2)
    order = task_order(class_pools(y, have), scores, draws=40, batch=8, shots=2, rng=np.random.default_rng(0))
    assert set(order.tolist()) == {0, 1, 2, 3}


def test_centroid_loss_equals_numpy():
    rng = np.random.default_rng(1)
    embedding, labels = rng.normal(size=(17, 4)), np.arange(17) // 2 % 2
    shots, temperature = 2, 5.0
    total = []
    tasks = np.minimum(np.arange(17) // 2, 7) * 2 // 8  # 8 pairs, room for 2 tasks of 2 x 2 pairs
    for i in range(1, 17, 2):
        cosines = []
        for c in (0, 1):
            support = embedding[(tasks == tasks[i]) & (np.arange(17) % 2 == 0) & (labels == c)]
            mu = support.mean(0)
            cosines.append(mu @ embedding[i] / np.linalg.norm(mu) / np.linalg.norm(embedding[i]))
        logits = temperature * np.array(cosines)
        total.append(np.log(np.exp(logits).sum()) - logits[labels[i]])
    got = centroid_loss(torch.as_tensor(embedding), torch.as_tensor(labels), 2, shots, temperature)
    assert float(got) == pytest.approx(np.mean(total))


def test_centroid_loss_without_queries_and_without_a_class():
    embedding = torch.randn(1, 3, requires_grad=True)
    loss = centroid_loss(embedding, torch.tensor([0]), 2, 1, 1.0)
    assert float(loss.detach()) == 0
    loss.backward()
    one_class = centroid_loss(torch.randn(4, 3), torch.zeros(4, dtype=torch.long), 2, 1, 1.0)
    assert float(one_class) == 0  # the absent class has no centroid to be confused with


def test_the_head_decides_as_the_cosine_does():
    Z, y, a = planted(400)
    fit = fit_on_latents("spume", Z, y, num_labels=2, schedule=SCHEDULE, columns=vocabulary(a))
    embedding = embed_all(fit.head, Z, torch.device("cpu"))
    centroids = torch.stack([embedding[y == c].mean(0) for c in (0, 1)])
    cosine = torch.cosine_similarity(embedding[:, None], centroids[None], dim=2)
    assert torch.equal(fit.head(Z).argmax(1), cosine.argmax(1))
    logits = last_linear(fit.head)(embedding)
    scale = logits / cosine
    torch.testing.assert_close(scale.mean(1), scale[:, 0], rtol=1e-3, atol=1e-3)
    assert float(scale.mean()) == pytest.approx(10.0, rel=0.02)


def test_planted_shortcut_with_words_and_with_clusters():
    Z, y, a = planted()
    test = planted(4000, seed=9, aligned=0.5)
    worst = {
        name: worst_group(fit_on_latents(method, Z, y, num_labels=2, schedule=SCHEDULE, columns=columns).head, *test)
        for name, method, columns in (
            ("erm", "erm", None),
            ("words", "spume", vocabulary(a)),
            ("clusters", "spume", None),
        )
    }
    assert worst["erm"] < 0.35
    assert worst["words"] > 0.75
    assert worst["clusters"] > worst["erm"] + 0.1


def test_same_seed_same_result():
    Z, y, a = planted(240)
    heads = []
    for seed in (3, 3, 4):
        settings = MethodSettings.for_method("spume", seed=seed)
        fit = fit_on_latents("spume", Z, y, num_labels=2, schedule=SCHEDULE, columns=vocabulary(a), settings=settings)
        heads.append(fit.head(Z))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_head_variant_is_the_loss_on_queries():
    head = nn.Linear(3, 2)
    method = prepared(make("spume"), head)
    z, labels = torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 0])
    terms = method.loss(LatentOutput(z, head(z)), labels, step(head, labels))
    assert set(terms) == {"cross_entropy"}
    torch.testing.assert_close(terms["cross_entropy"], nn.functional.cross_entropy(head(z[1::2]), labels[1::2]))


def test_readout_does_not_move_the_embedding():
    head = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    method = prepared(make("spume"), head)
    z, labels = torch.randn(8, 3), torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    terms = method.loss(LatentOutput(z, head(z)), labels, step(head, labels))
    terms["readout"].backward()
    assert head[0].weight.grad is None
    assert head[2].weight.grad.abs().sum() > 0
    terms["cross_entropy"].backward()
    assert head[0].weight.grad.abs().sum() > 0


def test_clusters_are_deterministic_and_survive_duplicates():
    z, labels = torch.randn(40, 3), torch.arange(40) % 2
    z[labels == 1] = 1.0
    codes = cluster_attributes(z, labels, 4, seed=0)
    assert torch.equal(codes, cluster_attributes(z, labels, 4, seed=0))
    assert codes[labels == 0].unique().tolist() == [0, 1, 2, 3]
    assert codes[labels == 1].unique().tolist() == [4]


def test_refusals():
    head = nn.Linear(3, 2)
    method = make("spume")
    with pytest.raises(InvalidConfigError, match="at least 4 for 2 classes, got 3"):
        prepared(method, head, batch_size=3)
    for column, message in (
        (torch.tensor([0, 1]), "must hold a list of 0 and 1"),
        (torch.tensor([[0, 2]]), r"values in \[0, 2\]"),
        (torch.zeros(2, 2049, dtype=torch.long), "too many"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            prepared(method, head, columns={"attributes": column})
    for options, message in (
        ({"temperature": 0}, "temperature must be"),
        ({"shots": 0}, "shots must be"),
        ({"clusters": 1}, "clusters must be"),
        ({"attributes": "words"}, "attributes must be one of 'auto'"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            make("spume", method_options=options)
    Z, y, _ = planted(40)
    settings = MethodSettings.for_method("spume", method_options={"attributes": "column"})
    with pytest.raises(InvalidConfigError, match="reads 'attributes' of every training example"):
        fit_on_latents("spume", Z, y, num_labels=2, settings=settings)
    blind = EpochContext(head, AIFSState(3), 2, False, torch.device("cpu"), batch_size=8)
    method.prepare(blind)
    with pytest.raises(InvalidConfigError, match="it needs `encode`"):
        method.end_of_epoch(None, blind)
    with pytest.raises(HeadError, match="without a linear layer"):
        last_linear(nn.Tanh())


def test_embedding_leaves_no_hook_and_keeps_modes():
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 4), nn.Linear(4, 2))
    assert torch.equal(embed_all(head, torch.ones(2, 3), torch.device("cpu")), head[1](torch.ones(2, 3)))
    assert head[0].training
    last_features(head, torch.ones(2, 3))
    assert not head[2]._forward_pre_hooks
