"""Where the samples of a tar lie, as arrays: headers are hopped over, then checked all at once.

The quick way takes only what is plain: short ASCII names, octal numbers as every tar program
writes them, checksums that match, pax headers that name no path. At anything else the whole tar is
walked header by header (`TarReader.members`), which knows every case and names what is wrong.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.pools.tar import BLOCK, MAX_NAME_BYTES, TarReader

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

WINDOW_BYTES = 4096
AHEAD_BYTES = 1 << 24
"""How far before the reader the system is asked to read: hopping alone looks random to it."""

_NAME, _SIZE, _SUM, _KIND, _MAGIC, _PREFIX = 0, 124, 148, 156, 257, 345
_NAME_BYTES, _SIZE_DIGITS, _SUM_DIGITS = 100, 11, 6


@dataclass(frozen=True, kw_only=True)
class TarIndex:
    """Samples as `TarReader.samples` groups them; those of sample s are members starts[s:s + 2]."""

    extensions: tuple[str, ...]
    """Lower-case, each once, sorted."""
    starts: Numbers
    """First member of each sample, and the number of members, shape (samples + 1,)."""
    kinds: Numbers
    """Which extension each member has, shape (members,)."""
    offsets: Numbers
    """Where each member's bytes begin in the tar, shape (members,)."""
    sizes: Numbers
    """How many they are, shape (members,)."""

    def __len__(self) -> int:
        return len(self.starts) - 1


def index_tar(reader: TarReader) -> TarIndex:
    """The index of an open tar.

    Raises:
        CorruptDataError: A damaged header, or an end without the end-of-archive mark.
        BadInputError: A member's name is absolute or climbs with `..`.
    """
    index = _quick(reader)
    return _walked(reader) if index is None else index


def _walked(reader: TarReader) -> TarIndex:
    samples = list(reader.samples())
    extensions = sorted({e for sample in samples for e in sample.members})
    place = {e: i for i, e in enumerate(extensions)}
    members = [(place[e], m.offset, m.size) for s in samples for e, m in s.members.items()]
    table = np.array(members, np.int64).reshape(-1, 3)
    return TarIndex(
        extensions=tuple(extensions),
        starts=np.cumsum([0, *(len(s.members) for s in samples)]),
        kinds=table[:, 0],
        offsets=table[:, 1],
        sizes=table[:, 2],
    )


def _quick(reader: TarReader) -> TarIndex | None:
    """The index of a tar whose every header is plain, or None."""
    places, found = _hop(reader)
    if len(places) < 2 or (np.diff(places) <= 0).any() or not reader.is_blank(places[-1]):
        return None
    at = np.array(places[:-1], np.int64)
    headers = np.frombuffer(b"".join(found), np.uint8).reshape(-1, BLOCK)
    sizes = _checked_sizes(headers)
    if sizes is None:
        return None
    kinds = headers[:, _KIND]
    for row in np.flatnonzero((kinds == ord("L")) | (kinds == ord("x")) | (kinds == ord("g"))):
        start, size = int(at[row]) + BLOCK, int(sizes[row])
        if kinds[row] == ord("L") or size > MAX_NAME_BYTES:
            return None
        if b" path=" in reader.read_at(start, size):
            return None
    regular = np.flatnonzero((kinds == ord("0")) | (kinds == 0))
    names = _plain_names(headers[regular])
    if names is None:
        return None
    return _grouped(names, at[regular] + BLOCK, sizes[regular])


