"""No positions."""

from gristmill.models.lm.positions.base import Position


class NoPosition(Position):
    """Order comes from the causal mask alone (NoPE, arXiv:2305.19466)."""
