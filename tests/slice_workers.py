"""Slice workers for tests; here, at the root, where Ray's workers find them."""

import ctypes
import errno
import os
import signal
from dataclasses import dataclass

from gristmill.core.errors import BadInputError, CorruptDataError, TryAgainError
from gristmill.execution.work import SliceWorker


@dataclass
class Square(SliceWorker):
    """Squares the payload's number; does what its name says for some."""

    log: str
    num_gpus: float = 0.0
    ready: int = 0

    def setup(self):
        self.ready += 1

    def process(self, piece):
        number = piece.payload["number"]
        print(f"working on {number}")
        with open(os.path.join(self.log, f"{number}"), "a") as file:
            file.write(".")
        if what := piece.payload.get("what"):
            WHAT[what]()
        return {"square": number**2, "ready": self.ready}


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _crash():
    ctypes.string_at(0)


def _raise(error):
    def action():
        raise error

    return action


WHAT = {
    "die": _die,
    "crash": _crash,
    "corrupt": _raise(CorruptDataError("shard 7, byte 3: damaged")),
    "bad": _raise(BadInputError("uid 'x' is not 32 hex digits")),
    "full": _raise(OSError(errno.ENOSPC, "No space left on device")),
    "lost": _raise(ConnectionResetError("the store hung up")),
    "busy": _raise(TryAgainError("cannot reach s3://b/x now: SlowDown")),
    "bug": _raise(KeyError("nobody thought of this")),
}
