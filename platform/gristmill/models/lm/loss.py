"""Cross entropy of an output matrix and targets that never holds the logits of all tokens.

A vocabulary of 100,883 at 4 x 2048 tokens would need 3.3 GB of float32 logits, and as much for
their gradient. Here the tokens go in chunks, and backward computes each chunk's logits again.
Shapes: N tokens, M width, V vocabulary, C tokens of a chunk.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""A target that counts nothing, as in torch."""
CHUNK_TOKENS = 2048
"""Tokens whose logits are held at once: enough that a GPU's sum of weight gradients, read and
written once a chunk, costs little beside the products."""
CPU_CHUNK_TOKENS = 256
"""On a CPU, few enough to stay near its cache: about 1.3 times as fast as 2048."""
Reduction = Literal["mean", "sum", "none"]


def chunked_cross_entropy(
    hidden_NM: Tensor,
    weight_VM: Tensor,
    targets_N: Tensor,
    *,
    reduction: Reduction = "mean",
    chunk_tokens: int = 0,
) -> Tensor:
    """Cross entropy of `hidden @ weight.T` against targets, in float32 or float64.

    Args:
        hidden_NM: Last hidden states.
        weight_VM: Output matrix.
        targets_N: Token ids, or IGNORE.
        reduction: The mean or sum over tokens that are not ignored, or a loss a token (0 where
            ignored). A mean over no token is 0, where torch gives NaN.
        chunk_tokens: Tokens whose logits are held at once; 0: as suits the device.
    """
    if not chunk_tokens:
        on_cpu = hidden_NM.device.type == "cpu"
        chunk_tokens = CPU_CHUNK_TOKENS if on_cpu else CHUNK_TOKENS
    losses_N: Tensor = _ChunkedCrossEntropy.apply(hidden_NM, weight_VM, targets_N, chunk_tokens)
    if reduction == "none":
        return losses_N
    total = losses_N.sum()
    return total / (targets_N != IGNORE).sum().clamp(min=1) if reduction == "mean" else total


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Losses of all tokens; saves only its inputs."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NM: Tensor, weight_VM: Tensor, targets_N: Tensor, chunk_tokens: int
    ) -> Tensor:
        # Autocast does not reach into backward, so the type of the products is settled here.
        kind = hidden_NM.device.type
        ctx.dtype = (
            torch.get_autocast_dtype(kind)
            if torch.is_autocast_enabled(kind)
            else torch.promote_types(hidden_NM.dtype, weight_VM.dtype)
        )
        ctx.chunk_tokens = chunk_tokens
        ctx.save_for_backward(hidden_NM, weight_VM, targets_N)
        weight = weight_VM.to(ctx.dtype)
        wide = torch.promote_types(ctx.dtype, torch.float32)
        losses_N = hidden_NM.new_empty(targets_N.shape, dtype=wide)
        for start in range(0, len(targets_N), chunk_tokens):
            piece = slice(start, start + chunk_tokens)
            with torch.autocast(kind, enabled=False):
                logits_CV = (hidden_NM[piece].to(ctx.dtype) @ weight.T).to(wide)
            losses_N[piece] = F.cross_entropy(
                logits_CV, targets_N[piece], ignore_index=IGNORE, reduction="none"
            )
        return losses_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_NM, weight_VM, targets_N = ctx.saved_tensors
        grad_N = grads[0]
        weight = weight_VM.to(ctx.dtype)
        wide = grad_N.dtype
        grad_hidden = torch.empty_like(hidden_NM) if ctx.needs_input_grad[0] else None
        # Summed in the type of the weight: float32, but bf16 under ZeRO 1 to 3, where each chunk
        # rounds the sum once; a float32 one would be read and written whole once a chunk.
        grad_weight = torch.zeros_like(weight_VM) if ctx.needs_input_grad[1] else None
        for start in range(0, len(targets_N), ctx.chunk_tokens):
            piece = slice(start, start + ctx.chunk_tokens)
            targets_C = targets_N[piece]
            hidden_CM = hidden_NM[piece].to(ctx.dtype)
            # d loss / d logits = softmax - one hot, times the gradient of the token's loss.
            dlogits_CV = (hidden_CM @ weight.T).to(wide).softmax(-1)
            counts_C1 = (targets_C != IGNORE)[:, None]
            one_C1 = -counts_C1.to(wide)
            dlogits_CV.scatter_add_(1, targets_C.clamp(min=0)[:, None], one_C1)
            # where, not a product: a masked token whose hidden state is NaN must add nothing.
            dlogits_CV.mul_(grad_N[piece][:, None]).masked_fill_(~counts_C1, 0)
            dlogits = dlogits_CV.to(ctx.dtype)
            if grad_hidden is not None:
                grad_hidden[piece] = (dlogits @ weight).to(grad_hidden.dtype)
            if grad_weight is not None and grad_weight.dtype == ctx.dtype:
                grad_weight.addmm_(dlogits.T, hidden_CM)
            elif grad_weight is not None:
                grad_weight += dlogits.T @ hidden_CM
        return grad_hidden, grad_weight, None, None
