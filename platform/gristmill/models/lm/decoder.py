"""The decoder. Read forward of Decoder and Block; every variant is a part chosen by ModelConfig.

Shapes: B batch, T tokens, M width, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gristmill.core import plugins
from gristmill.core.errors import BadInputError
from gristmill.models.lm import visibility
from gristmill.models.lm.cache import KvCache
from gristmill.models.lm.config import PACKAGE, AttentionKernel, ModelConfig
from gristmill.models.lm.feed_forward.base import FeedForward
from gristmill.models.lm.loss import IGNORE, Reduction, chunked_cross_entropy
from gristmill.models.lm.positions.base import Position
from gristmill.models.lm.self_attention import Pass, SelfAttention, Watch
from gristmill.models.lm.shortcuts import AugmentedShortcuts


class Decoder(nn.Module):
    """Token ids in, logits or their cross entropy out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute_blocks = False
        """Keep only each block's input for backward, and compute the block again there."""
        self.kernel: AttentionKernel = "auto"
        """What computes softmax attention that is not plainly causal."""
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        if config.attention_bias == "sink_token":
            self.sink_token_M = nn.Parameter(torch.empty(config.width))
        self.positions: Position = plugins.find(f"{PACKAGE}.positions", config.positions, Position)(
            config
        )
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = Head(config)
        self.tie()

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        cache: KvCache | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Logits, [B, T, V], or with targets their cross entropy without ever holding all logits.

        Args:
            tokens_BT: Token ids.
            targets_BT: The token that follows each, or loss.IGNORE. A prefix LM ignores targets
                that lie within its prefix, since every query sees those.
            reduction: Of the cross entropy; none gives [B, T].
            cache: Keys and values of earlier tokens, which these continue; these are added.
            watch: Called with "hidden" (each block's input, then the last output), "attention",
                "keys" and "values" of each layer.

        Raises:
            BadInputError: The tokens do not fit the cache, the positions or the prefix.
        """
        hidden_BTM = self.hidden(tokens_BT, cache=cache, watch=watch)
        if targets_BT is None:
            return self.head(hidden_BTM)
        if hidden := self.config.hidden_targets:
            targets_BT = targets_BT.clone()
            targets_BT[:, :hidden] = IGNORE
        return self.head(hidden_BTM, targets_BT, reduction)

    def hidden(
        self, tokens_BT: Tensor, *, cache: KvCache | None = None, watch: Watch | None = None
    ) -> Tensor:
        """What the output matrix reads, [B, T, M]."""
        past, num_new = cache.num_tokens if cache else 0, tokens_BT.shape[1]
        self._check(past, num_new, cache)
        text_T = torch.arange(past, past + num_new, device=tokens_BT.device)
        x_BTM = self.positions.embed(self.embedding(tokens_BT), text_T)
        if sink := self.config.attention_bias == "sink_token" and past == 0:
            first = self.sink_token_M.to(x_BTM.dtype).expand(x_BTM.shape[0], 1, -1)
            x_BTM = torch.cat((first, x_BTM), dim=1)
        now = self._pass(x_BTM, past, num_new, cache, watch)
        for i, block in enumerate(self.blocks):
            if watch is not None:
                watch(i, "hidden", x_BTM)
            if self.recompute_blocks and torch.is_grad_enabled():
                x_BTM = checkpoint(block, x_BTM, now, use_reentrant=False)
            else:
                x_BTM = block(x_BTM, now)
        if watch is not None:
            watch(len(self.blocks), "hidden", x_BTM)
        if cache is not None:
            cache.advance(tokens=num_new, columns=num_new + sink)
        return self.norm(x_BTM[:, 1:] if sink else x_BTM)

    def tie(self) -> None:
        """Make the output matrix the embedding, where the configuration says so."""
        if self.config.tied:
            self.head.weight = self.embedding.weight

    def _pass(
        self, x_BTM: Tensor, past: int, num_new: int, cache: KvCache | None, watch: Watch | None
    ) -> Pass:
        """Mask, score bias and rotation, made once for all layers."""
        config, device = self.config, x_BTM.device
        sink = config.attention_bias == "sink_token"
        learned_key = config.attention_bias in ("k", "kv")
        queries_T = visibility.places(
            past, past + num_new, before=sink and past == 0, device=device
        )
        keys_S = visibility.places(0, past + num_new, before=sink or learned_key, device=device)
        kernel = visibility.kernel_for(
            config, self.kernel, device=device.type, cached=cache is not None
        )
        view = visibility.view_of(
            config,
            self.positions,
            queries_T,
            keys_S,
            same=past == 0 and not learned_key,
            dtype=x_BTM.dtype,
            kernel=kernel,
        )
        rotation = self.positions.rotation(queries_T.clamp(min=0))
        if rotation is not None:
            wide = torch.promote_types(x_BTM.dtype, torch.float32)
            rotation = (rotation[0].to(wide), rotation[1].to(wide))
        return Pass(view, rotation, cache, watch)

    def _check(self, past: int, num_new: int, cache: KvCache | None) -> None:
        if cache is not None:
            cache.check(num_new)
            if past == 0 and num_new < self.config.prefix:
                raise BadInputError(
                    f"a prefix LM reads its {self.config.prefix} prefix tokens at once, "
                    f"not {num_new}; give a longer prompt"
                )
        limit = self.config.context_length
        if self.config.positions == "learned" and past + num_new > limit:
            raise BadInputError(
                f"{past + num_new} tokens are more than the {limit} learned positions"
            )


class Block(nn.Module):
    """Attention with its shortcuts, then the feed-forward, each beside the identity."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.pre_norm = config.norm_placement == "pre"
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = SelfAttention(config, layer)
        self.shortcuts = AugmentedShortcuts(config) if config.shortcuts else None
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.feed_forward: FeedForward = plugins.find(
            f"{PACKAGE}.feed_forward", config.feed_forward, FeedForward
        )(config)

    def forward(self, x_BTM: Tensor, now: Pass) -> Tensor:
        """The residual stream after this block, [B, T, M]."""
        if self.pre_norm:
            x_BTM = x_BTM + self._mix(self.attention_norm(x_BTM), now)
            return x_BTM + self.feed_forward(self.feed_forward_norm(x_BTM))
        x_BTM = self.attention_norm(x_BTM + self._mix(x_BTM, now))
        return self.feed_forward_norm(x_BTM + self.feed_forward(x_BTM))

    def _mix(self, z_BTM: Tensor, now: Pass) -> Tensor:
        mixed_BTM = self.attention(z_BTM, now)
        return mixed_BTM if self.shortcuts is None else mixed_BTM + self.shortcuts(z_BTM)


class Head(nn.Module):
    """The output matrix, and the cross entropy that reads it.

    The loss is computed in here so that a sharded matrix (ZeRO-3) is whole while it is read.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.chunk_tokens = 0
        """Tokens whose logits are held at once; 0: as suits the device."""

    def forward(
        self,
        hidden_BTM: Tensor,
        targets_BT: Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Logits, or with targets their cross entropy."""
        if targets_BT is None:
            return nn.functional.linear(hidden_BTM, self.weight)
        loss = chunked_cross_entropy(
            hidden_BTM.flatten(0, 1),
            self.weight,
            targets_BT.flatten(),
            reduction=reduction,
            chunk_tokens=self.chunk_tokens,
        )
        return loss.view_as(targets_BT) if reduction == "none" else loss


def build(config: ModelConfig, *, device: str = "cpu", seed: int = 0) -> Decoder:
    """See ModelConfig.build."""
    from gristmill.models.lm.initializers.base import initialize

    with torch.device("meta"):  # no memory, and no time spent on torch's own start
        model = Decoder(config)
    if device != "meta":
        model.to_empty(device=device)
        model.tie()
        initialize(model, config, seed=seed)
    return model
