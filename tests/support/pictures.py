"""Files of every kind of picture, each with what a model has to see of it: 8-bit RGB, worked out by hand."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

RAMP = np.arange(256).reshape(16, 16)
LEFT = np.zeros((16, 16), bool)
LEFT[:, :8] = True


def halves(left, right):
    """A picture with one colour on the left and another on the right, `(16, 16, 3)` uint8."""
    return np.where(LEFT[..., None], np.uint8(left), np.uint8(right))


def grey(values):
    """Grey values as RGB."""
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def _palette():
    image = Image.fromarray(LEFT.astype(np.uint8), "L").convert("P")
    image.putdata(LEFT.astype(int).ravel().tolist())
    image.putpalette([0, 0, 200, 200, 100, 50])
    return image


def _orientation(value):
    exif = Image.Exif()
    exif[0x112] = value
    return exif


NOISE = np.random.default_rng(0).integers(0, 256, (16, 8, 3), dtype=np.uint8)
RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)
_FRAMES = [Image.fromarray(halves(RED, BLUE)), Image.fromarray(halves(BLUE, WHITE))]
_ALPHA = np.dstack([halves(RED, BLUE), np.where(LEFT, 255, 0)]).astype(np.uint8)
_CMYK = np.where(LEFT[..., None], np.uint8((0, 255, 255, 0)), np.uint8((0, 0, 0, 0)))

# File -> the picture, how it is saved, what it shows.
KINDS = {
    "16bit.png": (Image.fromarray((RAMP * 257).astype(np.uint16)), {}, grey(RAMP)),
    "12of16bit.tif": (Image.fromarray((RAMP * 16).astype(np.uint16)), {}, grey(RAMP)),
    "32bit.tif": (Image.fromarray((RAMP * 100_000).astype(np.int32)), {}, grey(RAMP)),
    "float.tif": (Image.fromarray((RAMP / 255 * 4000 - 1000).astype(np.float32)), {}, grey(RAMP)),
    "constant16bit.png": (Image.fromarray(np.full((16, 16), 40_000, np.uint16)), {}, grey(RAMP * 0)),
    "cmyk.tif": (Image.fromarray(_CMYK, "CMYK"), {}, halves(RED, WHITE)),
    "palette.png": (_palette(), {}, halves((200, 100, 50), (0, 0, 200))),
    "alpha.png": (Image.fromarray(_ALPHA), {}, halves(RED, WHITE)),
    "turned.png": (Image.fromarray(NOISE), {"exif": _orientation(6)}, np.rot90(NOISE, -1)),
    "mirrored.png": (Image.fromarray(NOISE), {"exif": _orientation(2)}, NOISE[:, ::-1]),
    "animated.gif": (_FRAMES[0], {"save_all": True, "append_images": _FRAMES[1:]}, halves(RED, BLUE)),
    "animated.png": (_FRAMES[0], {"save_all": True, "append_images": _FRAMES[1:]}, halves(RED, BLUE)),
    "blackwhite.png": (Image.fromarray(LEFT), {}, halves(WHITE, (0, 0, 0))),
    "pixel.png": (Image.new("RGB", (1, 1), RED), {}, np.uint8([[RED]])),
    "line.png": (Image.new("RGB", (300, 1), RED), {}, np.uint8([[RED] * 300])),
}


def _cut(kind, share):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()[: int(share * len(buffer.getvalue()))]


# File -> its bytes, which are no whole picture.
DAMAGED = {
    "empty.png": b"",
    "text.png": b"no picture",
    "cut.png": _cut("png", 0.5),
    "header.png": _cut("png", 0.003),
    "cut.jpg": _cut("jpeg", 0.5),
    "cut.tif": _cut("tiff", 0.5),
    "cut.gif": _cut("gif", 0.5),
    "cut.bmp": _cut("bmp", 0.5),
    "cut.webp": _cut("webp", 0.5),
}


def write_kinds(folder: Path) -> tuple[list[Path], list[Path]]:
    """Every kind as its file, and what it shows as an 8-bit RGB file, in the same order."""
    given, plain = folder / "given", folder / "plain"
    given.mkdir()
    plain.mkdir()
    for number, (name, (image, options, shown)) in enumerate(KINDS.items()):
        image.save(given / f"{number:02d}-{name}", **options)
        Image.fromarray(np.ascontiguousarray(shown)).save(plain / f"{number:02d}-{Path(name).stem}.png")
    return sorted(given.iterdir()), sorted(plain.iterdir())


def write_damaged(folder: Path) -> list[Path]:
    """Every damaged file."""
    for name, content in DAMAGED.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in DAMAGED]


def deep_and_plain(images):
    """Greyscale pictures with 16 bits of which 12 are used, and their 8-bit counterparts with the same contrast.

    Args:
        images: Pillow images.

    Returns:
        Two lists of Pillow images: mode I;16, mode RGB.
    """
    deep, plain = [], []
    for image in images:
        values = np.asarray(image.convert("L")).astype(np.int64)
        low, high = values.min(), values.max()
        deep.append(Image.fromarray((values * 16).astype(np.uint16)))
        plain.append(Image.fromarray(grey(np.round((values - low) / max(high - low, 1) * 255))))
    return deep, plain
