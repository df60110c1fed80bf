"""Keys and values of the tokens read so far, so that generation computes each token once.

Shapes: B sequences, K key-value heads, S columns, D head size.
"""

from dataclasses import dataclass, field

from torch import Tensor

from gristmill.core.errors import BadInputError


@dataclass
class KvCache:
    """Forward passes append to it. A sink token, where there is one, is column 0 and no token."""

    max_tokens: int
    """Tokens there is room for."""
    num_tokens: int = 0
    """Tokens read so far."""
    num_columns: int = 0
    """Columns so far: the tokens, and the sink token."""
    keys: list[Tensor] = field(default_factory=list)
    """By layer, [B, K, S, D]; made in the first pass, when shape and type are known."""
    values: list[Tensor] = field(default_factory=list)
    """As `keys`."""

    def append(self, layer: int, k_BKSD: Tensor, v_BKSD: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's new columns behind the old; returns all of its columns."""
        if layer == len(self.keys):
            room = (*k_BKSD.shape[:2], self.max_tokens + 1, k_BKSD.shape[3])
            self.keys.append(k_BKSD.new_empty(room))
            self.values.append(v_BKSD.new_empty(room))
        stop = self.num_columns + k_BKSD.shape[2]
        self.keys[layer][:, :, self.num_columns : stop] = k_BKSD
        self.values[layer][:, :, self.num_columns : stop] = v_BKSD
        return self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]

    def check(self, num_new: int) -> None:
        """Refuse tokens there is no room for.

        Raises:
            BadInputError: With the numbers.
        """
        if self.num_tokens + num_new > self.max_tokens:
            raise BadInputError(
                f"{self.num_tokens} + {num_new} tokens do not fit a cache of {self.max_tokens}"
            )

    def advance(self, *, tokens: int, columns: int) -> None:
        """Note what every layer has appended, at the end of a forward pass."""
        self.num_tokens += tokens
        self.num_columns += columns