def _hop(reader: TarReader) -> tuple[list[int], list[bytes]]:
    """Where headers begin if every size is plain, and the headers.

    One place more comes last, where no such header is. Small members and the next header come with
    one short read: that is half the work of faulting the pages of a mapping.
    """
    places, found, at, fetched = [0], [], 0, 0
    window, base = b"", -WINDOW_BYTES
    try:
        for _ in range(reader.num_bytes // BLOCK):  # a bound: damaged sizes might lead in a circle
            start = at - base
            if not 0 <= start <= WINDOW_BYTES - BLOCK:
                if at + WINDOW_BYTES > fetched:
                    reader.expect(at, AHEAD_BYTES)
                    fetched = at + AHEAD_BYTES
                window, base, start = reader.read_at(at, WINDOW_BYTES), at, 0
            header = window[start : start + BLOCK]
            at += (int(header[_SIZE : _SIZE + _SIZE_DIGITS], 8) + 2 * BLOCK - 1) & -BLOCK
            found.append(header)
            places.append(at)
    except (ValueError, OSError):
        pass  # zeros, or a number that is not plain, or one that leads before the file
    return places, found


def _checked_sizes(headers: Bytes) -> Numbers | None:
    """The sizes that headers state, shape (n,); None unless all are plain and checksums match."""
    size = headers[:, _SIZE : _SIZE + _SIZE_DIGITS] - ord("0")
    stated = headers[:, _SUM : _SUM + _SUM_DIGITS] - ord("0")
    ends = headers[:, _SIZE + _SIZE_DIGITS]
    plain = (size < 8).all() and (stated < 8).all() and ((ends == 0) | (ends == ord(" "))).all()
    if not plain or headers[:, _SUM + _SUM_DIGITS].any():
        return None
    field = headers[:, _SUM : _SUM + 8].sum(axis=1, dtype=np.int64)
    sums = headers.sum(axis=1, dtype=np.uint32) - field + 8 * ord(" ")
    if (sums != stated @ 8 ** np.arange(_SUM_DIGITS)[::-1]).any():
        return None
    return np.asarray(size @ 8 ** np.arange(_SIZE_DIGITS, dtype=np.int64)[::-1])


def _plain_names(headers: Bytes) -> Bytes | None:
    """Names padded with zeros, shape (n, longest); None if one is long, odd or would escape."""
    ustar = (headers[:, _MAGIC : _MAGIC + 6] == np.frombuffer(b"ustar\0", np.uint8)).all(axis=1)
    if (ustar & (headers[:, _PREFIX] != 0)).any():
        return None
    names = headers[:, _NAME : _NAME + _NAME_BYTES]
    ended = np.maximum.accumulate(names == 0, axis=1)
    longest = max(int((~ended).sum(axis=1).max(initial=0)), 1)
    names = np.where(ended, np.uint8(0), names)[:, :longest]
    dots = names == ord(".")
    climbs = (dots[:, 1:] & dots[:, :-1]).any() or (names[:, 0] == ord("/")).any()
    return None if climbs or (names >= 128).any() else names


def _grouped(names: Bytes, offsets: Numbers, sizes: Numbers) -> TarIndex | None:
    """The index of members by name; None if an extension comes twice within a key."""
    columns = np.arange(names.shape[1])
    slash = np.where(names == ord("/"), columns, -1).max(axis=1, initial=-1)
    dots = (names == ord(".")) & (columns > slash[:, None])
    dot = dots.argmax(axis=1)
    named = np.flatnonzero(dots.any(axis=1) & (dot > slash + 1))
    names, dot, offsets, sizes = names[named], dot[named], offsets[named], sizes[named]
    keys = np.where(columns < dot[:, None], names, np.uint8(0))
    new = np.ones(len(names), bool)
    new[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    extensions, kinds = np.unique(_extensions(names, dot), return_inverse=True)
    samples = np.cumsum(new) - 1
    if len(np.unique(samples * len(extensions) + kinds)) < len(names):
        return None
    return TarIndex(
        extensions=tuple(e.decode() for e in extensions.tolist()),
        starts=np.append(np.flatnonzero(new), len(names)),
        kinds=kinds.astype(np.int64),
        offsets=offsets,
        sizes=sizes,
    )


def _extensions(names: Bytes, dot: Numbers) -> npt.NDArray[np.bytes_]:
    """What follows the dot of each name, in lower case."""
    width = max(int(((names != 0).sum(axis=1) - dot).max(initial=0)) - 1, 1)
    padded = np.pad(names, ((0, 0), (0, width)))
    after = np.take_along_axis(padded, dot[:, None] + 1 + np.arange(width), axis=1)
    upper = (after >= ord("A")) & (after <= ord("Z"))
    lower = np.ascontiguousarray(after + 32 * upper.astype(np.uint8))
    return lower.view(f"S{width}").reshape(-1)
