"""Run a command and note the most memory that it and all processes below it hold at once."""

import os
import subprocess
import sys
import threading
import time


def peak_of(command, env=None):
    """(peak in MB of the proportional set sizes of the process tree, seconds, output)."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )
    peak, stop = [0.0], threading.Event()

    def look():
        while not stop.wait(0.1):
            peak[0] = max(peak[0], sum(map(_pss_mb, _tree(process.pid))))

    thread = threading.Thread(target=look)
    thread.start()
    output, _ = process.communicate()
    stop.set()
    thread.join()
    if process.returncode:
        sys.exit(f"{command} failed:\n{output[-3000:]}")
    return peak[0], time.monotonic() - started, output


def _tree(root):
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(name))
    found, queue = [], [root]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def _pss_mb(pid):
    """Private and shared pages, the shared ones split among those who share them."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            lines = [line.split() for line in file if line.startswith("Pss:")]
    except OSError:
        return 0.0
    return int(lines[0][1]) / 1024 if lines else 0.0
