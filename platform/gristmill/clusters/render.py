"""`cluster render`: the files of a fleet, written from templates."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gristmill.clusters.fleet import BASE, Fleet
from gristmill.clusters.fleet_file import load
from gristmill.clusters.grafana import dashboard
from gristmill.core import io
from gristmill.core.action import Action
from gristmill.core.errors import BadInputError

if TYPE_CHECKING:
    from jinja2 import Environment

MARK = "Made by `gristmill cluster render`"
CLOUDS = ("aws", "gcp", "azure")
ROLES = {
    "aws": ("aws-head.json", "aws-operator.json", "aws-trust.json", "aws-worker.json"),
    "gcp": ("gcp-worker.yaml",),
    "azure": ("azure.json",),
}


@dataclass(frozen=True, kw_only=True)
class RenderFleet(Action):
    """Write the cluster files of a fleet."""

    fleet: str = "cluster/fleet.yaml"
    """The fleet file."""
    out: str = "cluster"
    """Folder for the files."""
    overwrite: bool = False
    """Replace files that this command did not write."""

    def act(self) -> int:
        """Write each file; one that a person wrote is left alone."""
        rendered = dict(render(load(self.fleet)))
        for name in rendered:
            self._refuse_foreign(name)
        for name, text in rendered.items():
            io.write_bytes(io.join(self.out, name), text.encode())
            print(io.join(self.out, name))
        return 0

    def _refuse_foreign(self, name: str) -> None:
        uri = io.join(self.out, name)
        if self.overwrite or name.endswith(".json") or not io.exists(uri):
            return
        if MARK not in io.read_bytes(uri).decode(errors="replace"):
            raise BadInputError(
                f"{io.redact(uri)} was not written by this command; choose another --out, "
                "or add --overwrite"
            )


def render(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Names and texts of all files of a fleet."""
    templates = _templates()

    def made(template: str, **values: Any) -> str:
        text: str = templates.get_template(f"{template}.j2").render(fleet=fleet, **values)
        text = re.sub(r"\n\n+(?=  |\n)", "\n", text.strip("\n")) if "yaml" in template else text
        return text.strip("\n") + "\n"

    for cloud in CLOUDS:
        if getattr(fleet, cloud):
            groups = fleet.machines(cloud)
            total = sum(group.max for group, _ in groups.values())
            yield f"{cloud}.yaml", made(f"{cloud}.yaml", groups=groups, max_workers=total)
            bucket, _, prefix = fleet.bucket.partition("://")[2].partition("/")
            prefix = f"{prefix.rstrip('/')}/" if prefix else ""
            reserved = [group for group, _ in groups.values() if group.reservation]
            for role in ROLES[cloud]:
                text = made(f"roles/{role}", bucket=bucket, prefix=prefix, reserved=reserved)
                yield f"roles/{role}", text
    if fleet.kubernetes:
        groups = fleet.machines("kubernetes")
        groups = dict(sorted(groups.items(), key=lambda item: item[1][1].gpus))
        devices = sorted({d for group, _ in groups.values() for d in group.devices})
        yield "kuberay-base.yaml", made("kuberay-base.yaml", devices=devices)
        yield "kueue.yaml", made("kueue.yaml", groups=groups, devices=devices)
        yield "kuberay-monitor.yaml", made("kuberay-monitor.yaml")
        yield "kuberay-cluster.yaml", made("kuberay-cluster.yaml", groups=groups)
        chosen = {fleet.job.group: groups[fleet.job.group]}
        nodes = _nodes(fleet, chosen[fleet.job.group][1].gpus)
        yield "kuberay-job.yaml", made("kuberay-job.yaml", job_groups=chosen, job_nodes=nodes)
    if fleet.slurm:
        yield "slurm.sh", made("slurm.sh", nodes=_nodes(fleet, fleet.slurm.gpus_per_node))
    for name in ("laptop.yaml", "laptop.sh", "two-node.yaml", "prometheus.yaml"):
        yield name, made(name)
    yield "grafana.json", dashboard(fleet.name)
    yield "Dockerfile", made("Dockerfile", gpu=False, base=BASE, plain=True)
    base = fleet.images.gpu_base
    yield "Dockerfile.gpu", made("Dockerfile", gpu=True, base=base, plain=base == BASE)


def _nodes(fleet: Fleet, gpus: int) -> int:
    """Nodes that hold the job's ranks, one GPU a rank.

    Raises:
        BadInputError: The ranks do not fill whole nodes, or the nodes have no GPUs.
    """
    if not gpus or fleet.job.ranks % gpus:
        raise BadInputError(
            f"job.ranks: {fleet.job.ranks} ranks do not fill nodes of {gpus} GPUs; "
            "a training takes whole nodes"
        )
    return fleet.job.ranks // gpus


def _templates() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("gristmill.clusters") / "templates"
    return Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the fleet's values are checked to need no quoting
    )
