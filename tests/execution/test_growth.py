"""How large a cluster may grow, by the files that our own clusters are started with."""

from pathlib import Path

import pytest
import yaml

from gristmill.execution import growth
from gristmill.execution.growth import Group, Growth, growth_in, most_cpus, most_gpus, most_room
from gristmill.training.ranks import place_ranks

ROOT = Path(__file__).parents[2]
MACHINES = Growth(
    groups=(Group(cpus=8, gpus=0, most=3), Group(cpus=96, gpus=8, most=2)), machines=4
)


def cpus(c, _):
    return int(c)


@pytest.fixture
def grows(monkeypatch):
    """A head of 2 CPUs, a machine of 8 alive, and what may come."""
    there = {"": [(2.0, 0.0), (8.0, 0.0)], growth.HEAD: [(2.0, 0.0)]}
    monkeypatch.setattr(growth, "node_rooms", lambda having="": there[having])

    def set_growth(found):
        monkeypatch.setattr(growth, "growth", lambda: found)

    return set_growth


def test_the_bound_over_all_groups_holds():
    assert MACHINES.room(cpus) == 2 * 96 + 2 * 8  # four machines, the largest first
    assert MACHINES.room(lambda _, gpus: int(gpus)) == 16


def test_what_is_alive_counts_where_nothing_is_known(grows):
    grows(None)
    assert (most_cpus(), most_gpus(), most_room(cpus)) == (10, 0, 10)


def test_head_and_machines_to_come_count_together(grows):
    grows(MACHINES)
    assert (most_cpus(), most_gpus()) == (2 + 208, 16)
    grows(Growth(groups=(), machines=0))  # less than lives: a machine was added by hand
    assert most_cpus() == 10


@pytest.mark.parametrize(("name", "gpus"), [("aws", 8), ("gcp", 8), ("azure", 8), ("two-node", 0)])
def test_the_files_of_clusters_are_read(name, gpus):
    config = yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text())
    found = growth_in(config)
    kinds = {k: v for k, v in config["available_node_types"].items() if v["max_workers"]}
    assert len(found.groups) == len(kinds) and found.machines == config["max_workers"]
    most = sum(v["max_workers"] * v["resources"].get("GPU", 0) for v in kinds.values())
    assert found.room(lambda _, gpus: int(gpus)) == most and bool(most) == bool(gpus)


def test_a_raycluster_is_read_by_rays_own_reading(monkeypatch):
    """The file we render, as Kubernetes' API would answer with it."""
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    documents = yaml.safe_load_all((ROOT / "cluster" / "kuberay-cluster.yaml").read_text())
    cluster = next(d for d in documents if d and d["kind"] == "RayCluster")
    cluster["metadata"]["namespace"] = "gristmill"
    asked = []
    monkeypatch.setattr(
        KubernetesHttpApiClient, "get", lambda _, path: asked.append(path) or cluster
    )
    found = growth_in(growth._of_kubernetes("mill", "gristmill"))
    groups = cluster["spec"]["workerGroupSpecs"]
    assert asked == ["rayclusters/mill"] and len(found.groups) == len(groups)
    assert found.machines == sum(group["maxReplicas"] for group in groups)
    assert found.room(lambda _, gpus: int(gpus)) > 0
    cluster["spec"]["enableInTreeAutoscaling"] = False
    assert growth._of_kubernetes("mill", "gristmill") == {}


def test_a_head_that_cannot_be_asked_is_said_and_what_lives_counts(monkeypatch, caplog):
    growth._growth_of.cache_clear()

    def fail():
        raise OSError("no such file\nand more")

    monkeypatch.setattr(growth, "_reported", fail)
    assert growth._growth_of("one") is None
    assert "how far the cluster may grow (no such file); counting what is alive" in caplog.text
    growth._growth_of.cache_clear()


@pytest.mark.ray
def test_a_private_cluster_does_not_grow():
    growth._growth_of.cache_clear()
    assert growth.growth() is None
    assert place_ranks(0) == (1, False)
