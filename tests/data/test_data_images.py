"""Pictures of every kind become 8-bit RGB in a defined way; damaged files are named."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from aifs_peft.data.images import damaged, read_images, stretched, to_rgb
from aifs_peft.data.preview import image_grid
from aifs_peft.errors import InvalidInputError

RAMP = np.arange(256).reshape(16, 16)
FRAMES = [Image.new("RGB", (2, 2), colour) for colour in ("#ff0000", "#0000ff")]


def _file(image: Image.Image, kind: str, **options: object) -> Image.Image:
    """The image as it comes back from a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return Image.open(buffer)


def _grey(values: np.ndarray) -> Callable[[], Image.Image]:
    return lambda: _file(Image.fromarray(values), "TIFF")


DEEP = {
    "16-bit, all of it": (_grey((RAMP * 257).astype(np.uint16)), RAMP),
    "16-bit, 12 bits used": (_grey((RAMP * 16).astype(np.uint16)), RAMP),
    "16-bit PNG": (lambda: _file(Image.fromarray((RAMP * 257).astype(np.uint16)), "PNG"), RAMP),
    "16-bit, big-endian": (lambda: Image.fromarray((RAMP * 257).astype(">u2")), RAMP),
    "32-bit": (_grey((RAMP * 100_000 - 7).astype(np.int32)), RAMP),
    "32-bit that holds 8": (_grey(RAMP.astype(np.int32)), RAMP),
    "float in [0, 1]": (_grey((RAMP / 255).astype(np.float32)), RAMP),
    "float in [-1000, 3000]": (_grey((RAMP / 255 * 4000 - 1000).astype(np.float32)), RAMP),
    "constant": (_grey(np.full((4, 4), 40_000, np.uint16)), np.zeros((4, 4))),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_is_stretched_by_its_own_range(name: str) -> None:
    make, wanted = DEEP[name]
    image = make()
    assert image.mode in ("I;16", "I;16B", "I", "F")
    rgb = np.asarray(to_rgb(image))
    assert rgb.dtype == np.uint8
    assert np.abs(rgb - wanted[..., None]).max() <= 1


@given(
    hnp.arrays(
        st.sampled_from([np.int32, np.uint16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    )
)
def test_a_stretch_keeps_the_order_and_uses_the_whole_range(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        with pytest.raises(InvalidInputError, match="NaN or infinite"):
            stretched(values)
        return
    grey = stretched(values).ravel().astype(int)
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(grey[order]) >= 0).all()
    if len(np.unique(values)) > 1 and values.max() / 2 - values.min() / 2 > 0:
        assert (grey.min(), grey.max()) == (0, 255)


def _palette() -> Image.Image:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return image


def _exif() -> Image.Image:
    image = Image.new("RGB", (4, 2), "#ff0000")
    image.putpixel((0, 0), (0, 0, 255))
    orientation = Image.Exif()
    orientation[0x112] = 6  # to be turned by 90 degrees clockwise
    return _file(image, "PNG", exif=orientation)


def _moved(kind: str) -> Image.Image:
    image = _file(
        FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    image.seek(1)
    return image


RED, WHITE = (255, 0, 0), (255, 255, 255)
TREATED = {
    "black and white": (lambda: Image.new("1", (2, 2), 1), WHITE),
    "8-bit grey": (lambda: Image.new("L", (2, 2), 90), (90, 90, 90)),
    "palette": (_palette, (200, 100, 50)),
    "palette with a transparent colour": (lambda: _file(_palette(), "PNG", transparency=1), WHITE),
    "RGB with a transparent colour": (lambda: _file(Image.new("RGB", (2, 2)), "PNG", transparency=(0, 0, 0)), WHITE),
    "CMYK": (lambda: _file(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"), RED),
    "LAB": (lambda: Image.new("LAB", (2, 2), (255, 128, 128)), WHITE),
    "HSV": (lambda: Image.new("HSV", (2, 2), (0, 255, 255)), RED),
    "transparent": (lambda: Image.new("RGBA", (2, 2), (10, 20, 30, 0)), WHITE),
    "opaque": (lambda: Image.new("RGBA", (2, 2), (10, 20, 30, 255)), (10, 20, 30)),
    "half transparent grey": (lambda: Image.new("LA", (2, 2), (0, 128)), (127, 127, 127)),
    "grey times alpha": (lambda: Image.new("La", (2, 2), (0, 0)), WHITE),
    "animated GIF": (lambda: _moved("GIF"), RED),
    "animated PNG": (lambda: _moved("PNG"), RED),
    "animated WebP": (lambda: _moved("WEBP"), RED),
    "pages of a TIFF": (lambda: _moved("TIFF"), RED),
    "array of booleans": (lambda: np.ones((2, 2), bool), WHITE),
    "array with one channel": (lambda: np.full((2, 2, 1), 90, np.uint8), (90, 90, 90)),
    "array of colours": (lambda: np.full((2, 2, 3), 90, np.uint8), (90, 90, 90)),
    "array of colours in [0, 1]": (lambda: np.ones((2, 2, 3)) * [1, 0, 0], RED),
    "list of colours": (lambda: np.full((2, 2, 3), 90).tolist(), (90, 90, 90)),
    "array with alpha": (lambda: np.zeros((2, 2, 4), np.uint8), WHITE),
}


@pytest.mark.parametrize("name", TREATED)
def test_every_kind_has_its_treatment(name: str) -> None:
    make, wanted = TREATED[name]
    image = make()
    rgb = to_rgb(image)
    assert (rgb.mode, rgb.size) == ("RGB", (2, 2))
    assert np.abs(np.subtract(rgb.getpixel((1, 1)), wanted)).max() <= 1
    if getattr(image, "n_frames", 1) > 1:
        assert image.tell() == 1  # the caller's picture stays where it was


def test_pictures_are_turned_upright() -> None:
    upright = to_rgb(_exif())
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (0, 0, 255)
    assert to_rgb(upright).size == (2, 4)  # once


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.array([[0.0, np.nan]]), "1 values that are NaN or infinite"),
        (np.full((2, 2, 3), 2.0), r"real numbers in \[0, 1\]; got float64 from 2.0 to 2.0"),
        (np.full((2, 2, 3), 300), r"integers in \[0, 255\]"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros((3, 2, 2, 2)), "Pillow image or an array"),
        ("scan.png", "got str"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(value: object, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        to_rgb(value)


@pytest.fixture
def files(tmp_path: Path) -> Dataset:
    """Four files: sound, cut off, no picture, missing."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for kind in ("png", "jpg"):
        noise.save(tmp_path / f"sound.{kind}")
    raw = (tmp_path / "sound.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "text.png").write_text("no picture")
    paths = [str(tmp_path / name) for name in ("sound.png", "cut.jpg", "text.png", "absent.png")]
    return Dataset.from_dict({"image": paths}, features=Features({"image": ImageFeature()}))


def test_damaged_files_are_one_line_with_split_row_and_path(files: Dataset, tmp_path: Path) -> None:
    assert read_images(files, [0, 0], split="train")[1].size == (64, 64)
    with pytest.raises(InvalidInputError) as caught:
        read_images(files, [0, 1, 2], split="train")
    message = str(caught.value)
    assert message.startswith(f"the picture in row 1 of train, {tmp_path / 'cut.jpg'}, cannot be read (")
    assert "truncated" in message
    assert "\n" not in message
    found = list(damaged(files, range(4)))
    assert [(row, Path(path).name) for row, path, _ in found] == [(1, "cut.jpg"), (2, "text.png"), (3, "absent.png")]
    with pytest.raises(InvalidInputError, match="no column 'picture'"):
        read_images(files, [0], column="picture")


def test_no_damage_makes_a_foreign_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp"):
        buffer = io.BytesIO()
        noise.save(buffer, kind)
        raw = np.frombuffer(buffer.getvalue(), np.uint8)
        for _ in range(40):
            broken = raw.copy()
            broken[rng.integers(len(raw), size=4)] = rng.integers(0, 256, 4)
            data = broken[: rng.integers(1, len(raw) + 1)].tobytes()
            rows = Dataset.from_dict(
                {"image": [{"bytes": data, "path": None}]}, features=Features({"image": ImageFeature()})
            )
            with warnings.catch_warnings(), contextlib.suppress(InvalidInputError):
                warnings.simplefilter("ignore")  # Pillow reads on after damaged EXIF data, with a warning
                read_images(rows, [0])


def test_the_preview_shows_deep_grey() -> None:
    picture = Image.fromarray((RAMP * 257).astype(np.uint16))
    rows = Dataset.from_dict({"image": [picture], "label": [0], "group": [0]})
    rows.info.description = (
        'GroupSpec: {"definition": "x", "classes": ["a"], "attributes": ["b"], "overlapping": false}'
    )
    assert len(np.unique(np.asarray(image_grid(rows, per_group=1, size=16)))) > 100
