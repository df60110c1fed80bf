"""Where one rank stands. Needs torch only for the type of its device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this rank stands."""

    rank: int
    world_size: int
    device: "torch.device"


def never() -> bool:
    """No machine is ever taken away."""
    return False
