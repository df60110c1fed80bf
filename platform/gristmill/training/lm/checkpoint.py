"""Checkpoints that know no number of workers (docs/decisions/0009-lm-checkpoints.md).

    step-00000100/state-00000-of-00002.safetensors   param/NAME, exp_avg/NAME, exp_avg_sq/NAME
    step-00000100/state-00000-of-00002.json          its size and hash
    step-00000100/checkpoint.json                    written last: files, model, position, counts

Every parameter is whole in one of the files, in float32. So they load on any number of workers and
any engine. A folder without `checkpoint.json` is no checkpoint.
"""

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.config import differences, to_dict
from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.models.lm.config import ModelConfig

if TYPE_CHECKING:
    from gristmill.training.lm.engine import Engine, ParamState

FOLDER, MANIFEST, FORMAT = "checkpoints", "checkpoint.json", 1
WAIT_SECONDS, GIVE_UP_SECONDS = 0.05, 1800.0


@dataclass(kw_only=True)
class Progress:
    """Where a training stands, apart from its tensors."""

    step: int = 0
    """Steps done."""
    position: int = 0
    """The stream's step to be read next; ahead of `step` by what rewinds passed over."""
    applied: int = 0
    """Updates the weights have had, those before a start from a checkpoint of others too."""
    skipped: int = 0
    """Steps without an update."""
    order: str = ""
    """Hash chain over all that was read."""
    drawn: dict[str, int] = field(default_factory=dict)
    """Sequences read of each domain."""
    recent: list[float] = field(default_factory=list)
    """Losses of the last good steps."""
    bad_steps: int = 0
    """Bad steps in a row."""
    rewinds: int = 0
    events: int = 0
    """Lines that the guard has written."""


def name_of(step: int) -> str:
    """Folder of a checkpoint, below the run's `checkpoints`."""
    return f"step-{step:08d}"


def steps_done(folder: str) -> list[int]:
    """Steps with a whole checkpoint in the folder, in order."""
    found = []
    for uri in io.list_files(folder, MANIFEST, recursive=True):
        if match := re.search(rf"/step-(\d+)/{MANIFEST}$", uri):
            found.append(int(match[1]))
    return sorted(found)


