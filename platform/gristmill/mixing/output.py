"""Where a job of tables writes: a run's folder, or one CSV with the run's folder beside it."""

from gristmill.core import io
from gristmill.core.errors import BadInputError

CSV = ".csv"
BESIDE = ".csv.run"


def run_folder(out: str) -> str:
    """The folder of the run that `--out` asks for: itself, or `P.csv.run` beside `P.csv`."""
    return f"{out}.run" if out.endswith(CSV) else out


def beside(folder: str) -> str:
    """The CSV that `--out` named; empty when it named a folder."""
    return folder.removesuffix(".run") if folder.endswith(BESIDE) else ""


def require_free(folder: str, name: str) -> None:
    """Refuse to write over a CSV that is not this run's own table: another's file, or an input.

    Raises:
        BadInputError: There is one.
    """
    named, inside = beside(folder), io.join(folder, name)
    if not named or not io.exists(named):
        return
    if not io.exists(inside) or io.sha256(inside) != io.sha256(named):
        raise BadInputError(
            f"{io.redact(named)} is there already and is not what a run of this --out wrote; "
            "choose another --out, or take it away first"
        )


def publish(folder: str, name: str) -> str:
    """Copy a table of the run to the CSV that `--out` named, if it did; returns where it lies."""
    inside = io.join(folder, name)
    if named := beside(folder):
        io.write_bytes(named, io.read_bytes(inside))
    return named or inside
