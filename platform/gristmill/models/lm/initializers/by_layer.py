"""Smaller the deeper."""

import math

from gristmill.models.lm.initializers.base import Initializer, Matrix


class ByLayer(Initializer):
    """N(0, initializer_std / sqrt(layer)) in layer 1, 2, ... (arXiv:2402.02791, section 3.3).

    That paper compares a standard deviation by layer but the rule is not given in our source; this
    is depth-scaled initialisation (Zhang et al. 2019, arXiv:1908.11365, eq. 9).
    """

    def std(self, matrix: Matrix) -> float:
        """Falls with depth; matrices outside the layers count as the first."""
        return self.base_std / math.sqrt(max(matrix.layer, 1))
