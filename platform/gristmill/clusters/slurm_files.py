"""Checks of Slurm scripts: sbatch's options, and one Ray a node that holds what jobs ask for."""

import functools
import json
import re
import shlex
from importlib.resources import files
from typing import Any

from gristmill.clusters.command_rules import check_dashboard, check_ray_options
from gristmill.clusters.findings import Checked
from gristmill.clusters.rules import check_ranks, ranks_of
from gristmill.clusters.scripts import check_shell

SYMMETRIC = re.compile(r"ray symmetric-run\b(.*)", re.S)
NOT_WITH_SYMMETRIC = ("--head", "--node-ip-address", "--port", "--block")


@functools.cache
def _slurm() -> dict[str, Any]:
    path = files("gristmill.clusters").joinpath("slurm_options.json")
    return dict(json.loads(path.read_text()))


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
    if ranks_of(checked.text) and not {"gpus-per-node", "gres", "gpus"} & set(options):
        checked.wrong("#SBATCH --gpus-per-node", "missing: the job would hold nodes and no GPUs")
    if "exclusive" not in options:
        checked.wrong(
            "#SBATCH --exclusive", "missing: Ray takes the whole node, others' jobs on it too"
        )
    if "requeue" not in options:
        checked.wrong(
            "#SBATCH --requeue", "missing: a lost node would end the job; the same command resumes"
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
    if separator:
        check_ray_options(checked, "ray symmetric-run", before, ("--address", "--min-nodes"))
    _check_step(checked, options, body, before)
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


def _check_step(checked: Checked, options: dict[str, str], body: str, start: str) -> None:
    """One Ray a node, and no wait for more nodes than there are."""
    for found in re.finditer(
        r"srun\b[^;]*?--ntasks-per-node[= ](\d+)[^;]*?ray symmetric-run", body
    ):
        if found[1] != "1":
            checked.wrong(
                "srun --ntasks-per-node", f"{found[1]}: starts {found[1]} Rays a node; set it to 1"
            )
    least = re.search(r"--min-nodes[= ](\d+)", start)
    nodes = int(options.get("nodes", "1").partition("-")[0])
    if least and int(least[1]) > nodes:
        checked.wrong(
            "ray symmetric-run --min-nodes",
            f"{least[1]}, the job has {nodes} nodes: it would wait for ever",
        )


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
