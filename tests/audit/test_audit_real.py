"""A real encoder's latents of real images: MNIST digits above CIFAR cars and trucks, as `dominoes_latents` has them."""

import numpy as np
import pytest

from aifs_peft import audit
from aifs_peft.audit import infer_groups


@pytest.fixture(scope="module")
def dominoes(shared_dir):
    def draw(part, n, aligned, seed=0):
        with np.load(shared_dir / "data" / "dominoes_latents" / f"{part}.npz") as file:
            z, y = file["z"][:n], file["y"][:n].astype(np.int64)
        digit = np.where(np.random.default_rng(seed).random(n) < aligned, y, 1 - y)
        return z[np.arange(n), digit].astype(np.float32), y, digit

    return draw


def test_the_digit_is_found_listed_and_named(dominoes):
    Z, y, digit = dominoes("train", 2000, 0.95)
    metadata = {"digit": digit, "noise": np.random.default_rng(1).integers(0, 3, 2000)}
    result = audit(Z, y, metadata=metadata, class_names=["automobile", "truck"])
    rows, true = set(result.conflicting["row"]), set(np.flatnonzero(digit != y))
    assert len(rows & true) / len(rows) >= 0.95
    assert len(rows & true) / len(true) >= 0.95
    assert result.evidence_words == "strong"
    assert result.associations["significant"].tolist() == [True, False]
    assert result.associations["column"][0] == "digit"
    assert result.harm.leans
    assert result.harm.conflicting.accuracy < 0.5 < 0.9 < result.harm.aligned.accuracy
    for aligned in (0.95, 0.5):
        held_Z, held_y, held_digit = dominoes("test", 500, aligned, seed=2)
        assert np.mean(infer_groups(result.discovery, held_Z, held_y) == held_digit) > 0.96


def test_without_the_shortcut_nothing_is_found(dominoes):
    Z, y, _ = dominoes("train", 1500, 0.5)
    result = audit(Z, y)
    assert not result.found
    assert "In 1,200 simulated examples of 2 classes in 256 dimensions" in result.looked_at["detectable_sentence"]
