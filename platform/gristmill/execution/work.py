"""A piece of work and who does it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from gristmill.core.errors import GristmillError


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A piece of a source. `name` is unique within the map and sorts in source order."""

    name: str
    weight: int = 1
    """Units (rows, samples) in it, for the progress line."""
    payload: dict[str, Any] = field(default_factory=dict)
    """What the worker needs to find it; plain JSON values."""


class SliceWorker(ABC):
    """Handles slices. Pickled to the workers; `setup` then runs once in each."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def setup(self) -> None:  # noqa: B027 - most workers need none
        """Load models and the like."""

    @abstractmethod
    def process(self, piece: Slice) -> dict[str, Any]:
        """Handle one slice and publish its files; doing it twice must leave the same.

        Returns:
            Small JSON figures (counts by reason, hashes), kept in the slice's marker.

        Raises:
            CorruptDataError: The slice cannot be read; the message names the place.
        """


class SliceFailedError(GristmillError):
    """A slice failed; carries the worker's own words."""
