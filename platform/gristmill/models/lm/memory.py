"""What training needs on each GPU: model states exactly, activations as an estimate."""

from dataclasses import dataclass
from typing import Literal

from gristmill.core.errors import BadInputError
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.counts import MATRIX_PARTS
from gristmill.models.lm.loss import CHUNK_TOKENS

Precision = Literal["bf16", "fp32"]
BYTES: dict[Precision, int] = {"bf16": 2, "fp32": 4}
"""Of a number in the type of computation."""
BUCKET_NUMBERS = 500_000_000
"""Gradients that ZeRO sums at once, DeepSpeed's own choice."""
LIVE_NUMBERS = 1_000_000_000
"""Parameters that ZeRO-3 may hold whole, and updates at once: DeepSpeed's own choices."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes a GPU. States are exact; the rest are estimates of the peak."""

    weights: int
    """Parameters that the model computes with. Where nothing is cut up they are float32, and in
    bf16 autocast makes copies of the blocks' matrices, which backward needs."""
    gradients: int
    """As they stand when backward ends."""
    optimizer: int
    """AdamW's moments, and under ZeRO 1 to 3 the float32 parameters."""
    gathered: int
    """ZeRO-3: what is whole at a time."""
    buffers: int
    """ZeRO 1 to 3: the bucket in which gradients are summed."""
    activations: int
    """What backward needs of the forward pass."""
    loss: int
    """Logits of one chunk, and their gradient."""
    update: int
    """ZeRO 1 to 3: the gradient once more, in float32, while the weights are updated."""

    @property
    def states(self) -> int:
        """What is there all along."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """The most at a time; the allocator's gaps come on top."""
        passing = self.gathered + self.buffers + self.activations + self.loss
        return self.states + max(passing, self.update)


def estimate(
    config: ModelConfig,
    *,
    micro_batch_size: int,
    seq_len: int,
    workers: int = 1,
    zero_stage: int = 0,
    precision: Precision = "bf16",
    recompute: bool = False,
    accumulate: bool = False,
) -> Memory:
    """Memory a GPU by ZeRO stage, as training/lm/deepspeed_engine.py sets DeepSpeed up.

    Args:
        config: The model.
        micro_batch_size: Sequences a GPU computes at once.
        seq_len: Tokens a sequence.
        workers: GPUs that share the states.
        zero_stage: 0 shares nothing, 1 the optimiser, 2 gradients too, 3 weights too.
        precision: bf16 with float32 master weights, or float32 throughout.
        recompute: Whether only each block's input is kept (Decoder.recompute_blocks).
        accumulate: Whether a step sums the gradients of several micro-batches, in float32.

    Raises:
        BadInputError: A number is out of range.
    """
    _check(micro_batch_size, seq_len, workers, zero_stage)
    count, size = config.num_params, BYTES[precision]
    tokens = micro_batch_size * seq_len
    weights, gradients, optimizer, update = _states(precision, zero_stage, accumulate=accumulate)
    parts = [workers if zero_stage >= first else 1 for first in (3, 2, 1)]
    updated = min(_share(count, workers), LIVE_NUMBERS if zero_stage == 3 else count)
    live = min(count, max(LIVE_NUMBERS, _largest_piece(config)))
    copies = 2 * _matrices(config) if zero_stage == 0 and precision == "bf16" else 0
    return Memory(
        weights=_share(weights * count, parts[0]) + copies,
        gradients=_share(gradients * count, parts[1]),
        optimizer=_share(optimizer * count, parts[2]),
        gathered=size * live if zero_stage == 3 and workers > 1 else 0,
        buffers=size * min(count, BUCKET_NUMBERS) if zero_stage else 0,
        activations=_activations(config, tokens, seq_len, size, recompute=recompute),
        loss=2 * 4 * min(CHUNK_TOKENS, tokens) * config.vocab_size,
        update=update * updated,
    )


def _states(
    precision: Precision, zero_stage: int, *, accumulate: bool
) -> tuple[int, int, int, int]:
    """Bytes a parameter of weights, gradients, optimizer and update, before any sharing out
    (ZeRO, arXiv:1910.02054, section 3.1, with K = 12)."""
    if zero_stage == 0:
        return 4, 4, 8, 0
    if precision == "fp32":  # DeepSpeed keeps a master copy here too
        return 4, 4, 12, 4
    if (
        zero_stage == 1 and accumulate
    ):  # BF16_Optimizer, which sums into float32 and updates from it
        return 2, 4, 12, 0
    return 2, (4 if accumulate else 2), 12, 4


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


def _matrices(config: ModelConfig) -> int:
    return sum(config.params_by_part.get(part, 0) for part in MATRIX_PARTS)


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
