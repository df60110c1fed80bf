"""A node lost, or the driver killed, in mid job: the same bytes, and little work done twice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from group_filters import Logged, SameLetters
from killing import environment, finish, kill_driver_when, markers
from made_up import write_numbered

from gristmill.core.job import run_job
from gristmill.execution.session import source_root
from gristmill.pools.selection import FilterJob

pytestmark = pytest.mark.ray
TESTS = Path(__file__).parents[1]
GROUPS = 60


@pytest.fixture
def pool(tmp_path):
    """As many slices as files, since a slice does not cross files."""
    return write_numbered(tmp_path / "p", GROUPS)


def asked(log):
    return sum(int(f.read_text()) for f in log.iterdir())


def chosen(log, seconds=0.0):
    first, last = (Logged(folder=str(log), seconds=seconds) for _ in range(2))
    return first & SameLetters(best_by="score") & last


@pytest.mark.slow
def test_a_node_removed_in_mid_job(pool, tmp_path):
    calm, log, out = tmp_path / "calm", tmp_path / "log", tmp_path / "o"
    for folder in (calm, log):
        folder.mkdir()
    run_job(FilterJob(pool=str(pool), filter=chosen(calm), out=str(tmp_path / "c")))
    path = os.pathsep.join([source_root(), str(TESTS)])
    done = subprocess.run(
        [sys.executable, TESTS / "two_nodes.py", pool, out, log],
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before = int(re.search(r"done before: (\d+)", done.stdout).group(1))
    assert 10 <= before < GROUPS and "nodes left: 1" in done.stdout
    for name in ("subset.npy", "stats.json"):
        got, want = (
            re.sub(rb'"folder": "[^"]*"|"seconds": [\d.]+', b"", (f / name).read_bytes())
            for f in (out, tmp_path / "c")
        )
        assert got == want
    assert asked(calm) <= asked(log) <= 1.1 * asked(calm)


@pytest.mark.slow
def test_the_driver_killed_in_mid_job_repeats_under_a_tenth(pool, tmp_path):
    calm, log, out = tmp_path / "calm", tmp_path / "log", tmp_path / "o"
    for folder in (calm, log):
        folder.mkdir()
    run_job(FilterJob(pool=str(pool), filter=chosen(calm), out=str(tmp_path / "c")))
    path = os.pathsep.join([source_root(), str(TESTS)])
    part = f"python:group_filters:Logged(folder={log}, seconds=0.05)"
    expression = f"{part} & python:group_filters:SameLetters(best_by=score) & {part}"
    words = ["pool", "filter", expression, "--pool", pool, "--out", out]
    kill_driver_when(
        lambda: markers(out / ".work" / "judged") >= 20,
        *words,
        log=tmp_path / "text",
        PYTHONPATH=path,
    )
    assert not (out / "DONE").exists()
    status, text = finish(*words, log=tmp_path / "text", PYTHONPATH=path)
    assert status == 0, text
    assert "rows were done before" in text
    assert (out / "subset.npy").read_bytes() == (tmp_path / "c" / "subset.npy").read_bytes()
    assert asked(calm) <= asked(log) <= 1.1 * asked(calm)
