"""RegMix's start."""

import math

from gristmill.models.lm.initializers.base import Initializer, Matrix


class Regmix(Initializer):
    """N(0, sqrt(2 / (5 fan_in))); 1 / (sqrt(fan_in) L) for the feed-forward's last matrix.

    As the released code of RegMix (arXiv:2407.01492) and of arXiv:2410.10781; not in the papers.
    """

    def std(self, matrix: Matrix) -> float:
        """By fan in."""
        if matrix.role == "ffn_down":
            return 1 / (math.sqrt(matrix.fan_in) * self.num_layers)
        return math.sqrt(2 / (5 * matrix.fan_in))
