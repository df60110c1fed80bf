"""How often each proxy was begun again: noted as it happens, so a driver's death loses none."""

from gristmill.core import io
from gristmill.execution.slices import committed
from gristmill.mixing.results import file_name

RETRIED = "retried"


def note_retry(results: str, index: str) -> None:
    """Count one more, beside the results."""
    uri = io.join(results, RETRIED, file_name(index))
    before = io.read_json(uri)["times"] if io.exists(uri) else 0
    io.write_json(uri, {"index": index, "times": before + 1})


def load_retries(results: str) -> dict[str, int]:
    """Index -> times, in all runs of the same command."""
    found = committed(io.join(results, RETRIED)).values()
    return {one["index"]: one["times"] for one in found}
