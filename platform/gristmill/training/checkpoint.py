"""Checkpoints that open_clip can load: `checkpoints/epoch_{n}.pt` after each of n epochs.

A file appears whole or not at all, so the newest one present is the place to resume from. Nothing
else is needed: generators are reseeded from (seed, rank, epoch) at each epoch's start.
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
    import torch

    try:
        with io.open_write(io.join(folder, f"epoch_{epoch}.pt")) as file:
            torch.save({"epoch": epoch, **content}, file)
    except RuntimeError as error:
        hidden = _os_error(error)
        if hidden is None:
            raise
        raise hidden from error
    if keep:
        for old in epochs_done(folder)[:-keep]:
            io.remove(io.join(folder, f"epoch_{old}.pt"))


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
    import torch

    uri = io.join(folder, f"epoch_{epoch}.pt")
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
