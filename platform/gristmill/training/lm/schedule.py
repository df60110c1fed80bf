"""The learning rate as a function of the step: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass
from typing import Literal

from gristmill.core.errors import BadInputError

Shape = Literal["cosine", "constant", "wsd"]


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW and its rate.

    Weight decay falls on the weights of linear layers, of the output matrix and of embeddings,
    learned positions among them: they are added to token embeddings, so one must not grow where the
    other may not. Norms, learned keys, values and sink tokens, T5's score biases and the series
    activation's scales and offsets do not decay: 0 is no place of rest for them.
    """

    lr: float = 3e-4
    """Peak learning rate, for a batch of --lr-batch-size where that is given."""
    lr_batch_size: int = 0
    """bs0 of lr = lr0 (bs / bs0)^r, in sequences (arXiv:2402.02791, section 3.3): the batch that
    --lr was found for. 0: --lr is meant for this batch."""
    lr_exponent: float = 0.5
    """r of that rule."""
    schedule: Shape = "cosine"
    """After the warm-up: cosine to the end; constant; or wsd: constant, then straight down over the
    last --decay-share (MiniCPM, arXiv:2404.06395)."""
    warmup_share: float = 0.03
    """Share of the steps over which the rate rises from 0."""
    decay_share: float = 0.1
    """Share of the steps over which wsd falls."""
    min_lr_share: float = 0.1
    """Where cosine and wsd end, as a share of the peak."""
    beta1: float = 0.9
    """AdamW's, of the gradient's mean."""
    beta2: float = 0.95
    """AdamW's, of its square."""
    eps: float = 1e-8
    """AdamW's, beside the root."""
    weight_decay: float = 0.1
    """Of linear layers and embeddings."""
    clip: float = 1.0
    """Largest norm of the gradient; 0: as it is."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "lr_exponent"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} must be over 0, not {getattr(self, name)}")
        for name in ("warmup_share", "decay_share", "min_lr_share", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInputError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        for name in ("weight_decay", "clip", "lr_batch_size"):
            if getattr(self, name) < 0:
                raise BadInputError(f"{name} must be 0 or more, not {getattr(self, name)}")

    def peak(self, batch_size: int) -> float:
        """The peak rate at a batch of so many sequences."""
        if not self.lr_batch_size:
            return self.lr
        return float(self.lr * (batch_size / self.lr_batch_size) ** self.lr_exponent)

    def rate(self, step: int, steps: int, batch_size: int) -> float:
        """The rate of a step, 0-based, out of so many."""
        peak, warmup = self.peak(batch_size), round(self.warmup_share * steps)
        if step < warmup:
            return peak * (step + 1) / warmup
        if self.schedule == "constant":
            return peak
        low = peak * self.min_lr_share
        if self.schedule == "cosine":
            share = (step - warmup) / max(steps - warmup, 1)
            return low + (peak - low) * (1 + math.cos(math.pi * share)) / 2
        fall = max(round(self.decay_share * steps), 1)
        share = max(step - (steps - fall) + 1, 0) / fall
        return peak - (peak - low) * share
