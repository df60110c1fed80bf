"""Means and standard errors over sequences, from sums alone."""

import math
from typing import Any

import torch
from torch import Tensor


class Average:
    """The mean of vectors over sequences, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, values_BX: Tensor) -> None:
        """Take in one vector a sequence (Chan et al. 1983's update, which loses no digits)."""
        values = values_BX.detach().to("cpu", torch.float64)
        count = len(values)
        mean, total = values.mean(0), self.count + count
        gap = mean - self._mean
        self._squares = (
            self._squares
            + (values - mean).square().sum(0)
            + gap.square() * (self.count * count / total)
        )
        self._mean, self.count = self._mean + gap * (count / total), total

    @property
    def mean(self) -> Any:
        """A number, or a list for vectors; NaN for no sequence."""
        return self._mean.tolist() if isinstance(self._mean, Tensor) else math.nan

    @property
    def standard_error(self) -> Any:
        """Of the mean, as `mean` is; None for fewer than two sequences."""
        if self.count < 2 or not isinstance(self._squares, Tensor):
            return None
        return (self._squares / (self.count - 1) / self.count).sqrt().tolist()
