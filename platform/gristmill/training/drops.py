"""Samples the loader could not use, counted by reason over all its processes.

open_clip warns and goes on, for ever if nothing is usable (open_clip#1016). Here each drop is
counted, and a long run of nothing but drops ends the training with the counts in the message.
"""

import multiprocessing
from typing import Any

from gristmill.core.errors import BadInputError
from gristmill.models.clip import MAX_CAPTION_BYTES
from gristmill.training.preflight import no_pairs
from gristmill.training.shards import IMAGE_MEMBERS, TEXT_MEMBER

REASONS = (
    "no_caption",
    "no_image",
    "bad_caption",
    "bad_image",
    "too_many_pixels",
    "bad_shard",
)
"""`bad_shard` counts reads of a tar that broke off; the others count samples. A `bad_caption` is
not UTF-8, or longer than 64 KiB."""
GIVE_UP_AFTER = 20_000
"""Drops in a row, without one usable sample, after which a loader process stops."""


class Drops:
    """Counters in shared memory: made in the rank, counted up in its loader processes."""

    def __init__(self, where: str, num_shards: int) -> None:
        self._where = where
        self._counts = multiprocessing.Array("q", len(REASONS) + 1)
        self._gave_up = multiprocessing.Value("b", 0)
        self._since_good = 0
        self._shards_since_sample = 0
        self._tar_failed = False
        self._patience_shards = 2 * num_shards + 100

    # -- in the loader's processes --------------------------------------------------------------

    def shard(self) -> None:
        """A tar is about to be read."""
        self._tar_failed = False
        self._shards_since_sample += 1
        if self._shards_since_sample > self._patience_shards:
            self._stop()

    def read(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Pass on a sample as it comes out of a tar, without a caption that is too long to keep."""
        self._shards_since_sample = 0
        if len(sample.get(TEXT_MEMBER, b"")) > MAX_CAPTION_BYTES:
            sample[TEXT_MEMBER] = None  # counted after the shuffle, whose order must not change
        return sample

    def usable(self, sample: dict[str, Any]) -> bool:
        """Whether a raw sample has caption and image; open_clip's own test, with a count."""
        if TEXT_MEMBER not in sample:
            return not self._drop("no_caption")
        if not any(ending in sample for ending in IMAGE_MEMBERS):
            return not self._drop("no_image")
        if sample[TEXT_MEMBER] is None:
            return not self._drop("bad_caption")
        return True

    def undecodable(self, error: Exception) -> bool:
        """Webdataset handler for decoding and transforming: count and go on."""
        from PIL.Image import DecompressionBombError

        if isinstance(error, DecompressionBombError):
            return self._drop("too_many_pixels")
        return self._drop("bad_caption" if isinstance(error, UnicodeError) else "bad_image")

    def unreadable(self, _error: Exception) -> bool:
        """Webdataset handler for tars that break off: go on with the next one."""
        self._tar_failed = True
        return True

    def shard_end(self, *, truncated: bool) -> None:
        """A tar has been read; counted once if anything was wrong with it."""
        if truncated or self._tar_failed:
            with self._counts.get_lock():
                self._counts[REASONS.index("bad_shard")] += 1

    def good(self, sample: Any) -> Any:
        """Pass on a sample that came through."""
        self._since_good = 0
        with self._counts.get_lock():
            self._counts[len(REASONS)] += 1
        return sample

    def _drop(self, reason: str) -> bool:
        with self._counts.get_lock():
            self._counts[REASONS.index(reason)] += 1
        self._since_good += 1
        if self._since_good >= GIVE_UP_AFTER:
            self._stop()
        return True

    def _stop(self) -> None:
        self._gave_up.value = 1
        raise self.error()

    # -- in the rank ------------------------------------------------------------------------------

    def totals(self) -> list[int]:
        """Counts since the start: one a reason, then the samples that came through.

        Loader processes read ahead, so this runs ahead of the samples trained on.
        """
        return list(self._counts[:])

    def gave_up(self) -> bool:
        """Whether a loader process has stopped because nothing was usable."""
        return bool(self._gave_up.value)

    def error(self) -> BadInputError:
        """Why it stopped."""
        counts = zip(REASONS, self.totals(), strict=False)
        found = ", ".join(f"{count:,} {reason}" for reason, count in counts if count)
        return no_pairs(self._where, f"dropped {found}" if found else "all its tars are empty")
