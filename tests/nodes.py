"""Two Ray nodes on this machine, in a process of their own, told to come and go."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
from killing import environment

HOST = Path(__file__).with_name("two_node_host.py")


class Nodes:
    """The two nodes, in a process of their own."""

    def __init__(self) -> None:
        env = environment(OMP_NUM_THREADS="1")
        self._process = subprocess.Popen(
            [sys.executable, HOST],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._answer()

    def _answer(self):
        for line in self._process.stdout:
            if re.fullmatch(r"[\d.]+:\d+|\w+ done", line.strip()):
                return line.strip()
        raise AssertionError("the nodes' process ended")

    def tell(self, words):
        """Have it done."""
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        self._answer()

    def workers(self, title):
        """Ray's processes of these nodes whose titles begin like a pattern."""
        found = psutil.Process(self._process.pid).children(recursive=True)
        return [p for p in found if re.match(title, " ".join(words_of(p)))]

    def close(self):
        """End both nodes."""
        self._process.stdin.close()
        self._process.wait(60)


def words_of(process):
    """Its command line; empty when it has gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
