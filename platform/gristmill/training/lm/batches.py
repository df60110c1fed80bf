"""A rank's rows of each step, read ahead, and the digest of what was really read.

Rows: slots [batch * rank / world, batch * (rank + 1) / world) of the stream's step. Where that is
not the same number for each rank, as an elastic run may have it, ranks with fewer get an empty row
whose targets count nothing.
"""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gristmill.corpora.stream import TokenStream
from gristmill.models.lm.loss import IGNORE
from gristmill.training.place import Place

DIGEST_BYTES = 8
ORDER_START = hashlib.sha256(b"gristmill order").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a rank trains on in one step."""

    tokens: Tensor
    """int64 [n, seq_len + 1]; n is the same on each rank."""
    digest: int
    """Sum over the rows of a hash of slot, domain, epoch, sequence and tokens, modulo 2^64. The
    sum over all ranks is the same however many there are."""
    drawn: tuple[int, ...]
    """Rows of each of the stream's domains."""


def rows_per_rank(batch_size: int, world_size: int) -> int:
    """The most rows that a rank has; the others are filled up to as many."""
    return -(-batch_size // world_size)


class Batches:
    """Reads one step ahead of the one asked for."""

    def __init__(self, stream: TokenStream, place: Place) -> None:
        self._stream, self._place = stream, place
        self._rows = rows_per_rank(stream.batch_size, place.world_size)
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[Rows]] | None = None

    def at(self, position: int) -> Rows:
        """The rows of a step of the stream."""
        if self._ahead is not None and self._ahead[0] == position:
            found = self._ahead[1].result()
        else:
            found = self._read(position)
        self._ahead = (position + 1, self._reader.submit(self._read, position + 1))
        return found

    def _read(self, position: int) -> Rows:
        rank, world = self._place.rank, self._place.world_size
        picks = self._stream.picks(position, rank, world)
        tokens = self._stream.batch(position, rank, world)
        first = self._stream.batch_size * rank // world
        columns = (picks.domain.tolist(), picks.epoch.tolist(), picks.sequence.tolist())
        digest = 0
        for i, (row, domain, epoch, sequence) in enumerate(zip(tokens, *columns, strict=True)):
            name = f"{position} {first + i} {picks.domains[domain]} {epoch} {sequence}\n".encode()
            one = hashlib.sha256(name + row.tobytes()).digest()[:DIGEST_BYTES]
            digest += int.from_bytes(one, "little")
        drawn = np.bincount(picks.domain, minlength=len(picks.domains))
        return Rows(
            tokens=torch.from_numpy(filled(tokens, self._rows)),
            digest=digest % (1 << 64),
            drawn=tuple(int(n) for n in drawn),
        )

    def close(self) -> None:
        """Stop reading."""
        self._reader.shutdown(cancel_futures=True)


def filled(tokens: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """As many rows as asked for; an added one is all IGNORE (see `inputs_and_targets`)."""
    missing = rows - len(tokens)
    if not missing:
        return tokens
    empty = np.full((missing, tokens.shape[1]), IGNORE, np.int64)
    return np.concatenate((tokens, empty))


def inputs_and_targets(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of token ids [n, T + 1]: what the model reads, and what it is to say; both [n, T]."""
    return rows[:, :-1].clamp(min=0), rows[:, 1:]


def signed(digest: int) -> int:
    """The same 64 bits as torch's int64 has them; sums wrap around as they should."""
    return digest - (1 << 64) if digest >= 1 << 63 else digest


def chained(order: str, digest: int) -> str:
    """The order up to a step: a hash of the order before it and the step's digest."""
    words = bytes.fromhex(order) + (digest % (1 << 64)).to_bytes(8, "little")
    return hashlib.sha256(words).hexdigest()


def sum_over_ranks(values: list[Any], dtype: torch.dtype, place: Place) -> list[Any]:
    """Element by element; every rank gets the same."""
    if place.world_size == 1:
        return values
    moved = torch.tensor(values, dtype=dtype, device=place.device)
    torch.distributed.all_reduce(moved)
    return list(moved.tolist())
