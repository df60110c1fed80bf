"""Checkpoints that open_clip can load: `checkpoints/epoch_{n}.pt` after each of n epochs.

A file appears whole or not at all, so the newest one present is the place to resume from. Nothing
else is needed: generators are reseeded from (seed, rank, epoch) at each epoch's start.

When a machine is about to be taken away, `step_{n}.pt` is written after n steps, within an epoch.
The next epoch's checkpoint replaces it.
"""

import os
import re
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError

FOLDER = "checkpoints"


def name_of(epoch: int) -> str:
    """Path of a checkpoint inside the run's folder."""
    return f"{FOLDER}/epoch_{epoch}.pt"


def epochs_done(folder: str) -> list[int]:
    """Epochs with a checkpoint in the folder, in order."""
    stems = (os.path.basename(uri) for uri in io.list_files(folder, ".pt"))
    found = (re.fullmatch(r"epoch_(\d+)\.pt", stem) for stem in stems)
    return sorted(int(match.group(1)) for match in found if match)


def step_done(folder: str) -> int:
    """Steps of the newest checkpoint within an epoch; 0 if there is none."""
    return max(_steps(folder), default=0)


def _steps(folder: str) -> list[int]:
    stems = (os.path.basename(uri) for uri in io.list_files(folder, ".pt"))
    found = (re.fullmatch(r"step_(\d+)\.pt", stem) for stem in stems)
    return [int(match.group(1)) for match in found if match]


def save_step(folder: str, step: int, content: dict[str, Any]) -> None:
    """Write a checkpoint within an epoch, after so many steps.

    Raises:
        OSError: It cannot be written.
    """
    _write(io.join(folder, f"step_{step}.pt"), content)


def save(folder: str, epoch: int, content: dict[str, Any], *, keep: int) -> None:
    """Write the checkpoint of an epoch; with `keep`, remove all but the newest so many.

    Args:
        folder: Where checkpoints lie.
        epoch: Epochs done.
        content: `name`, `state_dict`, `optimizer` and plain values; `epoch` is added.
        keep: How many to keep; 0 keeps all.

    Raises:
        OSError: It cannot be written, as when the disk is full. torch hides that in its own error.
    """
    _write(io.join(folder, f"epoch_{epoch}.pt"), {"epoch": epoch, **content})
    for step in _steps(folder):
        io.remove(io.join(folder, f"step_{step}.pt"))
    if keep:
        for old in epochs_done(folder)[:-keep]:
            io.remove(io.join(folder, f"epoch_{old}.pt"))


def _write(uri: str, content: dict[str, Any]) -> None:
    import torch

    try:
        with io.open_write(uri) as file:
            torch.save(content, file)
    except RuntimeError as error:
        hidden = _os_error(error)
        if hidden is None:
            raise
        raise hidden from error


def _os_error(error: BaseException) -> OSError | None:
    """The OSError that led to another error, if one did."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError):
        seen = seen.__cause__ or seen.__context__
    return seen


def load(folder: str, epoch: int) -> dict[str, Any]:
    """Read a checkpoint back, on CPU, without running code from the file.

    Raises:
        CorruptDataError: It cannot be read; the message names it.
    """
    return _read(io.join(folder, f"epoch_{epoch}.pt"))


def load_step(folder: str, step: int) -> dict[str, Any]:
    """Read a checkpoint within an epoch back, as `load` does.

    Raises:
        CorruptDataError: It cannot be read; the message names it.
    """
    return _read(io.join(folder, f"step_{step}.pt"))


def _read(uri: str) -> dict[str, Any]:
    import torch

    try:
        with io.open_read(uri) as file:
            data = torch.load(file, map_location="cpu", weights_only=True)
    except BadInputError:
        raise
    except Exception as error:  # torch.load has no closed set of errors
        raise CorruptDataError(
            f"cannot read checkpoint {io.redact(uri)}: {error}; "
            "remove it to resume from the one before"
        ) from error
    return dict(data)
