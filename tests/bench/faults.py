"""What jobs make of faults, each in the middle of a real job on two real Ray nodes.

Every cell runs a job in a process of its own that joins the cluster, strikes when the job is in the
middle, runs the same command again if it ended, and compares what it left with an undisturbed run.
"""

import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fault_jobs import SUBJECTS
from killing import start
from nodes import Nodes, words_of

from gristmill.core.run import Run
from gristmill.execution.session import source_root

NOTICE_SECONDS = 10
"""Two minutes on AWS, 30 seconds on Google Cloud and Azure: less here, so that it takes less."""
REPLACED_SECONDS = 5.0
"""After a machine went, another comes, as from an autoscaler; a cloud takes minutes more."""
LIMIT_SECONDS = 240
LOST_NODE = "node taken away"
FAULTS = ("driver kill -9", "worker kill -9", LOST_NODE, "notice, then taken away")
RESUMES = 2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What became of one job under one fault."""

    outcome: str
    seconds: float
    """From the first start to DONE; 0 where it was never struck."""
    calm: float

    def line(self, job, fault):
        """A row of the table."""
        lost = f"{self.seconds - self.calm:+.0f} s" if self.seconds else ""
        return f"| {job} | {fault} | {self.outcome} | {self.calm:.0f} s | {lost} |"


def run(out, heading):
    """A row a job and fault."""
    chosen = [name for name in os.environ.get("FAULT_JOBS", "").split(",") if name] or SUBJECTS
    shutil.rmtree(out, ignore_errors=True)
    rows = []
    for name in chosen:
        folder = out / name
        folder.mkdir(parents=True)
        subject = SUBJECTS[name](folder)
        nodes = Nodes()
        try:
            calm = _undisturbed(subject, folder, nodes)
            for fault in FAULTS:
                cell = _cell(subject, fault, folder, nodes, calm)
                rows.append(cell.line(subject.title, fault))
                print(rows[-1], flush=True)
        finally:
            nodes.close()
    return heading("What faults do to jobs", "make faults") + TEXT + "\n".join(rows) + "\n"


TEXT = f"""Each job runs on a real Ray cluster of two nodes with one CPU each. When it is in the middle, the fault
strikes; if the job ends by it, the same command is given again. *Same outputs* means equal to the byte
to those of an undisturbed run on the same two nodes. *driver kill -9*: the command's process. *worker kill
-9*: one Ray process that does the job's work. *{LOST_NODE}*: the second node and all its processes
vanish; {REPLACED_SECONDS:.0f} s later another comes. *notice*: the provider says {NOTICE_SECONDS} s before that it will take the
node (`ray drain-node`, reason preemption). Time lost is the wall time beyond the undisturbed run's, the
second start included: a start takes 5 to 40 s here, whatever the job's size. `clip train` and `lm train`
run with `--max-failures 1`.

| job | fault | outcome | undisturbed | time lost |
| --- | --- | --- | --- | --- |
"""


def _undisturbed(subject, folder, nodes):
    """Seconds of a run to which nothing happens."""
    began = time.monotonic()
    process = _start(subject, folder / "calm", folder / "log", nodes)
    assert process.status() == 0, (folder / "log").read_text()[-3000:]
    return process.ended - began


def _start(subject, out, log, nodes):
    path = os.pathsep.join([source_root(), str(Path(__file__).parents[1])])
    extra = {"RAY_ADDRESS": nodes.address, "PYTHONPATH": path}
    return _Watched(start(*subject.words, "--out", out, log=log, **extra))


class _Watched:
    """A command, and when it ended."""

    def __init__(self, process):
        self.process, self.ended = process, 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        self.process.wait()
        self.ended = time.monotonic()

    def status(self):
        """Its exit code; "hung" when it had to be ended."""
        self._thread.join(LIMIT_SECONDS)
        if not self.ended:
            self.process.kill()
            self._thread.join()
            return "hung"
        return self.process.returncode


def _cell(subject, fault, folder, nodes, calm):
    out = folder / fault.replace(" ", "-").replace(",", "")
    log = folder / f"{out.name}.log"
    nodes.tell("add")
    began = time.monotonic()
    process = _start(subject, out, log, nodes)
    while not subject.half_way(out):
        if process.ended or time.monotonic() - began > LIMIT_SECONDS:
            process.process.kill()
            return Cell(outcome=f"never in the middle: {_last(log)}", seconds=0.0, calm=calm)
        time.sleep(0.02)
    if Run(str(out)).done() is not None:
        return Cell(outcome="done before the fault", seconds=0.0, calm=calm)
    _strike(subject, fault, process, nodes)
    status, starts = process.status(), 1
    while status != 0 and starts <= RESUMES:
        process = _start(subject, out, log, nodes)
        status, starts = process.status(), starts + 1
    seconds = process.ended - began
    if status != 0:
        return Cell(outcome=f"failed: {_last(log)}", seconds=seconds, calm=calm)
    same = subject.outputs(out) == subject.outputs(folder / "calm")
    how = "by itself" if starts == 1 else f"after the same command again ({starts} starts)"
    return Cell(
        outcome=f"{'same outputs' if same else 'OTHER OUTPUTS'}, {how}",
        seconds=seconds,
        calm=calm,
    )


def _strike(subject, fault, process, nodes):
    """Do it, and have another node come where one went."""
    if fault.startswith("driver"):
        process.process.send_signal(signal.SIGKILL)
        process.status()
        return
    if fault.startswith("worker"):
        end = time.monotonic() + 20
        while not (found := nodes.workers(subject.worker)):
            assert time.monotonic() < end, [words_of(p) for p in nodes.workers("ray::")]
            time.sleep(0.02)
        found[-1].send_signal(signal.SIGKILL)
        return
    if fault != LOST_NODE:
        nodes.tell(f"drain {NOTICE_SECONDS}")
        end = time.monotonic() + NOTICE_SECONDS
        while time.monotonic() < end and not process.ended:
            time.sleep(0.1)
    nodes.tell("remove")
    time.sleep(REPLACED_SECONDS)
    nodes.tell("add")


def _last(log):
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200].replace("|", "/") if lines else "it said nothing"
