"""Paste a drawing on a canvas, as pictures on web pages come in every size and setting.

Canvases are made directly at the stored size, 64 pixels on the longest side; the size on record is
the one the page would have had, as img2dataset keeps original_width and original_height.
"""

import io
import random
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageEnhance

SIDE = 64
Shape = Literal["plain", "tiny", "wide"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An encoded picture and the size it is said to have had."""

    image: Image.Image
    original_width: int
    original_height: int

    def encode(self, *, quality: int) -> bytes:
        """The picture as a JPEG."""
        buffer = io.BytesIO()
        self.image.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()


def decode(image: bytes) -> Image.Image:
    """A bundled drawing as an RGB image."""
    with Image.open(io.BytesIO(image)) as opened:
        return opened.convert("RGB")


def square(image: bytes) -> bytes:
    """A drawing in the middle of a white 64-pixel square, as lossless WebP."""
    drawing = decode(image)
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    canvas.paste(drawing, ((SIDE - drawing.width) // 2, (SIDE - drawing.height) // 2))
    buffer = io.BytesIO()
    canvas.save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def encode_again(image: bytes, *, quality: int) -> bytes:
    """The same picture as another JPEG."""
    buffer = io.BytesIO()
    decode(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def original_size(shape: Shape, rng: random.Random) -> tuple[int, int]:
    """Width and height on record: DataComp's basic filter drops the tiny and the wide ones."""
    if shape == "tiny":
        short = rng.randint(24, 190)
        return (short, rng.randint(short, 199)) if rng.random() < 0.5 else (short, short)
    short = rng.randint(200, 800)
    if shape == "wide":
        long = round(short * rng.uniform(3.1, 6.0))
    else:
        long = round(short * rng.uniform(1.0, 1.33))
    return (short, long) if rng.random() < 0.5 and shape == "plain" else (long, short)


def paste(image: bytes, shape: Shape, rng: random.Random) -> Picture:
    """Paste a drawing on a light background at a random size and place."""
    width, height = original_size(shape, rng)
    scale = SIDE / max(width, height)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    light = tuple(rng.randint(200, 255) for _ in range(3)) if rng.random() < 0.4 else (255,) * 3
    drawing = decode(image)
    if shape == "tiny":
        # A thumbnail of the picture: it was stored small, so little of it is left.
        left = min(width, SIDE) / SIDE / 3
        drawing = drawing.resize([max(2, round(side * left)) for side in drawing.size])
    room = rng.uniform(0.8, 1.0)
    factor = min(size[0] * room / drawing.width, size[1] * room / drawing.height)
    fitted = drawing.resize([max(1, round(s * factor)) for s in drawing.size])
    canvas = Image.new("RGB", size, light)
    corner = [rng.randint(0, max(0, s - f)) for s, f in zip(size, fitted.size, strict=True)]
    # Multiply keeps the background's tint around a drawing that was cut out on white.
    tinted = Image.composite(fitted, Image.new("RGB", fitted.size, light), _ink(fitted))
    canvas.paste(tinted, (corner[0], corner[1]))
    canvas = ImageEnhance.Brightness(canvas).enhance(rng.uniform(0.9, 1.0))
    return Picture(image=canvas, original_width=width, original_height=height)


def _ink(drawing: Image.Image) -> Image.Image:
    """A mask that is clear where the drawing is nearly white."""
    return drawing.convert("L").point([255 if value < 245 else 0 for value in range(256)])
