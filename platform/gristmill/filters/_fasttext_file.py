"""The labels of a fastText classifier file, read without fastText, which trusts any file.

A file that was cut short (a broken download) makes the library run out of memory, die, or load
with the missing numbers left at zero; so its sizes are walked through first. Format: versions 11
and 12, as fastText 0.9.2 writes them (Joulin et al. 2016, arXiv:1612.03651).
"""

import mmap
import os
import struct

from gristmill.core.errors import BadInputError

MAGIC = 793712314
VERSIONS = (11, 12)
SUPERVISED = 3
CENTROIDS_BYTES = 256 * 4
"""Of one dimension of a product quantizer: 256 centroids of 4 bytes."""


class _Reader:
    """Reads little-endian numbers and skips what need not be read."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def numbers(self, layout: str) -> tuple[int, ...]:
        """Numbers of a struct layout without its byte order."""
        packed = struct.Struct("<" + layout)
        found = packed.unpack_from(self._data, self._at)
        self._at += packed.size
        return found

    def skip(self, num_bytes: int) -> None:
        """Go on, if there is as much."""
        if not 0 <= num_bytes <= len(self._data) - self._at:
            raise struct.error(f"{num_bytes} more bytes wanted at {self._at}")
        self._at += num_bytes

    def word(self) -> bytes:
        """A string that ends in a zero byte."""
        start = self._at
        end = self._data.find(b"\0", start)
        if end < 0:
            raise struct.error(f"a word without end at {start}")
        self._at = end + 1
        return self._data[start:end]

    def matrix(self, quantized: bool) -> None:
        """Walk through a matrix of either kind."""
        if not quantized:
            rows, dim = self.numbers("qq")
            self.skip(rows * dim * 4)
            return
        with_norms, rows, _, codes = self.numbers("?qqi")
        self.skip(codes)
        self._quantizer()
        if with_norms:
            self.skip(rows)
            self._quantizer()

    def _quantizer(self) -> None:
        dim, *_ = self.numbers("4i")
        self.skip(dim * CENTROIDS_BYTES)


def labels(path: str) -> frozenset[str]:
    """Labels of a classifier, after a check that the file is one and is whole.

    Raises:
        BadInputError: It is something else, or was cut short.
    """
    if os.path.getsize(path) < 64:
        raise BadInputError(f"{path} is not a fastText model: {os.path.getsize(path)} bytes")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        magic, version = reader.numbers("ii")
        if magic != MAGIC or version not in VERSIONS:
            raise BadInputError(f"{path} is not a fastText model; give a file such as lid.176.bin")
        try:
            return _walk(reader, path)
        except (struct.error, UnicodeDecodeError) as error:
            raise BadInputError(
                f"{path} is not a whole fastText model ({error}); fetch it again"
            ) from error


def _walk(reader: _Reader, path: str) -> frozenset[str]:
    settings = reader.numbers("12i")
    reader.skip(8)
    if settings[7] != SUPERVISED:
        raise BadInputError(f"{path} holds word vectors; give a fastText model that classifies")
    entries, _, _, _, pruned = reader.numbers("iiiqq")
    found = set()
    for _ in range(entries):
        word = reader.word()
        _, kind = reader.numbers("qb")
        if kind == 1:
            found.add(word.decode())
    reader.skip(max(pruned, 0) * 8)  # -1: not pruned
    quantized = bool(*reader.numbers("?"))
    reader.matrix(quantized)
    output_quantized = bool(*reader.numbers("?"))
    reader.matrix(quantized and output_quantized)
    return frozenset(found)
