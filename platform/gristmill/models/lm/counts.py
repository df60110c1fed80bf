"""Parameters by part and FLOPs a token, from the model built on the meta device."""

import functools
import re
from typing import Literal

from gristmill.models.lm.config import ModelConfig

PARTS = (
    (r"embedding\.", "embedding"),
    (r"positions\.", "positions"),
    (r"head\.", "head"),
    (r".*norm\.", "norms"),
    (r".*attention\.bias\.|sink_token", "attention biases"),
    (r".*attention\.operation\.", "attention kernel"),
    (r".*attention\.", "attention"),
    (r".*shortcuts\.", "shortcuts"),
    (r".*feed_forward\.series\.", "series activation"),
    (r".*feed_forward\.", "feed-forward"),
)
"""The first pattern that a parameter's name begins with says its part."""
MATRIX_PARTS = ("attention", "shortcuts", "feed-forward")


@functools.lru_cache(maxsize=64)
def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    model = config.build(device="meta")
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def part_of(name: str) -> str:
    """The part a parameter belongs to."""
    return next((part for pattern, part in PARTS if re.match(pattern, name)), "other")


def params_by_part(config: ModelConfig) -> dict[str, int]:
    """Numbers by part, in the order of PARTS; parts without any are left out."""
    import math

    counts = dict.fromkeys([*(part for _, part in PARTS), "other"], 0)
    for name, shape in _shapes(config).items():
        counts[part_of(name)] += math.prod(shape)
    return {part: count for part, count in counts.items() if count}


def flops_per_token(
    config: ModelConfig, seq_len: int, *, attention: Literal["full", "causal"] = "full"
) -> int:
    """FLOPs of forward and backward a token: 6 a matrix parameter, and 12 L H D S of attention.

    PaLM's count (arXiv:2204.02311, appendix B): the embedding look-up costs nothing, the output
    matrix counts, recomputed activations do not, element-wise work is left out.

    Args:
        config: The model.
        seq_len: Tokens a sequence.
        attention: full takes S = seq_len, as PaLM does whatever the mask; causal takes the mean
            number of keys a query sees, which a fused kernel needs to compute.
    """
    parts = params_by_part(config)
    matrices = sum(parts.get(part, 0) for part in MATRIX_PARTS)
    matrices += config.vocab_size * config.width
    # The kernel's matrices turn every query head and every key head.
    kernel = parts.get("attention kernel", 0) * (config.num_heads + config.kv_heads)
    span = float(seq_len) if attention == "full" else _mean_keys(config, seq_len)
    inner = config.num_heads * config.head_size
    return int(6 * (matrices + kernel) + 12 * config.num_layers * inner * span)


def _mean_keys(config: ModelConfig, seq_len: int) -> float:
    """Keys a query sees on average; a prefix or a learned key adds next to nothing."""
    window = min(config.window or seq_len, seq_len)
    return window - window * (window - 1) / (2 * seq_len)
