"""Which part of what a model feeds its head is the latent."""

import pytest
import torch

from aifs_peft.errors import HeadError
from aifs_peft.latent.pooling import pool_latent

TOKENS = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [("auto", TOKENS[:, 0]), ("cls", TOKENS[:, 0]), ("last", TOKENS[:, 2]), ("mean", TOKENS.sum(1) / 3)],
)
def test_of_tokens(pool, expected):
    torch.testing.assert_close(pool_latent(TOKENS, pool), expected)


def test_of_maps_and_vectors():
    maps = torch.arange(16.0).reshape(2, 2, 2, 2)
    torch.testing.assert_close(pool_latent(maps), maps.sum((2, 3)) / 4)
    assert pool_latent(TOKENS[0]) is TOKENS[0] or torch.equal(pool_latent(TOKENS[0]), TOKENS[0])
    with pytest.raises(HeadError, match=r"\(4,\)"):
        pool_latent(torch.zeros(4))
