"""RSC: what is muted against NumPy, which part of the batch, two processes, and what it does to a planted shortcut."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batches import step_context
from planted import planted
from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import MLPHead
from aifs_peft.methods import MethodSettings, make
from aifs_peft.methods.regularisers.rsc import dominant_features
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import LatentOutput


def built(**options):
    return make("rsc", method_options=options)


def softmax(logits):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def muted_by_hand(head, z, y, share, batch_share):
    """The published steps for a linear head, whose gradient is the weight of the class, in NumPy."""
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    rows = np.arange(len(z))
    order = np.argsort(-weight[y], axis=1)[:, : round(share * z.shape[1])]
    keep = np.ones_like(z)
    np.put_along_axis(keep, order, 0.0, axis=1)
    fall = softmax(z @ weight.T + bias)[rows, y] - softmax((z * keep) @ weight.T + bias)[rows, y]
    hardest = np.argsort(-fall)[: round(batch_share * len(z))]
    out = z.copy()
    out[hardest] *= keep[hardest]
    return out


@pytest.mark.parametrize(("share", "batch_share"), [(1 / 3, 1 / 3), (0.5, 1.0)])
def test_muted_latents_and_loss_equal_the_published_steps(share, batch_share):
    torch.manual_seed(0)
    head, z, y = nn.Linear(6, 3), torch.randn(9, 6), torch.arange(9) % 3
    method = built(feature_share=share, batch_share=batch_share)
    context = step_context(head, y)
    moved = method.intervention(context)(z)
    expected = muted_by_hand(head, z.numpy(), y.numpy(), share, batch_share)
    np.testing.assert_array_equal(moved.numpy(), expected.astype(np.float32))
    terms = method.loss(LatentOutput(z, head(z), moved, head(moved)), y, context)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(head(torch.tensor(expected)), y))
    assert set(terms) == {"cross_entropy"}


def test_gradients_of_a_nonlinear_head_and_no_side_effects():
    head = MLPHead(5, 2, (4,), "tanh", dropout=0.5, generator=torch.Generator().manual_seed(1))
    z, y = torch.randn(3, 5), torch.tensor([0, 1, 1])
    before = torch.random.get_rng_state()
    mask, _ = dominant_features(head, z, y, 0.2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert head.training
    assert all(p.grad is None for p in head.parameters())
    step, quiet = 1e-3, head.eval()
    slopes = torch.stack(
        [
            (quiet(z + step * e) - quiet(z - step * e)).detach().gather(1, y[:, None]).squeeze(1) / (2 * step)
            for e in torch.eye(5)
        ],
        dim=1,
    )
    assert torch.equal(mask.int().argmax(1), slopes.argmax(1))
    assert mask.sum(1).tolist() == [1, 1, 1]


def test_gradients_reach_the_encoder_through_what_is_not_muted():
    torch.manual_seed(0)
    head, y = nn.Linear(6, 2), torch.tensor([0, 1])
    z = torch.randn(2, 6, requires_grad=True)
    moved = built(batch_share=1.0).intervention(step_context(head, y))(z)
    moved.sum().backward()
    assert torch.equal(z.grad, (moved != 0).float())
    assert (moved == 0).sum(1).tolist() == [2, 2]


def test_two_processes_mute_what_one_does():
    torch.manual_seed(0)
    head, z, y = nn.Linear(6, 2), torch.randn(12, 6), torch.arange(12) % 2
    method = built()
    whole = method.intervention(step_context(head, y))(z)
    _, falls = dominant_features(head, z, y, 1 / 3)
    halves = [
        method.intervention(step_context(head, y[r], rank=i, world_size=2, gather=lambda x: falls))(z[r])
        for i, r in enumerate((slice(0, 6), slice(6, 12)))
    ]
    assert torch.equal(torch.cat(halves), whole)


def test_options_are_checked():
    with pytest.raises(InvalidConfigError, match="feature_share must be"):
        built(feature_share=0)
    with pytest.raises(InvalidConfigError, match="batch_share must be"):
        built(batch_share=1.5)


def test_weights_are_more_even_than_under_plain_training():
    """The paper's claim: more features are used, here beside one dominant coordinate."""
    z, y, _ = planted(n=1000, core=1.0, core_dims=12, shortcut_dims=1)
    schedule = LatentSchedule(epochs=20, learning_rate=1e-2)
    settings = MethodSettings.for_method("rsc", method_options={"feature_share": 0.07, "batch_share": 0.5})

    def weights(method, settings=None):
        fit = fit_on_latents(method, z, y, num_labels=2, settings=settings, schedule=schedule)
        return (fit.head.weight[1] - fit.head.weight[0]).abs()

    plain, challenged = weights("erm"), weights("rsc", settings)
    assert int(plain.argmax()) == 12
    assert float(challenged.max() / challenged.mean()) < 0.9 * float(plain.max() / plain.mean())
    assert torch.equal(challenged, weights("rsc", settings))
