"""Small filters for tests of the engine; here, at the root, where Ray's workers find them."""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gristmill.filters.base import AllOf, Filter, GroupFilter, Keyed


@dataclass(frozen=True, kw_only=True)
class SameLetters(GroupFilter):
    """Rows that share the first or the second letter; none for an empty caption."""

    @property
    def columns(self):
        return ("text",)

    def keyed(self, batch):
        rows, keys = [], []
        for i, text in enumerate(batch["text"].to_pylist()):
            for place, letter in enumerate((text or "")[:2]):
                rows.append(i)
                keys.append(((ord(letter) * 0x9E3779B97F4A7C15) % 2**64, place))
        return Keyed(np.array(rows, np.int64), np.array(keys, np.uint64).reshape(-1, 2))


@dataclass(frozen=True, kw_only=True)
class CloseNumbers(GroupFilter):
    """Rows of one hundred whose number is within 1 of a better row's."""

    @property
    def columns(self):
        return ("number",)

    def keyed(self, batch):
        number = batch["number"].to_numpy()
        keys = np.stack([(number // 100).astype(np.uint64) << np.uint64(60), number * 0], axis=1)
        return Keyed(np.arange(len(number)), keys.astype(np.uint64), number)

    def repeated(self, payload, rows):
        near = np.abs(payload[:, None] - payload[None, :]) <= 1
        return np.tril(near, -1).any(axis=1)


@dataclass(frozen=True, kw_only=True)
class Even(Filter):
    """Keeps even numbers."""

    @property
    def columns(self):
        return ("number",)

    @property
    def reasons(self):
        return ("odd",)

    def judge(self, batch):
        return (batch["number"].to_numpy() % 2).astype(np.int8)


@dataclass(frozen=True, kw_only=True)
class Logged(Even):
    """Notes how many rows it was asked about."""

    folder: str
    seconds: float = 0.0
    """How long to take over a batch, so that a test can strike in the middle of a job."""

    def judge(self, batch):
        time.sleep(self.seconds)
        (Path(self.folder) / secrets.token_hex(8)).write_text(str(batch.num_rows))
        return super().judge(batch)


@dataclass(frozen=True, kw_only=True)
class AllAlike(SameLetters):
    """Every row has the same key."""

    def keyed(self, batch):
        return Keyed(np.arange(batch.num_rows), np.zeros((batch.num_rows, 2), np.uint64))


@dataclass(frozen=True, kw_only=True)
class OneWord(SameLetters):
    """Breaks the contract: keys of one word."""

    def keyed(self, batch):
        return Keyed(np.arange(batch.num_rows), np.zeros((batch.num_rows, 1), np.uint64))


@dataclass(frozen=True, kw_only=True)
class Wide(GroupFilter):
    """One group, whose payload has another type where numbers are large."""

    @property
    def columns(self):
        return ("number",)

    def keyed(self, batch):
        number = batch["number"].to_numpy()
        kind = np.float64 if number.min() > 1000 else np.float32
        return Keyed(
            np.arange(len(number)), np.zeros((len(number), 2), np.uint64), number.astype(kind)
        )


@dataclass(frozen=True, kw_only=True)
class Composite(Filter):
    """Becomes two filters, the second of which groups rows."""

    @property
    def columns(self):
        return ("number", "text")

    @property
    def reasons(self):
        return ("odd", "duplicate")

    def fit(self, facts):
        return AllOf(parts=(Even(), SameLetters())).fit(facts)

    def judge(self, batch):
        raise AssertionError("fit comes first")


@dataclass(frozen=True, kw_only=True)
class Twice(Even):
    """Lists what it keeps as often as a model loaded in setup says."""

    def setup(self):
        object.__setattr__(self, "_model", 2)

    def times(self, batch):
        return np.full(batch.num_rows, self._model)


@dataclass(frozen=True, kw_only=True)
class Unstorable(Even):
    """Becomes something that JSON does not know."""

    cut: float = 0.0

    def fit(self, facts):
        return Unstorable(cut=np.float32(0.5))
