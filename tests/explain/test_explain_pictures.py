"""Maps over pictures and words: complete, in the right place, drawn and escaped."""

import numpy as np
import pytest
import torch
from marked_scans import MARK

from aifs_peft.errors import InvalidInputError
from aifs_peft.explain import as_seen, choose_references, patch_maps, words_of
from aifs_peft.explain.render import levels, marked_html, overlay


def corner(pixels):
    """A score that reads one corner alone."""
    return (pixels[:, :, MARK[0], MARK[1]] ** 2).mean((1, 2, 3))


def test_the_map_lies_where_the_score_reads_and_adds_up() -> None:
    torch.manual_seed(0)
    pixels, references = torch.rand(3, 3, 32, 32), torch.rand(3, 2, 3, 32, 32)
    maps = patch_maps(corner, pixels, references, steps=16)
    assert maps.shape == (3, 8, 8)
    outside = maps.clone()
    outside[:, 6:, 5:] = 0
    assert float(outside.abs().max()) < 1e-6
    expected = corner(pixels) - torch.stack([corner(r) for r in references.unbind(1)]).mean(0)
    torch.testing.assert_close(maps.sum((1, 2)), expected, atol=1e-4, rtol=1e-3)


def test_without_references_the_mean_colour_stands_for_nothing() -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, MARK[0], MARK[1]] = 1
    maps = patch_maps(corner, pixels)
    assert maps[0, 6:, 5:].sum() / maps.clamp_min(0).sum() > 0.99


@pytest.mark.parametrize(("size", "grid"), [((224, 224), (14, 14)), ((32, 48), (8, 12)), ((2, 2), (1, 1))])
def test_the_grid_follows_the_picture(size, grid) -> None:
    assert patch_maps(lambda p: p.sum((1, 2, 3)), torch.rand(1, 1, *size)).shape[1:] == grid


def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(InvalidInputError, match=r"pixels must have shape"):
        patch_maps(corner, torch.zeros(3, 32, 32))
    with pytest.raises(InvalidInputError, match=r"references must have shape \(n=1, k, \*\(3, 32, 32\)\)"):
        patch_maps(corner, torch.zeros(1, 3, 32, 32), torch.zeros(2, 1, 3, 32, 32))


def test_references_share_the_group_and_not_the_value() -> None:
    groups, values = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 0, 0])
    chosen = choose_references(groups, values, np.arange(6), k=3)
    assert chosen.shape == (6, 3)
    assert set(chosen[0]) <= {1, 2}
    assert set(chosen[1]) == {0}
    assert set(chosen[3]) <= {1, 2}  # none in its own group
    assert choose_references(groups, np.zeros(6), np.arange(6)) is None


def test_pictures_come_back_as_they_were() -> None:
    class Processor:
        image_mean, image_std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]

    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    pixels = torch.as_tensor(picture / 255).permute(0, 3, 1, 2).float()
    normal = (pixels - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.2
    assert np.abs(as_seen(normal, Processor()).astype(int) - picture).max() <= 1
    assert as_seen(torch.rand(2, 1, 4, 4)).shape == (2, 4, 4, 3)


def test_what_speaks_against_is_not_coloured() -> None:
    picture = np.full((8, 8, 3), 100, dtype=np.uint8)
    drawn = np.asarray(overlay(picture, [[-1.0, 1.0], [-1.0, -1.0]], 32)).astype(int)
    redness = drawn[..., 0] - drawn[..., 2]
    assert redness[2, 29] > 100
    assert abs(redness[29, 2]) < 3
    none = np.asarray(overlay(picture, [[-1.0]], 32)).astype(int)
    assert np.ptp(none) <= 2


def test_words_are_escaped_and_ranked() -> None:
    assert marked_html([("<script>", 2.0), (" ", 0.0), ("x", -1.0)]).count("<mark") == 1
    assert "<script>" not in marked_html([("<script>", 2.0)])
    assert levels([]) == []
    assert levels([-1.0, 0.0]) == [0, 0]


def test_letters_of_several_tokens_stay_whole() -> None:
    class Bytes:
        """One token per byte, as byte-level tokenizers have for rare letters."""

        all_special_ids = (0,)

        def decode(self, ids, **_):
            return bytes(ids).decode("utf-8", errors="replace")

    ids = [0, *"a\u00e9 \u4e2d b".encode(), 0]
    scores = [9.0, *range(1, len(ids) - 1), 9.0]
    words = words_of(ids, scores, Bytes())
    assert "".join(text for text, _ in words) == "a\u00e9 \u4e2d b"
    told = [(text, score) for text, score in words if text.strip()]
    assert [text for text, _ in told] == ["a\u00e9", "\u4e2d", "b"]
    assert sum(score for _, score in told) == sum(scores[1:-1])
