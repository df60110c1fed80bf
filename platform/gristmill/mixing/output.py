"""Where a job of tables writes: a run's folder, or one CSV with the run's folder beside it."""

from gristmill.core import io

CSV = ".csv"
BESIDE = ".csv.run"


def run_folder(out: str) -> str:
    """The folder of the run that `--out` asks for: itself, or `P.csv.run` beside `P.csv`."""
    return f"{out}.run" if out.endswith(CSV) else out


def publish(folder: str, name: str) -> str:
    """Copy a table of the run to the CSV that `--out` named, if it did; returns where it lies."""
    inside = io.join(folder, name)
    if not folder.endswith(BESIDE):
        return inside
    beside = folder.removesuffix(".run")
    io.write_bytes(beside, io.read_bytes(inside))
    return beside
