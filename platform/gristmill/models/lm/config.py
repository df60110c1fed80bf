"""ModelConfig: shapes and variants of a decoder as plain values. Importing this loads no torch."""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gristmill.core import plugins
from gristmill.core.errors import BadInputError

if TYPE_CHECKING:
    from gristmill.models.lm.decoder import Decoder
    from gristmill.models.lm.memory import Memory

PACKAGE = "gristmill.models.lm"
PLUGIN_FIELDS = {
    "attention": "attention",
    "normalizer": "normalizers",
    "positions": "positions",
    "feed_forward": "feed_forward",
    "initializer": "initializers",
}
"""Fields that name a plug-in, and the folder it is a file of."""
AttentionKernel = Literal["auto", "sdpa", "flex"]
"""What computes softmax attention that is not plainly causal; see visibility.kernel_for."""
AttentionBias = Literal["none", "sink_token", "k", "v", "kv"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer: RMSNorm, no biases in its linear layers.

    The defaults are LLaMA's choices. A name of a plug-in field is a file's stem in the folder of
    that field, or `python:module:Class`.
    """

    vocab_size: int
    """Rows of the embedding."""
    width: int
    """Size of the residual stream."""
    num_layers: int
    """Blocks."""
    num_heads: int
    """Query heads."""
    ffn_hidden: int
    """Hidden size of the feed-forward, of each of its two inner matrices where it is gated."""
    context_length: int = 2048
    """Most tokens of a sequence in training."""
    num_kv_heads: int = 0
    """Key and value heads, each shared by num_heads / num_kv_heads queries; 0: as many as heads."""
    head_dim: int = 0
    """Size of a head; 0: width / num_heads."""
    tied: bool = False
    """Whether the output matrix is the embedding."""
    norm_placement: Literal["pre", "post"] = "pre"
    """x + f(norm(x)), or norm(x + f(x))."""
    norm_eps: float = 1e-5
    """RMSNorm's epsilon."""
    feed_forward: str = "swiglu"
    """swiglu, geglu, reglu, glu, swish, gelu, relu."""
    series: int = 1
    """n of the series informed activation (PanGu-pi, eq. 7); 1 is the plain activation."""
    shortcuts: int = 0
    """T, the augmented shortcuts beside attention (PanGu-pi, eq. 4); 0 for none."""
    shortcut_reduction: int = 32
    """r: a shortcut's bottleneck is width / r wide."""
    positions: str = "rope"
    """rope, alibi, learned, sinusoidal, t5_relative, none."""
    rope_theta: float = 10_000.0
    """Base of RoPE's wavelengths."""
    attention: str = "softmax"
    """softmax, sigmoid, elu, elu_kernel, linear, mlp."""
    normalizer: str = "sum"
    """sum, unit (Z = 1), clamped_sum (max(|sum|, 1)), p_norm."""
    normalizer_p: float = 1.0
    """p of the p_norm normaliser."""
    attention_row_sum: float = 1.0
    """a of scaled attention: the normalised weights are multiplied by a."""
    attention_bias: AttentionBias = "none"
    """A learned token before the first, or a learned key, value or both in each layer."""
    attention_bias_by: Literal["head", "layer"] = "head"
    """Whether each key-value head has its own k, v or kv bias, or a layer's heads share one."""
    window: int = 0
    """Keys a query sees, itself included; 0: all before it."""
    prefix: int = 0
    """First tokens that are visible to all queries; 0: plain causal."""
    initializer: str = "constant"
    """constant, by_layer, gpt, regmix."""
    initializer_std: float = 0.02
    """Standard deviation that constant, by_layer and gpt start from."""

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_variants(self)
        for field, folder in PLUGIN_FIELDS.items():
            _check_name(field, folder, getattr(self, field))

    @property
    def kv_heads(self) -> int:
        """Key and value heads, with 0 resolved."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_size(self) -> int:
        """Size of a head, with 0 resolved."""
        return self.head_dim or self.width // self.num_heads

    @property
    def hidden_targets(self) -> int:
        """First targets of a sequence that count nothing: a prefix LM's queries see them."""
        return max(self.prefix - 1, 0)

    @property
    def num_params(self) -> int:
        """All parameters; a tied matrix counts once. Builds the model on the meta device."""
        return sum(self.params_by_part.values())

    @property
    def num_params_without_embeddings(self) -> int:
        """Parameters outside the embedding and the output matrix, as RegMix counts its sizes."""
        parts = self.params_by_part
        return self.num_params - parts.get("embedding", 0) - parts.get("head", 0)

    @property
    def params_by_part(self) -> dict[str, int]:
        """Parameters of the embedding, attention, feed-forward and so on; they sum to the whole."""
        from gristmill.models.lm.counts import params_by_part

        return params_by_part(self)

    def flops_per_token(
        self, seq_len: int = 0, *, attention: Literal["full", "causal"] = "full"
    ) -> int:
        """FLOPs of forward and backward a token; see counts.flops_per_token."""
        from gristmill.models.lm.counts import flops_per_token

        return flops_per_token(self, seq_len or self.context_length, attention=attention)

    def memory_per_gpu(
        self, *, micro_batch_size: int, seq_len: int = 0, workers: int = 1, zero_stage: int = 0
    ) -> "Memory":
        """Bytes a GPU in bf16 mixed precision; see memory.estimate for precision and more."""
        from gristmill.models.lm.memory import estimate

        return estimate(
            self,
            micro_batch_size=micro_batch_size,
            seq_len=seq_len or self.context_length,
            workers=workers,
            zero_stage=zero_stage,
        )

    def build(self, *, device: str = "cpu", seed: int = 0) -> "Decoder":
        """The model in float32, its start drawn from the seed, the same on every device.

        Args:
            device: Where the parameters lie; `meta` gives shapes only, in no memory.
            seed: Of the start.

        Raises:
            BadInputError: Two variants do not go together.
        """
        from gristmill.models.lm.decoder import build

        return build(self, device=device, seed=seed)


def _check_shapes(config: ModelConfig) -> None:
    for name in (
        "vocab_size",
        "width",
        "num_layers",
        "num_heads",
        "ffn_hidden",
        "context_length",
        "series",
    ):
        if getattr(config, name) < 1:
            raise BadInputError(f"{name} must be 1 or more, not {getattr(config, name)}")
    if not config.head_dim and config.width % config.num_heads:
        raise BadInputError(
            f"width {config.width} is no multiple of num_heads {config.num_heads}; set head_dim"
        )
    if config.num_heads % config.kv_heads:
        raise BadInputError(
            f"num_heads {config.num_heads} is no multiple of num_kv_heads {config.kv_heads}"
        )
    if config.positions == "rope" and config.head_size % 2:
        raise BadInputError(f"rope needs an even head size, not {config.head_size}")
    if config.shortcuts and config.width % config.shortcut_reduction:
        raise BadInputError(
            f"width {config.width} is no multiple of shortcut_reduction {config.shortcut_reduction}"
        )


def _check_variants(config: ModelConfig) -> None:
    for name in ("num_kv_heads", "head_dim", "shortcuts", "window", "prefix"):
        if getattr(config, name) < 0:
            raise BadInputError(f"{name} must be 0 or more, not {getattr(config, name)}")
    for name in (
        "norm_eps",
        "shortcut_reduction",
        "rope_theta",
        "normalizer_p",
        "attention_row_sum",
        "initializer_std",
    ):
        if not getattr(config, name) > 0:
            raise BadInputError(f"{name} must be over 0, not {getattr(config, name)}")
    if config.prefix >= config.context_length:
        raise BadInputError(
            f"prefix {config.prefix} leaves nothing to learn in {config.context_length} tokens"
        )


def _check_name(field: str, folder: str, name: str) -> None:
    if name.startswith(plugins.PYTHON_PREFIX):
        return
    known = plugins.names(f"{PACKAGE}.{folder}")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise BadInputError(f"no {field} named {name!r}{hint}; known: {', '.join(known)}")
