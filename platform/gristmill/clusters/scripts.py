"""Checks of shell scripts, Slurm's among them, and of Dockerfiles."""

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from gristmill.clusters.findings import Checked
from gristmill.clusters.rules import check_dashboard, check_image, check_ranks, check_start_command

SYMMETRIC = re.compile(r"ray symmetric-run\b(.*)", re.S)
NOT_WITH_SYMMETRIC = ("--head", "--node-ip-address", "--port", "--block")


@functools.cache
def _slurm() -> dict[str, Any]:
    path = files("gristmill.clusters").joinpath("slurm_options.json")
    return dict(json.loads(path.read_text()))


def _tool(name: str) -> str | None:
    """A tool of the cluster extra, beside this Python or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def check_shell(checked: Checked) -> None:
    """Bash can read it, ShellCheck has nothing against it, and Ray is started closed."""
    done = subprocess.run(["bash", "-n"], input=checked.text, capture_output=True, text=True)
    for line in done.stderr.splitlines():
        checked.wrong(line.partition(": ")[2].partition(":")[0], f"bash cannot read it: {line}")
    checked.means.append("bash -n")
    if shellcheck := _tool("shellcheck"):
        words = [shellcheck, "--format=json", "--severity=warning", "--shell=bash", "-"]
        done = subprocess.run(words, input=checked.text, capture_output=True, text=True)
        for note in json.loads(done.stdout or "[]"):
            checked.wrong(f"line {note['line']}", f"SC{note['code']}: {note['message']}")
        checked.means.append("ShellCheck")
    else:
        checked.left_out.append("ShellCheck: pip install 'gristmill[cluster]'")
    joined = checked.text.replace("\\\n", " ")
    for number, line in enumerate(joined.splitlines(), start=1):
        if not line.lstrip().startswith("#") and re.search(r"\bray start\b", line):
            # What was exported above holds for this line too.
            exported = "RAY_AUTH_MODE=token " if "RAY_AUTH_MODE=token" in checked.text else ""
            check_start_command(checked, f"ray start (line {number})", exported + line)


def check_slurm(checked: Checked) -> None:
    """The options of sbatch are real, and the nodes hold what the command asks for."""
    check_shell(checked)
    options = _sbatch_options(checked)
    checked.means.append("sbatch's options by our table")
    if "time" not in options:
        checked.wrong(
            "#SBATCH --time", "missing: a hung job would hold its nodes up to the partition's limit"
        )
    if options.get("ntasks-per-node") != "1":
        checked.wrong(
            "#SBATCH --ntasks-per-node",
            f"{options.get('ntasks-per-node')!r}: Ray wants one task a node; set it to 1",
        )
    body = " ".join(
        line for line in checked.text.replace("\\\n", " ").splitlines() if line[:1] != "#"
    )
    run = SYMMETRIC.search(body)
    if run is None:
        checked.wrong("ray symmetric-run", "missing: nothing starts Ray on the nodes")
        return
    before, separator, command = run[1].partition(" -- ")
    if not separator:
        checked.wrong("ray symmetric-run", "has no `--` before the command; Ray refuses that")
    for option in NOT_WITH_SYMMETRIC:
        if re.search(rf"{option}(?=[\s=])", before):
            checked.wrong("ray symmetric-run", f"{option} is its own to set; take it out")
    check_dashboard(checked, "ray symmetric-run", before)
    if "RAY_AUTH_MODE=token" not in checked.text:
        checked.wrong(
            "RAY_AUTH_MODE",
            "not set to token: everyone on the machines' network could run code as you",
        )
    if not re.search(r"RAY_ADDRESS=auto|--address[= ]auto", command):
        checked.wrong(
            "ray symmetric-run",
            "the command does not join the cluster; put `env RAY_ADDRESS=auto` before it",
        )
    _check_size(checked, options, before, command)


def _check_size(checked: Checked, options: dict[str, str], start: str, command: str) -> None:
    nodes = int(options.get("nodes", "1").partition("-")[0])
    a_node = int(options.get("gpus-per-node", "0").rpartition(":")[2])
    if a_node:
        check_ranks(checked, "ray symmetric-run", command, nodes * a_node)
    for name, have in (("num-gpus", a_node), ("num-cpus", int(options.get("cpus-per-task", "0")))):
        said = re.search(rf"--{name}[= ](\d+)", start)
        if said and have and int(said[1]) > have:
            checked.wrong(
                f"ray symmetric-run --{name}", f"{said[1]} said, Slurm gives {have} a node"
            )


def _sbatch_options(checked: Checked) -> dict[str, str]:
    """The #SBATCH options by their long names; unknown and misshapen ones are noted."""
    known, short = _slurm()["options"], _slurm()["short"]
    found: dict[str, str] = {}
    began = False
    for number, line in enumerate(checked.text.splitlines(), start=1):
        began = began or (bool(line.strip()) and not line.startswith("#"))
        if not line.startswith("#SBATCH"):
            continue
        if began:
            checked.wrong(
                f"line {number}", "#SBATCH after the first command: Slurm does not read it"
            )
        for word in shlex.split(line.removeprefix("#SBATCH"), comments=True):
            name, _, value = word.lstrip("-").partition("=")
            name = name if word.startswith("--") else short.get(word[1:2], word)
            value = value if word.startswith("--") else word[2:]
            if name not in known:
                checked.wrong(f"line {number}", f"sbatch has no option --{name}")
            elif not re.fullmatch(known[name], value):
                checked.wrong(f"line {number}", f"--{name} cannot be {value!r}")
            found[name] = value
    return found


def check_dockerfile(checked: Checked) -> None:
    """Hadolint has nothing against it; the base is pinned, the user is not root."""
    if hadolint := _tool("hadolint"):
        words = [hadolint, "--format=json", "--failure-threshold=error", "-"]
        done = subprocess.run(words, input=checked.text, capture_output=True, text=True)
        for note in json.loads(done.stdout or "[]"):
            if note["level"] in ("error", "warning"):
                checked.wrong(f"line {note['line']}", f"{note['code']}: {note['message']}")
        checked.means.append("Hadolint")
    else:
        checked.left_out.append("Hadolint: pip install 'gristmill[cluster]'")
    user = "root"
    stages: set[str] = set()
    for number, line in enumerate(checked.text.splitlines(), start=1):
        word, _, rest = line.strip().partition(" ")
        if word.upper() == "FROM":
            parts = [p for p in rest.split() if not p.startswith("--")]
            if parts[0] not in stages:
                check_image(checked, f"line {number}", parts[0])
            stages.add(parts[-1])
        elif word.upper() == "USER":
            user = rest.strip()
        elif word.upper() == "EXPOSE":
            checked.wrong(
                f"line {number}", "EXPOSE publishes a port under `docker run -P`; take it out"
            )
    if user.partition(":")[0] in ("root", "0"):
        checked.wrong("USER", "the container runs as root; end with another user")
