"""jobs/: a file for every command that keeps a run, whose header shows a line that works."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from gristmill.core import io
from gristmill.recipes import commands

JOBS = Path(__file__).parents[2] / "jobs"
NAMES = sorted(
    f"{group} {verb}".strip().replace(" ", "_").replace("-", "_")
    for group, verbs in commands.COMMANDS.items()
    for verb, command in verbs.items()
    if not command.action
)
SUBMIT = "ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/"


def test_every_command_has_its_job_and_no_job_is_left_over():
    assert sorted(path.stem for path in JOBS.glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_header_shows_a_line_that_the_command_takes(name, monkeypatch):
    said = ast.get_docstring(ast.parse((JOBS / f"{name}.py").read_text()), clean=True)
    shown = said.partition("ray job submit")[2].partition("\n\n")[0]
    line = "ray job submit " + " ".join(shown.replace("\\\n", " ").split())
    assert line.startswith(f"{SUBMIT}{name}.py "), line
    words = shlex.split(line.removeprefix(f"{SUBMIT}{name}.py "))
    assert "--help" not in words
    for word in (
        words if name != "demo" else ()
    ):  # what it reads and writes must be reachable from the cluster
        if re.search(r"\.(?:json|csv|npy|pt)$", word) or word.startswith(("/", "./")):
            assert "://" in word, f"{word} is a file of the machine that submits"

    taken = []
    monkeypatch.setattr(commands, "invoke", lambda found: taken.append(found) or 0)
    monkeypatch.setattr(io, "read_json", lambda *_a, **_k: {"weights": {"a": 1.0}})
    group, _, verb = name.partition("_")
    asked = [group, *filter(None, [verb.replace("_", "-")]), *words]
    assert commands.main(asked) == 0
    out = taken[0].job.out
    assert not taken[0].plan and (out.startswith("s3://") or name == "demo")
