"""The feed-forward, gated or plain, with one activation or a series of them.

Shapes: M width, F hidden.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.feed_forward._series import Series


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

    def activate_backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """`grad` times the derivative of `activate` at x; a kind may know a faster way."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.activate(x), x, grad)[0]

    def forward(self, x_BTM: Tensor) -> Tensor:
        """The block's output, [B, T, M]."""
        up_BTF = self.up(x_BTM)
        inner_BTF = self.gate(x_BTM) if self.gated else up_BTF
        if self.series is None:
            active_BTF = self.activate(inner_BTF)
        else:
            active_BTF = self.series(inner_BTF, self.activate, self.activate_backward)
        return self.down(active_BTF * up_BTF if self.gated else active_BTF)
