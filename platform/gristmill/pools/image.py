"""Decode pictures with bounds: a few bytes on disk must not become gigabytes in memory."""

import io
import warnings
from typing import TYPE_CHECKING

from gristmill.core.errors import CorruptDataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64_000_000
"""Largest picture we decode. DataComp stores at most 512 px; a 64-megapixel photo still passes."""
MAX_ASPECT = 100
"""Longest side over the shortest: resizing the short side up would blow a thread of pixels up."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""Other plug-ins of Pillow start programs (EPS), or fail in ways of their own."""
MAX_BYTES = 64 << 20
"""Largest encoded picture we look at."""


def decode_rgb(data: bytes, *, where: str) -> "Image":
    """Decode an encoded picture to RGB.

    Args:
        data: JPEG, PNG, WebP, GIF and whatever else Pillow reads.
        where: Names the picture in errors.

    Raises:
        CorruptDataError: Empty, not a picture, truncated, or larger than the bounds.
    """
    from PIL import Image

    if not data:
        raise CorruptDataError(f"{where}: the image has no bytes")
    if len(data) > MAX_BYTES:
        raise CorruptDataError(f"{where}: the image has {len(data)} bytes, over {MAX_BYTES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if max(width, height) > MAX_ASPECT * max(min(width, height), 1):
            raise CorruptDataError(f"{where}: {width} x {height} pixels, over {MAX_ASPECT} to 1")
        if width * height > MAX_PIXELS:
            raise CorruptDataError(f"{where}: {width} x {height} pixels, over {MAX_PIXELS}")
        image.load()
        return image.convert("RGB")
    except CorruptDataError:
        raise
    except Image.DecompressionBombError as error:
        raise CorruptDataError(f"{where}: too many pixels, over {MAX_PIXELS}") from error
    except Exception as error:  # a decoder on hostile bytes may raise anything
        raise CorruptDataError(f"{where}: not a readable image: {error}") from error


def thumbnail(data: bytes, *, side: int = 112) -> bytes:
    """A small WebP of an encoded picture, fit for a report; empty when it cannot be decoded."""
    try:
        image = decode_rgb(data, where="thumbnail")
    except CorruptDataError:
        return b""
    image.thumbnail((side, side))
    return encode_webp(image, quality=80)


def encode_webp(image: "Image", *, quality: int) -> bytes:
    """A picture as WebP bytes; 100 stands for lossy at its best, as in DataComp's resharder."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
