"""Procedural captioned scenes: the pretraining data of the embedded tiny CLIP.

A scene shows one subject (a digit, a letter or a geometric shape) on a textured background. Seven attributes are drawn
independently of each other: subject, colour of the subject, texture, colour (`ground`) and tone of the background, size
and position. Nothing is read but the fonts that Matplotlib ships; everything else is arithmetic.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 32
_BANK = 48  # side of a glyph in the bank, pixels
_FINE = 2  # supersampling of the subject, against aliasing

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Without letters that look like digits in some fonts (B, D, G, I, J, O, Q, S, Z) and W, a turned M.
LETTERS = "ACEFHKLMNPRTUVXY"
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "crescent")
HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "grey")
_HUE_DEGREES = (0.0, 28.0, 58.0, 120.0, 182.0, 228.0, 288.0, 0.0)
SUBJECTS = (
    *(f"digit {i}" for i in range(10)),
    *(f"letter {c.lower()}" for c in LETTERS),
    *SHAPES,
)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "color": HUES,
    "texture": ("plain", "checkered", "striped", "dotted", "noisy", "gradient", "cloudy", "brick"),
    "ground": HUES,
    "tone": ("dark", "light"),
    "size": ("small", "large"),
    "position": (
        "in the center",
        "at the upper left",
        "at the upper right",
        "at the lower left",
        "at the lower right",
    ),
}
HELD_OUT_FONTS = ("DejaVuSansMono-Oblique", "STIXGeneralBol", "cmss10", "cmti10", "cmtt10")
TRAIN_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBolIta", "cmr10", "cmb10", "cmmi10"),
)


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, font=font, fill=255)
    return image


def _shape(name: str) -> Image.Image:
    side = 96
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    points = [
        (48 + r * math.sin(math.pi * i / 5), 50 - r * math.cos(math.pi * i / 5)) for i, r in enumerate([46, 18] * 5)
    ]
    match name:
        case "circle":
            draw.ellipse((4, 4, 92, 92), fill=255)
        case "square":
            draw.rectangle((8, 8, 88, 88), fill=255)
        case "triangle":
            draw.polygon([(48, 4), (92, 88), (4, 88)], fill=255)
        case "star":
            draw.polygon(points, fill=255)
        case "cross":
            draw.rectangle((34, 4, 62, 92), fill=255)
            draw.rectangle((4, 34, 92, 62), fill=255)
        case "ring":
            draw.ellipse((4, 4, 92, 92), outline=255, width=18)
        case "diamond":
            draw.polygon([(48, 2), (82, 48), (48, 94), (14, 48)], fill=255)
        case "crescent":
            draw.ellipse((4, 4, 92, 92), fill=255)
            draw.ellipse((30, -2, 106, 74), fill=0)
    return image


def subject_bank(fonts: tuple[str, ...]) -> torch.Tensor:
    """Opacity of every subject in every font, tightly cropped.

    Args:
        fonts: Names of Matplotlib's bundled TrueType fonts, without ending.

    Returns:
        Tensor (fonts, subjects, 48, 48) in [0, 1].
    """
    import matplotlib as mpl

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    shapes = [_shape(name) for name in SHAPES]
    rows = []
    for name in fonts:
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 90)
        glyphs = [_glyph(font, c) for c in "0123456789" + LETTERS]
        rows.append([_boxed(image) for image in glyphs + shapes])
    return torch.from_numpy(np.stack([np.stack(row) for row in rows])).float() / 255


def _boxed(image: Image.Image) -> np.ndarray:
    """The image scaled to 40 pixels of height (44 of width at most) in the middle of a bank cell."""
    scale = min(40 / image.height, 44 / image.width)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    cell = Image.new("L", (_BANK, _BANK))
    cell.paste(small, ((_BANK - small.width) // 2, (_BANK - small.height) // 2))
    return np.asarray(cell)


def draw_labels(n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Draw `n` values of every attribute, each tensor (n,) int64; all attributes are independent.

    Everything is uniform but the subject: 60 % digits, 25 % letters, 15 % shapes, uniform within each kind.
    """
    labels = {name: torch.randint(len(values), (n,), generator=generator) for name, values in ATTRIBUTES.items()}
    sizes = (10, len(LETTERS), len(SHAPES))
    weights = torch.cat([torch.full((k,), share / k) for k, share in zip(sizes, (0.6, 0.25, 0.15), strict=True)])
    labels["subject"] = torch.multinomial(weights, n, replacement=True, generator=generator)
    return labels


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _rgb(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """HSV (n,) each, hue in turns, to RGB (n, 3) in [0, 1] (the standard hexcone formula)."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + hue[:, None] * 6) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)


def _hue(index: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Hue in turns and saturation (n,) of colour names; grey is (nearly) unsaturated."""
    n = (len(index),)
    degrees = torch.tensor(_HUE_DEGREES)[index] + _uniform(n, -7, 7, generator)
    saturation = _uniform(n, 0.6, 1.0, generator)
    return (degrees / 360) % 1, torch.where(index == HUES.index("grey"), 0.06 * saturation, saturation)


def _smooth_noise(n: int, cells: int, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn((n, 1, cells, cells), generator=generator)
    return F.interpolate(noise, size=IMAGE_SIZE, mode="bicubic", align_corners=False)[:, 0]


def texture_field(texture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weight of the second background colour at every pixel.

    Args:
        texture: (n,) int64, index into `ATTRIBUTES["texture"]`.
        generator: Source of randomness.

    Returns:
        (n, 32, 32) in [0, 1].
    """
    n = len(texture)
    axis = torch.arange(IMAGE_SIZE) - (IMAGE_SIZE - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = _uniform((n, 1, 1), 0, 2 * math.pi, generator)
    wave = 2 * math.pi / _uniform((n, 1, 1), 5, 11, generator)
    phase = _uniform((2, n, 1, 1), 0, 2 * math.pi, generator)
    u = (x * angle.cos() + y * angle.sin()) * wave + phase[0]
    v = (y * angle.cos() - x * angle.sin()) * wave + phase[1]
    course = torch.floor(v / math.pi)
    joint = ((u / (2 * math.pi) + 0.5 * (course % 2)) % 1) < 0.18
    bed = ((v / math.pi) % 1) < 0.3
    cloud = _smooth_noise(n, 4, generator) + 0.5 * _smooth_noise(n, 8, generator)
    fields = torch.stack(
        [
            torch.zeros_like(u),
            (u.sin() * v.sin() > 0).float(),
            (u.sin() > 0).float(),
            (u.cos() + v.cos() > 0.8).float(),
            torch.rand(u.shape, generator=generator),
            ((u - phase[0]) / wave / 40 + 0.5).clamp(0, 1),
            torch.sigmoid(2 * cloud),
            (joint | bed).float(),
        ]
    )
    return fields[texture, torch.arange(n)]


def subject_mask(bank: torch.Tensor, labels: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Opacity (n, 32, 32) of the subjects: random font, slant, rotation, warp, stroke weight and sharpness."""
    n = len(labels["subject"])
    large, place = labels["size"].bool(), labels["position"]
    font = torch.randint(len(bank), (n,), generator=generator)
    # The bank's glyphs are 40 of 48 pixels tall.
    height = torch.where(large, _uniform((n,), 19, 25, generator), _uniform((n,), 14, 17, generator))
    half = height * (_BANK / 40) / 2
    reach = torch.where(large, _uniform((n,), 2, 4, generator), _uniform((n,), 3, 5, generator))
    sign_x = torch.tensor([0.0, -1.0, 1.0, -1.0, 1.0])[place]
    sign_y = torch.tensor([0.0, -1.0, -1.0, 1.0, 1.0])[place]
    jitter = _uniform((2, n), -1.0, 1.0, generator)
    side = IMAGE_SIZE * _FINE
    axis = (torch.arange(side) + 0.5) / _FINE - IMAGE_SIZE / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    dx = (x - (sign_x * reach + jitter[0])[:, None, None]) / half[:, None, None]
    dy = (y - (sign_y * reach + jitter[1])[:, None, None]) / half[:, None, None]
    angle = _uniform((n, 1, 1), -0.2, 0.2, generator)
    shear = _uniform((n, 1, 1), -0.2, 0.2, generator)
    aspect = _uniform((n, 1, 1), 0.8, 1.25, generator)
    gx = (dx * angle.cos() + dy * angle.sin()) * aspect + shear * dy
    gy = dy * angle.cos() - dx * angle.sin()
    warp = F.interpolate(torch.randn((n, 2, 5, 5), generator=generator), size=side, mode="bilinear")
    warp = warp * _uniform((n, 1, 1, 1), 0.0, 0.07, generator)
    grid = torch.stack([gx + warp[:, 0], gy + warp[:, 1]], dim=-1)
    alpha = F.grid_sample(bank[font, labels["subject"]][:, None], grid, align_corners=False)
    blurred = F.avg_pool2d(alpha, 5, 1, 2, count_include_pad=False)
    threshold = _uniform((n, 1, 1, 1), 0.05, 0.4, generator)
    alpha = ((blurred - threshold) * _uniform((n, 1, 1, 1), 2.0, 6.0, generator) + 0.3).clamp(0, 1)
    alpha = torch.where(blurred > 0.02, alpha, torch.zeros(()))
    coarse = int(torch.randint(11, 21, (), generator=generator))
    blocky = F.interpolate(F.adaptive_avg_pool2d(alpha, coarse), size=IMAGE_SIZE, mode="bilinear", align_corners=False)
    rough = torch.rand((n, 1, 1, 1), generator=generator) < 0.4
    return torch.where(rough, blocky, F.avg_pool2d(alpha, _FINE))[:, 0]


def render(labels: dict[str, torch.Tensor], bank: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Render scenes.

    Args:
        labels: Attribute values, each (n,) int64, as from `draw_labels`.
        bank: Subjects, from `subject_bank`.
        generator: Source of randomness for everything the attributes leave open.

    Returns:
        (n, 3, 32, 32) float32 in [0, 1].
    """
    n = len(labels["subject"])
    light = labels["tone"].bool()
    hue, saturation = _hue(labels["ground"], generator)
    value = _uniform((2, n), 0.03, 0.2, generator) + torch.where(light, 0.27, 0.0)
    # Two background colours of one name, at least 0.1 apart in value so that the texture shows.
    gap = value[1] - value[0]
    value[1] = (value[0] + torch.where(gap >= 0, 0.1, -0.1) + gap).clamp(0, 1)
    first, second = (_rgb(hue, saturation, v)[:, :, None, None] for v in value)
    field = texture_field(labels["texture"], generator)[:, None]
    scene = first * (1 - field) + second * field
    hue, saturation = _hue(labels["color"], generator)
    # The subject is lighter than the background, whatever their colours.
    ink = _rgb(hue, 0.4 * saturation, _uniform((n,), 0.85, 1.0, generator))
    alpha = subject_mask(bank, labels, generator)[:, None] * _uniform((n, 1, 1, 1), 0.75, 1.0, generator)
    scene = scene * (1 - alpha) + ink[:, :, None, None] * alpha
    grain = torch.randn(scene.shape, generator=generator) * _uniform((n, 1, 1, 1), 0.0, 0.04, generator)
    return (scene + grain).clamp(0, 1)
