"""Uids of image-text pairs: 32 hex digits made from content, and their 16-byte form in subset files."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError

UID_DTYPE = np.dtype("u8,u8")
"""One uid in a subset file: first and last 16 hex digits as unsigned integers (DataComp, section C)."""

UidArray = npt.NDArray[np.void]


def pair_uid(image_sha256: str, text: str, url: str = "") -> str:
    """The uid of a pair: 32 hex digits of a BLAKE2b over its image, caption and url.

    Args:
        image_sha256: 64 hex digits, the SHA-256 of the image's encoded bytes.
        text: The caption as it stands in the pool.
        url: Where the image came from; empty when unknown.
    """
    digest = hashlib.blake2b(digest_size=16, person=b"gristmill.pair")
    for part in (image_sha256.encode(), text.encode("utf-8", "surrogatepass"), url.encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
