"""The contract of a probe: it is shown a model's insides batch after batch, and keeps sums.

Nothing that grows with the number of sequences is kept, and no matrix of tokens by tokens outlives
the call that shows it. So a probe runs as well on a checkpoint as beside a training step.

Shapes: B sequences, T tokens, H query heads, K key-value heads, S keys, M width, D head size.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gristmill.models.lm.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

Shown = Literal["hidden", "attention", "keys", "values"]


class Probe(ABC):
    """Base of probes. One is made for each domain; `result` may be asked at any time."""

    shows: ClassVar[frozenset[Shown]] = frozenset()
    """What `see` wants. Anything but hidden costs the fused attention kernels."""
    seq_len: ClassVar[int] = 0
    """Tokens of a sequence, where the definition fixes them; 0: whatever it is given."""
    num_sequences: ClassVar[int] = 0
    """Sequences, where the definition fixes them; 0: whatever it is given."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.sink_token = int(config.attention_bias == "sink_token")
        """Rows of hidden states before the first token of the text."""
        self.extra_key = int(config.attention_bias in ("sink_token", "k", "kv"))
        """Columns of attention, keys and values before the first token of the text."""

    def see(self, layer: int, what: Shown, shown: "Tensor") -> None:  # noqa: B027 - some see none
        """A part of the model at work.

        Args:
            layer: 0 to num_layers - 1; of hidden states 0 is the first block's input, num_layers
                the last block's output.
            what: Which part.
            shown: hidden [B, T, M]; attention [B, H, T, S]; keys and values [B, K, S, D].
        """

    @abstractmethod
    def end_batch(self, losses_BT: "Tensor") -> None:
        """All layers of a batch were shown; its loss a token, in nats."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """The numbers, as JSON values; lists are by layer."""
