"""A 64-bit perceptual hash of a picture: equal for copies that look alike, whatever their files."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 32
LOW = 8
"""Coefficients kept in each direction: 8 x 8 = 64 bits."""
NOISE = 1e-7
"""Coefficients of 32 x 32 bytes reach 4e6 here; what is below this is rounding, and counts as 0."""


def phash(image: "Image") -> str:
    """The DCT hash (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions", chapter 3), bit for bit that of the ImageHash library, as 16 hex digits.

    The picture goes to grey and 32 x 32 by Lanczos; of its two-dimensional DCT-II the 8 x 8 lowest
    frequencies count, the mean among them; a bit is 1 where one is above their median. Digits go
    row by row, the first bit leads. Where a flat or symmetrical picture has coefficients that are
    0, rounding decides ImageHash's bits; here such a coefficient is 0.
    """
    from PIL.Image import Resampling

    grey = image.convert("L").resize((SIDE, SIDE), Resampling.LANCZOS)
    return hash_of_pixels(np.asarray(grey))


def hash_of_pixels(pixels: npt.NDArray[Any]) -> str:
    """The hash of 32 x 32 grey pixels."""
    low = _DCT @ pixels.astype(np.float64) @ _DCT.T
    low[np.abs(low) < NOISE] = 0.0
    bits = low > np.median(low)
    return np.packbits(bits).tobytes().hex()


def _dct_matrix() -> npt.NDArray[np.float64]:
    """The first rows of the DCT-II, unnormalised as in FFTPACK: 2 cos(pi k (2n + 1) / 2N), [8, 32].

    The angles are reduced first, so that opposite cosines are opposite to the last bit.
    """
    steps = np.outer(np.arange(LOW), 2 * np.arange(SIDE) + 1) % (4 * SIDE)
    return 2 * np.cos(np.pi * steps / (2 * SIDE))


_DCT = _dct_matrix()
