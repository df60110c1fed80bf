"""What training needs on each GPU: model states exactly, activations as an estimate."""

from dataclasses import dataclass
from typing import Literal

from gristmill.core.errors import BadInputError
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.loss import CHUNK_TOKENS

Precision = Literal["bf16", "fp32"]
STATE_BYTES: dict[Precision, tuple[int, int, int]] = {"bf16": (2, 2, 12), "fp32": (4, 4, 8)}
"""Bytes a parameter of weights, gradients and optimiser. bf16 keeps a float32 copy and AdamW's two
moments (ZeRO, arXiv:1910.02054, section 3.1: K = 12); float32 only the moments."""
FIRST_SHARDED_AT = (3, 2, 1)
"""The ZeRO stage from which weights, gradients and optimiser are cut into one part a worker."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes a GPU. `activations`, `loss` and `gathered` are estimates of the peak."""

    weights: int
    """Parameters in the type of computation."""
    gradients: int
    """As many, in that type."""
    optimizer: int
    """AdamW's moments, and in bf16 the float32 parameters."""
    gathered: int
    """ZeRO-3: the largest block or matrix, whole while it is computed."""
    activations: int
    """What backward needs of the forward pass."""
    loss: int
    """Logits of one chunk, and their gradient."""

    @property
    def total(self) -> int:
        """The sum; buffers of communication and the allocator's gaps come on top."""
        states = self.weights + self.gradients + self.optimizer
        return states + self.gathered + self.activations + self.loss


def estimate(
    config: ModelConfig,
    *,
    micro_batch_size: int,
    seq_len: int,
    workers: int = 1,
    zero_stage: int = 0,
    precision: Precision = "bf16",
    recompute: bool = False,
) -> Memory:
    """Memory a GPU by ZeRO stage (arXiv:1910.02054, figure 1).

    Args:
        config: The model.
        micro_batch_size: Sequences a GPU computes at once.
        seq_len: Tokens a sequence.
        workers: GPUs that share the states.
        zero_stage: 0 shares nothing, 1 the optimiser, 2 gradients too, 3 weights too.
        precision: bf16 with float32 master weights, or float32 throughout.
        recompute: Whether only each block's input is kept (Decoder.recompute_blocks).

    Raises:
        BadInputError: A number is out of range.
    """
    _check(micro_batch_size, seq_len, workers, zero_stage)
    count = config.num_params
    states = [
        _share(size * count, workers if zero_stage >= first else 1)
        for size, first in zip(STATE_BYTES[precision], FIRST_SHARDED_AT, strict=True)
    ]
    size = STATE_BYTES[precision][0]
    tokens = micro_batch_size * seq_len
    return Memory(
        weights=states[0],
        gradients=states[1],
        optimizer=states[2],
        gathered=size * _largest_piece(config) if zero_stage == 3 and workers > 1 else 0,
        activations=_activations(config, tokens, seq_len, size, recompute=recompute),
        loss=2 * 4 * min(CHUNK_TOKENS, tokens) * config.vocab_size,
    )


def _check(micro_batch_size: int, seq_len: int, workers: int, zero_stage: int) -> None:
    for name, value in (
        ("micro_batch_size", micro_batch_size),
        ("seq_len", seq_len),
        ("workers", workers),
    ):
        if value < 1:
            raise BadInputError(f"{name} must be 1 or more, not {value}")
    if zero_stage not in range(4):
        raise BadInputError(f"zero_stage must be 0, 1, 2 or 3, not {zero_stage}")


def _share(num_bytes: int, workers: int) -> int:
    return -(-num_bytes // workers)


def _largest_piece(config: ModelConfig) -> int:
    parts = config.params_by_part
    outside = sum(parts.get(name, 0) for name in ("embedding", "head", "positions"))
    block = (config.num_params - outside) // config.num_layers
    return max(block, config.vocab_size * config.width)


def _activations(
    config: ModelConfig, tokens: int, seq_len: int, size: int, *, recompute: bool
) -> int:
    """Tensors that backward reads, by the code of Block: a float32 residual stream, the rest in
    the type of computation. Operations without a fused kernel also keep their T x S weights.
    """
    width, hidden = config.width, config.ffn_hidden
    heads = (2 * config.num_heads + 2 * config.kv_heads) * config.head_size  # q, k, v, output
    # A series keeps no more than a plain activation: its backward makes the branches again.
    inner = 2 * hidden + (hidden if "glu" in config.feed_forward else 0)
    paths = 2 * config.shortcuts * (config.width // config.shortcut_reduction)
    block = 2 * 4 * width + size * (2 * width + heads + inner + hidden + paths)
    if config.attention != "softmax" or config.normalizer != "sum":
        block += 3 * size * config.num_heads * seq_len
    outside = (4 + size) * width  # the last residual stream and its norm
    if recompute:
        return tokens * (4 * width * config.num_layers + block + outside)
    return tokens * (block * config.num_layers + outside)
