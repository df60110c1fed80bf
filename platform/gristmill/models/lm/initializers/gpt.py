"""GPT-2's start."""

import math

from gristmill.models.lm.initializers.base import Initializer, Matrix


class Gpt(Initializer):
    """N(0, initializer_std), over sqrt(2 L) where a matrix writes to the residual stream.

    GPT-2 (Radford et al. 2019, section 2.3); compared in arXiv:2402.02791, section 3.3.
    """

    def std(self, matrix: Matrix) -> float:
        """Smaller for the outputs of attention and feed-forward."""
        if matrix.role in ("attention_out", "ffn_down"):
            return self.base_std / math.sqrt(2 * self.num_layers)
        return self.base_std
