"""A process beside a training's rank that copies what the rank says to the run, and outlives it.

So the trace of a crash, and the last lines before a kill, are kept: the rank itself cannot.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from gristmill.execution.worker_log import (
    DIED,
    ENDED,
    WorkerLog,
    alive,
    log_name,
    look,
    own_files,
    say_all,
)

LOOK_SECONDS = 15.0
GOODBYE = b"goodbye\n"
GOODBYE_SECONDS = 20.0
"""How long a rank waits for its last lines to be stored."""


@contextlib.contextmanager
def followed(folder: str, kind: str) -> Iterator[None]:
    """Within, a helper copies what this process says; after, all has been copied.

    Args:
        folder: Of the run's logs; empty: nothing is copied.
        kind: What the log's name begins with.
    """
    say_all()
    sources = own_files() if folder else []
    if not sources:
        yield
        return
    asked = {"sources": sources, "folder": folder, "name": log_name(kind)}
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    helper = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid()), json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,  # what ends the rank must not end it
    )
    assert helper.stdin is not None
    assert helper.stdout is not None
    _hear(helper.stdout)  # that it has seen where the files end now
    helper.wait()  # its child stays
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            helper.stdin.write(GOODBYE)
            helper.stdin.close()
            _hear(helper.stdout)  # that it has ended
        helper.stdout.close()


def _hear(stream: IO[bytes]) -> None:
    if select.select([stream], [], [], GOODBYE_SECONDS)[0]:
        os.read(stream.fileno(), 64)


def main(argv: Sequence[str]) -> None:
    """The helper: `PID JSON`, where PID is the process that is followed."""
    pid, asked = int(argv[0]), json.loads(argv[1])
    log = WorkerLog(**asked)
    os.write(1, b"ready\n")
    if os.fork():  # Ray ends the children of a worker with it; a grandchild stays
        os._exit(0)
    told, next_look = b"", time.monotonic() + LOOK_SECONDS
    while not told and alive(pid):
        readable, _, _ = select.select([0], [], [], 1.0)
        if readable:  # a word, or the end of the pipe with the process
            told = os.read(0, 64) or b"end"
        elif time.monotonic() >= next_look:
            look(log)
            next_look = time.monotonic() + LOOK_SECONDS
    look(log, ENDED if told == GOODBYE else DIED)


if __name__ == "__main__":
    main(sys.argv[1:])
