"""`cluster validate`: which kind a file is, and the checks of that kind."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from gristmill.clusters import fleet_file, policies
from gristmill.clusters.docker_files import check_dockerfile
from gristmill.clusters.findings import Checked, Finding
from gristmill.clusters.fleet import BASE, Fleet
from gristmill.clusters.grafana import check_dashboard_file
from gristmill.clusters.kubernetes_files import check_kubernetes
from gristmill.clusters.objects import Objects
from gristmill.clusters.ray_files import check_ray
from gristmill.clusters.render import render
from gristmill.clusters.rules import check_text
from gristmill.clusters.scripts import check_shell
from gristmill.clusters.slurm_files import check_slurm
from gristmill.core import io
from gristmill.core.action import Action
from gristmill.core.errors import BadInputError

KINDS = (".yaml", ".yml", ".json", ".sh", ".sbatch")


@dataclass(frozen=True, kw_only=True)
class ValidateFiles(Action):
    """Check cluster files against their schemas and our rules."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional] = ("cluster",)
    """Files and folders. Given together, objects of one file may guard those of another."""

    def act(self) -> int:
        """Check and print; 1 when something is wrong."""
        findings = 0
        for checked in validate(self.paths):
            for finding in checked.findings:
                print(finding.line())
            for warning in checked.warnings:
                print(f"warning: {warning.line()}")
            findings += len(checked.findings)
            if not checked.findings:
                print(f"{checked.name}: ok ({', '.join(checked.means)})")
            for note in checked.left_out:
                print(f"{checked.name}: not checked: {note}")
        print(f"{findings} wrong" if findings else "nothing wrong")
        return 1 if findings else 0


def validate(paths: tuple[str, ...]) -> list[Checked]:
    """Check all cluster files under some paths.

    Raises:
        BadInputError: There is no file to check.
    """
    names = [name for path in paths for name in _files(path)]
    if not names:
        raise BadInputError(f"no cluster file under {', '.join(paths)}")
    return _check_all(
        [Checked(name=n, text=io.read_bytes(n).decode(errors="replace")) for n in names]
    )


def _check_all(checked: list[Checked]) -> list[Checked]:
    """Check files together: objects of one may guard those of another."""
    documents = {c.name: _documents(c) for c in checked}
    images = [
        re.search(r"ray\[[^]]*\]==([\d.]+)", c.text) for c in checked if "Dockerfile" in c.name
    ]
    objects = Objects(
        all=tuple(d for found in documents.values() for d in found if "apiVersion" in d),
        ray=next((found[1] for found in images if found), ""),
    )
    for one in checked:
        check_text(one)
        _check(one, documents[one.name], objects)
    return checked


def findings_of(paths: tuple[str, ...]) -> list[Finding]:
    """What is wrong with all cluster files under some paths."""
    return [finding for checked in validate(paths) for finding in checked.findings]


def _files(path: str) -> list[str]:
    found = io.list_files(path, recursive=True)
    if not found:
        if not io.exists(path):
            raise BadInputError(f"no file or folder at {io.redact(path)}")
        return [path] if io.filesystem(path)[0].isfile(path) else []
    return [n for n in found if n.endswith(KINDS) or "Dockerfile" in n.rsplit("/", 1)[-1]]


def _documents(checked: Checked) -> list[dict[str, Any]]:
    """The mappings of a YAML or JSON file; none for other files."""
    import yaml

    if not checked.name.endswith((".yaml", ".yml", ".json")):
        return []
    try:
        if checked.name.endswith(".json"):
            found = [json.loads(checked.text)]
        else:
            found = [d for d in yaml.safe_load_all(checked.text) if d is not None]
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        checked.wrong("the file", " ".join(f"cannot be parsed: {error}".split()))
        return []
    return [d for d in found if isinstance(d, dict)]


def _check(checked: Checked, documents: list[dict[str, Any]], objects: Objects) -> None:
    name = checked.name.rsplit("/", 1)[-1]
    if checked.findings and not documents and checked.name.endswith(KINDS[:3]):
        return
    first = documents[0] if documents else {}
    if "Dockerfile" in name:
        check_dockerfile(checked)
    elif "#SBATCH" in checked.text:
        check_slurm(checked)
    elif name.endswith((".sh", ".sbatch")):
        check_shell(checked)
    elif any("apiVersion" in d for d in documents):
        check_kubernetes(checked, documents, objects)
    elif "cluster_name" in first or "provider" in first:
        check_ray(checked, first)
    elif "images" in first and "bucket" in first:
        _check_fleet(checked)
    elif "Statement" in first:
        policies.check_aws_policy(checked, first)
    elif "AssignableScopes" in first:
        policies.check_azure_role(checked, first)
    elif "includedPermissions" in first:
        policies.check_gcp_role(checked, first)
    elif "scrape_configs" in first:
        _check_scraping(checked, first)
    elif "panels" in first or "dashboard" in name:
        check_dashboard_file(checked, first)
    else:
        checked.wrong(
            "the file",
            "is of no kind known here; known: Ray, Kubernetes, Slurm, Docker, fleets, roles",
        )


def _check_scraping(checked: Checked, data: dict[str, Any]) -> None:
    for index, job in enumerate(data["scrape_configs"]):
        if not (job.get("file_sd_configs") or job.get("static_configs")):
            checked.wrong(f"scrape_configs.{index}", "asks no target; name files or addresses")
    checked.means.append("that each job has targets")


def _check_fleet(checked: Checked) -> None:
    """The fleet's own rules, and those of every file that it renders to."""
    try:
        fleet = fleet_file.load(checked.name)
        made = _check_all([Checked(name=n, text=text) for n, text in render(fleet)])
    except BadInputError as error:
        place, _, problem = str(error).removeprefix(f"{checked.name}: ").partition(": ")
        checked.wrong(place, problem or str(error))
        return
    finally:
        checked.means.append("the fleet's own rules, and those of what it renders to")
    told = set()
    for one in made:
        for finding in one.findings:
            if finding.problem not in told:
                told.add(finding.problem)
                checked.wrong(f"renders {one.name}: {finding.field}", finding.problem)
    _warn_of_slow_gradients(checked, fleet)


def _warn_of_slow_gradients(checked: Checked, fleet: Fleet) -> None:
    if fleet.images.gpu_base != BASE:
        return
    for cloud in ("aws", "gcp"):
        for name, (group, holds) in fleet.machines(cloud).items() if getattr(fleet, cloud) else ():
            if group.fast_network and (holds.cards or holds.gvnics or holds.rdma):
                checked.warn(
                    "images.gpu_base",
                    f"{BASE!r} has no NCCL plugin, so {cloud}.groups.{name} and its like exchange "
                    "gradients over TCP, not over the fast network they pay for; name an image "
                    "that has it",
                )
                return