def read_manifest(folder: str, step: int, *, model: ModelConfig) -> dict[str, Any]:
    """What a checkpoint says of itself, its files looked at but not read.

    Raises:
        BadInputError: It is of another model.
        CorruptDataError: A file is missing or cut short.
    """
    where = io.join(folder, name_of(step))
    with _remedy(where):
        manifest = io.read_json(io.join(where, MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CorruptDataError(f"{io.redact(where)} is no checkpoint of format {FORMAT}")
    if manifest["model"] != to_dict(model):
        lines = differences(manifest["model"], to_dict(model))
        raise BadInputError(
            f"{io.redact(where)} is a checkpoint of another model (its value -> the wanted): "
            + "; ".join(lines[:5])
        )
    for name, entry in manifest["files"].items():
        uri = io.join(where, name)
        size = io.size_bytes(uri) if io.exists(uri) else None
        with _remedy(where):
            if size != entry["bytes"]:
                raise CorruptDataError(
                    f"checkpoint file {io.redact(uri)} should have {entry['bytes']:,} bytes and "
                    f"has {size}"
                )
    return manifest


def read_states(
    folder: str, step: int, manifest: dict[str, Any]
) -> "Iterator[tuple[str, ParamState]]":
    """Every parameter's state, in the order of the files, each held to its hash before it is used.

    Raises:
        CorruptDataError: A file cannot be read, or is not as it was written.
    """
    from gristmill.models.lm import safetensor_file
    from gristmill.training.lm.engine import ParamState

    where = io.join(folder, name_of(step))
    for file, entry in manifest["files"].items():
        with _remedy(where):
            tensors = safetensor_file.read(io.join(where, file), sha256=entry["sha256"])
        for name in sorted(key.removeprefix("param/") for key in tensors if key[:6] == "param/"):
            kinds = ("param", "exp_avg", "exp_avg_sq")
            yield name, ParamState(**{kind: tensors[f"{kind}/{name}"] for kind in kinds})
        del tensors  # before the next file is read


@contextlib.contextmanager
def _remedy(where: str) -> Iterator[None]:
    """Say with what is wrong in a checkpoint what to do about it."""
    try:
        yield
    except CorruptDataError as error:
        raise CorruptDataError(
            f"{error}; remove {io.redact(where)} to resume from the checkpoint before it"
        ) from error


def sweep(folder: str) -> None:
    """Remove what was begun and never finished. Only while nothing writes."""
    done = {name_of(step) for step in steps_done(folder)}
    for uri in io.list_files(folder, recursive=True, hidden=True):
        if uri.removeprefix(folder).lstrip("/").split("/")[0] not in done:
            io.remove(uri)
    io.remove_empty_folders(folder)


class Writer:
    """Writes a rank's part of each checkpoint in a thread of its own, while training goes on."""

    def __init__(self, folder: str, *, rank: int, world_size: int, keep: int, post: Any) -> None:
        self._folder, self._rank, self._world, self._keep = folder, rank, world_size, keep
        self._post = post
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def save(self, engine: "Engine", mine: frozenset[str], progress: Progress, about: Any) -> None:
        """Copy this rank's parameters now; write them, and on rank 0 the manifest, later.

        Raises:
            OSError: The checkpoint before this one could not be written.
        """
        self.wait()
        tensors: dict[str, Any] = {}
        for name, state in engine.capture(mine):
            tensors |= state.named(name)
        header = {"format": FORMAT, "progress": asdict(progress), **about}
        self._pending = self._thread.submit(self._write, progress.step, tensors, header)

    def wait(self) -> None:
        """Until all is written; raises what went wrong."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Write what is left and end the thread."""
        self.wait()
        self._thread.shutdown()

    # -- in the thread -------------------------------------------------------------------------

    def _write(self, step: int, tensors: dict[str, Any], header: dict[str, Any]) -> None:
        from gristmill.models.lm import safetensor_file

        where = io.join(self._folder, name_of(step))
        stem = self._stem(self._rank)
        uri = io.join(where, f"{stem}.safetensors")
        sha256 = safetensor_file.write(uri, tensors, metadata={"step": str(step)})
        entry = {"sha256": sha256, "bytes": io.size_bytes(uri)}
        io.write_json(io.join(where, f"{stem}.json"), entry)
        if self._rank == 0:
            self._publish(step, where, header)

    def _stem(self, rank: int) -> str:
        return f"state-{rank:05d}-of-{self._world:05d}"

    def _publish(self, step: int, where: str, header: dict[str, Any]) -> None:
        """When every rank has written its part, and the metrics up to here are safe."""
        files = {}
        end = time.monotonic() + GIVE_UP_SECONDS
        for rank in range(self._world):
            uri = io.join(where, f"{self._stem(rank)}.json")
            while uri not in io.list_files(where):  # which asks object stores anew
                if time.monotonic() > end:
                    raise RunError(
                        f"rank {rank} has not written its part of {io.redact(where)}: on several "
                        "machines --out must be storage that all share"
                    )
                time.sleep(WAIT_SECONDS)
            files[f"{self._stem(rank)}.safetensors"] = io.read_json(uri)
        self._post({"kind": "saving", "step": step})
        io.write_json(io.join(where, MANIFEST), {**header, "files": files})
        self._post({"kind": "saved", "step": step})
        for old in steps_done(self._folder)[: -self._keep] if self._keep else []:
            io.remove(io.join(self._folder, name_of(old), MANIFEST))  # first, so that it is none
            io.remove(io.join(self._folder, name_of(old)))


def manifest_hash(folder: str, step: int) -> str:
    """SHA-256 of the manifest, which has those of the files."""
    data = io.read_bytes(io.join(folder, name_of(step), MANIFEST))
    return hashlib.sha256(data).hexdigest()
