"""The series informed activation, and its own backward.

Shapes: F hidden, N terms.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SPREAD = 0.1
"""Distance between the offsets that tell the branches of a series apart at the start."""
Activation = Callable[[Tensor], Tensor]
Backward = Callable[[Tensor, Tensor], Tensor]


class Series(nn.Module):
    """sum_i sigma(a_i x + b_i) with a and b of shape [N, F].

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

    def forward(self, x_BTF: Tensor, activate: Activation, backward: Backward) -> Tensor:
        """The sum over the branches, [B, T, F].

        Args:
            x_BTF: What the branches share.
            activate: sigma.
            backward: A gradient times the derivative of sigma at a place.
        """
        scales, offsets = self.scale_NF.to(x_BTF.dtype), self.offset_NF.to(x_BTF.dtype)
        if torch.compiler.is_compiling():  # a compiler fuses the plain sum, forward and backward
            return _sum(x_BTF, scales, offsets, activate)
        total: Tensor = _SumOfBranches.apply(x_BTF, scales, offsets, activate, backward)
        return total


def _sum(x_BTF: Tensor, scales: Tensor, offsets: Tensor, activate: Activation) -> Tensor:
    total_BTF = activate(torch.addcmul(offsets[0], x_BTF, scales[0]))
    for scale_F, offset_F in zip(scales[1:], offsets[1:], strict=True):
        total_BTF = total_BTF + activate(torch.addcmul(offset_F, x_BTF, scale_F))
    return total_BTF


class _SumOfBranches(torch.autograd.Function):
    """The same, keeping only x: autograd would keep every branch, and pass over memory more often.

    Measured in docs/results/lm-modules.md.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_BTF: Tensor,
        scales: Tensor,
        offsets: Tensor,
        activate: Activation,
        backward: Backward,
    ) -> Tensor:
        ctx.save_for_backward(x_BTF, scales, offsets)
        ctx.backward_of_sigma = backward
        return _sum(x_BTF, scales, offsets, activate)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BTF: Tensor) -> tuple[Tensor | None, ...]:
        x_BTF, scales, offsets = ctx.saved_tensors
        grad_scales, grad_offsets = torch.empty_like(scales), torch.empty_like(offsets)
        grad_x = torch.empty_like(x_BTF)
        one_1R = x_BTF.new_ones(1, x_BTF.shape[:-1].numel())  # a product sums rows faster than sum
        for i, (scale_F, offset_F) in enumerate(zip(scales, offsets, strict=True)):
            branch_BTF = torch.addcmul(offset_F, x_BTF, scale_F)
            slope_BTF = ctx.backward_of_sigma(grad_BTF, branch_BTF)
            grad_offsets[i] = (one_1R @ slope_BTF.flatten(0, -2))[0]
            torch.mul(slope_BTF, x_BTF, out=branch_BTF)
            grad_scales[i] = (one_1R @ branch_BTF.flatten(0, -2))[0]
            if i == 0:
                torch.mul(slope_BTF, scale_F, out=grad_x)
            else:
                grad_x.addcmul_(slope_BTF, scale_F)
        return grad_x, grad_scales, grad_offsets, None, None
