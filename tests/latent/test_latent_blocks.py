"""Several latents side by side: each gets the same total variance, and keeps its precision."""

import pytest
import torch

from aifs_peft.errors import InvalidInputError
from aifs_peft.latent.blocks import ScaledBlocks


def parts(n=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        100.0 + 40.0 * torch.randn(n, 30, generator=generator),
        0.01 * torch.randn(n, 2, generator=generator),
        torch.randn(n, 8, generator=generator) - 3.0,
    ]


def fitted():
    blocks = ScaledBlocks([30, 2, 8])
    blocks.fit(torch.cat(parts(), 1))
    return blocks


def test_each_block_gets_the_same_total_variance_and_dimensions_one_on_average():
    z = fitted()(parts())
    totals = [part.var(0, correction=0).sum().item() for part in z.split([30, 2, 8], dim=1)]
    assert totals == pytest.approx([40 / 3] * 3, rel=1e-4)
    assert z.var(0, correction=0).mean().item() == pytest.approx(1.0, rel=1e-4)
    assert z.mean(0).abs().max() < 1e-4


def test_unfitted_the_latents_are_joined_as_they_are():
    blocks = ScaledBlocks([30, 2, 8])
    assert not blocks.fitted
    assert torch.equal(blocks(parts()), torch.cat(parts(), 1))


def test_a_block_that_never_varies_is_not_blown_up():
    constant = torch.full((50, 3), 7.0)
    blocks = ScaledBlocks([3, 2])
    blocks.fit(torch.cat([constant, torch.randn(50, 2)], 1))
    z = blocks([constant + 1e-3, torch.zeros(50, 2)])
    assert z[:, :3].abs().max() < 2e-3
    blocks.fit(torch.full((50, 5), 7.0))  # nothing varies at all
    assert bool(blocks.scale.isfinite().all())


def test_statistics_stay_in_full_precision_and_are_saved():
    blocks = fitted()
    half = fitted().to(torch.bfloat16)
    assert half.mean.dtype == torch.float32
    assert torch.equal(half.mean, blocks.mean)
    again = ScaledBlocks([30, 2, 8])
    again.load_state_dict(blocks.state_dict())
    assert again.fitted
    assert torch.equal(again(parts(seed=1)), blocks(parts(seed=1)))
    low = blocks([part.to(torch.float16) for part in parts()])
    assert low.dtype == torch.float32


@pytest.mark.parametrize("widths", [[], [0], [3, -1]])
def test_widths_must_be_positive(widths):
    with pytest.raises(InvalidInputError, match="widths of the latents must be at least 1"):
        ScaledBlocks(widths)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidInputError, match=r"widths \[2, 30, 8\] were given; needed are \[30, 2, 8\]"):
        fitted()([parts()[1], parts()[0], parts()[2]])
    for wrong in (torch.zeros(5, 39), torch.zeros(1, 40), torch.full((5, 40), torch.nan)):
        with pytest.raises(InvalidInputError, match=r"finite latents of shape \(n, 40\)"):
            ScaledBlocks([30, 2, 8]).fit(wrong)
