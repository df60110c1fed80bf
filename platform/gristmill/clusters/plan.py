"""`cluster plan`: time, cost, memory, disk and network of a job on a fleet, before it exists."""

import difflib
from dataclasses import dataclass
from typing import Annotated

import tyro

from gristmill.clusters import clip_workload, lm_workload
from gristmill.clusters.estimate import Estimate, Site
from gristmill.clusters.fleet import Fleet
from gristmill.clusters.fleet_file import load
from gristmill.clusters.rates import all_rates
from gristmill.core.action import Action
from gristmill.core.errors import BadInputError
from gristmill.training.scales import SCALES

CPU_JOBS = ("filter", "filter-basic", "reshard")
JOBS = (
    *(f"{job}-{scale}" for job in (*CPU_JOBS, "clip") for scale in clip_workload.SCALE_NAMES),
    "mix-512",
    *lm_workload.TRAININGS,
)


@dataclass(frozen=True, kw_only=True)
class PlanCapacity(Action):
    """What a job takes on a fleet. Starts nothing."""

    job: Annotated[str, tyro.conf.Positional]
    """filter-, filter-basic-, reshard- or clip- and a scale (small, medium, large, xlarge);
    mix-512, lm-1b, lm-7b; or `rates` to list what is counted with."""
    fleet: str = "cluster/fleet.yaml"
    """The fleet file."""
    cloud: str = "aws"
    """Which of the fleet's places: aws, gcp, azure, kubernetes, slurm."""
    group: str = ""
    """Its group. Empty: the largest with GPUs for a training, without for a data job."""
    nodes: int = 0
    """Machines. 0: the group's most."""
    tokens: int = 0
    """Tokens of a language model's training. 0: as many as its paper took."""

    def act(self) -> int:
        """Print the plan."""
        if self.job == "rates":
            print("\n".join(rate.line() for rate in all_rates()))
            return 0
        if self.job not in JOBS:
            near = difflib.get_close_matches(self.job, JOBS, n=1)
            hint = f"; perhaps {near[0]}" if near else ""
            raise BadInputError(f"no job {self.job!r}{hint}; known: rates, {', '.join(JOBS)}")
        site = self.site(load(self.fleet))
        print("\n".join(estimate(self.job, site, self.tokens).lines(site)))
        return 0

    def site(self, fleet: Fleet) -> Site:
        """The machines the job would run on.

        Raises:
            BadInputError: The fleet has no such cloud or group, or fewer machines.
        """
        groups = fleet.machines(self.cloud)
        needs_gpus = not self.job.startswith(CPU_JOBS)
        fitting = {n: g for n, g in groups.items() if bool(g[1].gpus) == needs_gpus}
        if self.group and self.group not in groups:
            raise BadInputError(
                f"{self.cloud} has no group {self.group!r}; it has: {', '.join(groups)}"
            )
        if self.group and needs_gpus and self.group not in fitting:
            raise BadInputError(f"{self.job} needs GPUs, and {self.group} has none")
        if not self.group and not fitting:
            kind = "with" if needs_gpus else "without"
            raise BadInputError(f"{self.cloud} has no group {kind} GPUs; give --group")
        name = self.group or max(fitting, key=lambda n: fitting[n][0].max)
        group, machine = groups[name]
        if not 0 <= self.nodes <= group.max:
            raise BadInputError(f"nodes {self.nodes} is not within {name}'s max of {group.max}")
        return Site(
            name=f"{self.cloud}/{name}", group=group, machine=machine, nodes=self.nodes or group.max
        )


def estimate(job: str, site: Site, tokens: int = 0) -> Estimate:
    """The estimate of a job on a site."""
    if job == "mix-512":
        return lm_workload.search(site)
    if job in lm_workload.TRAININGS:
        return lm_workload.train_lm(job, tokens, site)
    kind, _, scale_name = job.rpartition("-")
    scale = SCALES[scale_name]
    if kind == "clip":
        return clip_workload.train_clip(scale, site)
    if kind == "reshard":
        return clip_workload.reshard_pool(scale, site)
    recipe = "basic" if kind == "filter-basic" else "clip_score"
    return clip_workload.filter_pool(scale, recipe, site)
