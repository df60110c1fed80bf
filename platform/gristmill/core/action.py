"""An action: a frozen dataclass that the command line parses, and that keeps no run.

Jobs make results and resume; an action looks at something, writes plain files, or talks to a
cluster, and is over.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Action(ABC):
    """Base of all actions. A child adds fields and `act`; nothing derives from a child."""

    takes_more: ClassVar[bool] = False
    """Whether words that are no option of its own go, in their order, into its field `words`."""

    @abstractmethod
    def act(self) -> int:
        """Do it; the process's exit status."""
