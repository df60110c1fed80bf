"""Progress with a rate and the time left: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

from gristmill.core.plan import human_seconds

LINE_EVERY_SECONDS = 10.0
SLOW = 2.0
"""Units a second below which the seconds of one are told."""
logger = logging.getLogger(__name__)


class Progress:
    """Counts units of work done out of a total, and shows them."""

    def __init__(self, title: str, total: int, unit: str, *, done: int = 0, also: str = "") -> None:
        """Begin.

        Args:
            title: What is done.
            total: Units in all.
            unit: What is counted.
            done: Units that an earlier run did.
            also: What else is counted and shown as a rate, whose total nobody knows.
        """
        self._also, self._also_done = also, 0
        self._title, self._total, self._unit = title, total, unit
        self._start, self._done, self._before = time.monotonic(), done, done
        self._last_line = self._start
        self._bar = (
            tqdm(total=total, initial=done, desc=title, unit=f" {unit}", unit_scale=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self, count: int, also: int = 0) -> None:
        """Note that `count` more units are done, and so many of what else is counted."""
        self._done += count
        self._also_done += also
        if self._bar is not None:
            self._bar.set_postfix_str(self._also_rate(), refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            logger.info("%s", self.line())

    def line(self) -> str:
        """One line such as `reshard: 3,000/12,000 samples (25 %), 812 samples/s, 11 s left`."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self._done - self._before) / elapsed
        left = human_seconds((self._total - self._done) / rate) if rate > 0 else "unknown time"
        share = 100 * self._done / self._total if self._total else 100.0
        return (
            f"{self._title}: {self._done:,}/{self._total:,} {self._unit} ({share:.0f} %), "
            f"{self._pace(rate)}, {self._also_rate(', ')}{left} left"
        )

    def _also_rate(self, end: str = "") -> str:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        return f"{self._also_done / elapsed:,.0f} {self._also}/s{end}" if self._also else ""

    def _pace(self, rate: float) -> str:
        """`812 samples/s`, and of slow ones `3.2 s/target`."""
        if rate <= 0 or rate >= SLOW:
            return f"{rate:,.0f} {self._unit}/s"
        return f"{1 / rate:,.1f} s/{self._unit.removesuffix('s')}"

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            elapsed = time.monotonic() - self._start
            done = self._done - self._before
            rate = done / max(elapsed, 1e-9)
            logger.info(
                "%s: %s %s in %s (%s%s)",
                self._title,
                f"{done:,}",
                self._unit,
                human_seconds(elapsed),
                self._also_rate(", "),
                self._pace(rate),
            )
