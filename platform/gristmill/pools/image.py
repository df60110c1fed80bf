"""Decode pictures with bounds: a few bytes on disk must not become gigabytes in memory."""

import io
import warnings
from typing import TYPE_CHECKING

from gristmill.core.errors import CorruptDataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64_000_000
"""Largest picture we decode. DataComp stores at most 512 px; a 64-megapixel photo still passes."""
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
            image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise CorruptDataError(f"{where}: {width} x {height} pixels, over {MAX_PIXELS}")
        image.load()
        return image.convert("RGB")
    except CorruptDataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, MemoryError) as error:
        raise CorruptDataError(f"{where}: not a readable image: {error}") from error


def encode_webp(image: "Image", *, quality: int) -> bytes:
    """A picture as WebP bytes; 100 stands for lossy at its best, as in DataComp's resharder."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
