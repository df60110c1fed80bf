"""The ledger of a sweep: one JSON file a proxy, written the moment it ends.

It is the only truth about what is done. Tune's own state is never read back: a crash can lose it
(ray-project/ray#58179), and a resume would trust it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import quote

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.execution.slices import committed

Status = Literal["done", "diverged", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one proxy, for good: the same command never trains it again."""

    index: str
    """The mixture's name in the design."""
    status: Status
    """done; diverged: a loss was no number; stopped: ASHA ended it early."""
    step: int
    """Steps trained."""
    tokens: int
    """Tokens trained on."""
    seconds: float
    """Wall time of training and measuring."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Domain -> loss at that step; empty when diverged."""
    train_loss: float = 0.0
    """Mean over the last piece of training; 0 when diverged."""
    why: str = ""
    """What diverged, and when."""

    def save(self, folder: str) -> None:
        """Write it under its index, whole or not at all."""
        io.write_json(io.join(folder, file_name(self.index)), asdict(self))


def file_name(index: str) -> str:
    """The file of a proxy: an index may hold any letter, a file's name may not."""
    return quote(index, safe="").replace(".", "%2E") + ".json"


def load_results(folder: str) -> dict[str, Result]:
    """All results that are there, by index.

    Raises:
        CorruptDataError: A file is no result; names it.
    """
    found = [_result(name, entry, folder) for name, entry in committed(folder).items()]
    return {result.index: result for result in found}


def _result(name: str, entry: Any, folder: str) -> Result:
    try:
        result = Result(**entry)
        whole = name == file_name(result.index).removesuffix(".json") and all(
            math.isfinite(loss) for loss in result.losses.values()
        )
    except (TypeError, AttributeError) as error:
        raise _damaged(name, folder, repr(error)) from error
    if not whole or result.status not in get_args(Status):
        raise _damaged(name, folder, "not what a proxy writes")
    return result


def _damaged(name: str, folder: str, why: str) -> CorruptDataError:
    return CorruptDataError(
        f"the result {name}.json in {io.redact(folder)} is damaged ({why}); remove the file, and "
        "the same command trains that proxy again"
    )
