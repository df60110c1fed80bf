"""The feed-forward, gated or plain, with one activation or a series of them.

Shapes: M width, F hidden.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from gristmill.models.lm.config import ModelConfig

SPREAD = 0.1
"""Distance between the offsets that tell the branches of a series apart at the start."""


class FeedForward(nn.Module, ABC):
    """down(phi(gate x) * up x), or down(phi(up x)) for the kinds without a gate.

    phi is the kind's activation, or with series = n > 1 the series informed activation
    sum_i sigma(a_i x + b_i) (PanGu-pi, arXiv:2312.17276, eq. 7), a_i and b_i learned by channel.
    Its place beside a gate is not stated there; with the gate's matrix shared by the branches the
    published sizes come out.
    """

    gated: ClassVar[bool] = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.ffn_hidden
        if self.gated:
            self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.series = Series(config.series, hidden) if config.series > 1 else None

    @abstractmethod
    def activate(self, x: Tensor) -> Tensor:
        """The kind's activation, sigma."""

    def forward(self, x_BTM: Tensor) -> Tensor:
        """The block's output, [B, T, M]."""
        up_BTF = self.up(x_BTM)
        inner_BTF = self.gate(x_BTM) if self.gated else up_BTF
        if self.series is None:
            active_BTF = self.activate(inner_BTF)
        else:
            active_BTF = self.series(inner_BTF, self.activate)
        return self.down(active_BTF * up_BTF if self.gated else active_BTF)


class Series(nn.Module):
    """sum_i sigma(a_i x + b_i) with a and b of shape [n, F].

    Starts at a = 1 / n and offsets b spread about 0, since equal branches would stay equal.
    """

    def __init__(self, terms: int, hidden: int) -> None:
        super().__init__()
        self.scale_NF = nn.Parameter(torch.empty(terms, hidden))
        self.offset_NF = nn.Parameter(torch.empty(terms, hidden))

    def start(self) -> None:
        """Set the starting values, the same for every channel."""
        terms = len(self.scale_NF)
        with torch.no_grad():
            self.scale_NF.fill_(1 / terms)
            offsets = SPREAD * (torch.arange(terms) - (terms - 1) / 2)
            self.offset_NF.copy_(offsets[:, None].expand_as(self.offset_NF))

    def forward(self, x_BTF: Tensor, activate: Callable[[Tensor], Tensor]) -> Tensor:
        """Branches are added one by one, so that no [n, B, T, F] is formed."""
        scales, offsets = self.scale_NF.to(x_BTF.dtype), self.offset_NF.to(x_BTF.dtype)
        total_BTF = activate(x_BTF * scales[0] + offsets[0])
        for scale_F, offset_F in zip(scales[1:], offsets[1:], strict=True):
            total_BTF = total_BTF + activate(x_BTF * scale_F + offset_F)
        return total_BTF
