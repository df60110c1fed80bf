"""One standard deviation for all."""

from gristmill.models.lm.initializers.base import Initializer, Matrix


class Constant(Initializer):
    """N(0, initializer_std) everywhere: what PanGu-pi Pro recommends (arXiv:2402.02791, 3.3)."""

    def std(self, matrix: Matrix) -> float:
        """The same for every matrix."""
        del matrix
        return self.base_std
