"""The contrastive loss against CLIP's own, and what moving pairs along an attribute does."""

import pytest
import torch
from open_clip_alone import import_open_clip
from torch.nn import functional as F

from aifs_peft.latent.contrastive import contrastive_loss, mirrored


def test_it_is_the_loss_of_clip():
    z, t = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    theirs = import_open_clip().ClipLoss()(F.normalize(z, dim=-1), F.normalize(t, dim=-1), torch.tensor(7.0))
    assert float(contrastive_loss(z, t, 7.0)) == pytest.approx(float(theirs), rel=1e-5)


def test_the_same_text_twice_is_true_for_both_images():
    z = torch.eye(3)
    t = torch.stack([z[0] + z[1], z[0] + z[1], z[2]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    swapped = torch.tensor([1, 0, 2])
    # Which of the two equal texts belongs to which image cannot matter.
    assert float(contrastive_loss(z, t, 5.0, same)) == pytest.approx(float(contrastive_loss(z[swapped], t, 5.0, same)))
    assert float(contrastive_loss(z, t, 50.0, same)) == pytest.approx(float(2 / 3 * torch.tensor(2.0).log()), abs=1e-4)


def planted(n=400, seed=0):
    """A class along the first axis, an attribute along the second, noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=generator)
    a = torch.where(torch.rand(n, generator=generator) < 0.8, y, 1 - y)
    z = 0.1 * torch.randn(n, 6, generator=generator)
    z[:, 0] += 2.0 * y
    z[:, 1] += 3.0 * a
    return z, y, a


def test_moved_latents_have_the_other_value_and_the_same_class():
    z, y, a = planted()
    moved = mirrored(z, y, a)
    for value in (0, 1):
        own, other = moved[a == value], z[a == 1 - value]
        assert float((own[:, 1].mean() - other[:, 1].mean()).abs()) < 0.05
    torch.testing.assert_close(moved[:, 0], z[:, 0], atol=0.15, rtol=0)
    # Twice is back.
    torch.testing.assert_close(mirrored(moved, y, 1 - a), z, atol=0.05, rtol=0)


def test_texts_that_do_not_name_the_value_stay():
    z, y, a = planted()
    named = torch.arange(len(z)) % 2 == 0
    z[~named, 1] = 1.5 + 0.01 * z[~named, 2]  # in the middle: no value is told
    moved = mirrored(z, y, a)
    torch.testing.assert_close(moved[~named, 1], z[~named, 1], atol=0.2, rtol=0)
    assert float((moved[named] - z[named])[:, 1].abs().min()) > 2


def test_where_no_direction_can_be_estimated_nothing_moves():
    z, y, a = planted(40)
    assert torch.equal(mirrored(z, y, torch.zeros_like(a)), z)
    assert torch.equal(mirrored(z, y, y), z)  # no class has both values
    assert mirrored(z[:0], y[:0], a[:0]).shape == (0, 6)


def test_a_third_value_stays_and_no_gradient_reaches_the_direction():
    z, y, a = planted()
    a[:5] = 2
    z.requires_grad_()
    moved = mirrored(z, y, a)
    assert torch.equal(moved[:5], z[:5])
    moved.sum().backward()
    # A reflection: the gradient of each row is that of its own move alone.
    unit = F.normalize((z - moved)[10].detach(), dim=0)
    torch.testing.assert_close(z.grad[10], 1 - 2 * unit.sum() * unit, atol=1e-4, rtol=1e-4)


def test_classes_weigh_by_how_precise_their_difference_is():
    y = torch.tensor([0] * 4 + [1] * 40)
    a = torch.tensor([0, 0, 1, 1] + [0, 1] * 20)
    z = torch.zeros(44, 2)
    z[:4, 0] = 2.0 * a[:4]  # the small class has its difference along the first axis, the large one along the second
    z[4:, 1] = 2.0 * a[4:]
    direction = (mirrored(z, y, a) - z)[-1]
    # Precisions n m / (n + m) of 1 and 10.
    assert float(direction[0] / direction[1]) == pytest.approx(1 / 10, rel=1e-4)
