"""When a step is bad, and what is done about it.

A step whose loss is no number or far above the last ones, or whose gradient is no number, is never
applied. PaLM (arXiv:2204.02311, section 5.1) restarted from a checkpoint before a spike and passed
over its batches; `rewind` does that by itself.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gristmill.core.errors import BadInputError

LEAST_SPREAD = 0.01
"""Spread of the losses that is always allowed for, as a share of their mean."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The rule against divergence."""

    on_bad_step: Literal["skip", "rewind", "stop"] = "skip"
    """skip: leave the step out, and rewind after --max-bad-steps of them in a row; rewind: go back
    to the newest checkpoint and pass over the data since; stop: end with an error."""
    spike_sigmas: float = 10.0
    """A loss so many standard deviations above the mean of the last ones is a spike; 0: none is."""
    spike_window: int = 64
    """How many losses that mean is over; with less than half of them there is no spike."""
    max_bad_steps: int = 5
    """Bad steps in a row before skip becomes rewind."""
    max_rewinds: int = 3
    """Rewinds of the whole training before it ends with an error."""

    def __post_init__(self) -> None:
        for name, least in (
            ("spike_sigmas", 0),
            ("spike_window", 2),
            ("max_bad_steps", 1),
            ("max_rewinds", 0),
        ):
            if getattr(self, name) < least:
                raise BadInputError(f"{name} must be {least} or more, not {getattr(self, name)}")

    def fault(self, loss: float, recent: Sequence[float]) -> str:
        """What is wrong with a loss after these; empty if nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not self.spike_sigmas or len(recent) < max(self.spike_window // 2, 2):
            return ""
        mean = statistics.fmean(recent)
        spread = max(statistics.stdev(recent), LEAST_SPREAD * abs(mean))
        if loss > mean + self.spike_sigmas * spread:
            return f"the loss is {loss:.4g} after a mean of {mean:.4g} (spread {spread:.2g})"
        return ""

    def action(self, bad_steps: int) -> Literal["skip", "rewind", "stop"]:
        """What to do after so many bad steps in a row."""
        if self.on_bad_step == "skip" and bad_steps > self.max_bad_steps:
            return "rewind"
        return self.on_bad_step
