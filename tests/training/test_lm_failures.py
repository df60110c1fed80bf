"""Which deaths of workers count against --max-failures."""

import pytest

from gristmill.core.errors import RunError
from gristmill.training.lm import launch


@pytest.fixture
def cluster(monkeypatch):
    """Names of nodes that live; Ray would say the same."""
    alive = {"a"}
    known = {"a", "b", "c", "d"}
    monkeypatch.setattr(
        launch.ray, "nodes", lambda: [{"NodeID": n, "Alive": n in alive} for n in sorted(known)]
    )
    return alive


@pytest.fixture
def deliver():
    return launch.Delivery("checkpoints", 0, lambda record: None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(launch, "NODE_DEATH_SECONDS", 0.1)
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.01)


def begin(deliver, *nodes):
    for rank, node in enumerate(nodes):
        deliver({"kind": "rank", "rank": rank, "world_size": len(nodes), "node": node})


FAILURE = {"kind": "failure", "ranks": {"0": "it died"}, "preempted": False}


def test_a_lost_node_does_not_count_though_others_came_since(cluster, deliver):
    begin(deliver, "a", "b")
    cluster |= {"c", "d"}  # an autoscaler's; b is gone
    deliver(FAILURE)


def test_a_death_on_living_nodes_counts(cluster, deliver):
    cluster |= {"b"}
    begin(deliver, "a", "b")
    with pytest.raises(RunError, match="died 1 times without a checkpoint in between"):
        deliver(FAILURE)


def test_a_node_lost_without_a_rank_on_it_excuses_nothing(cluster, deliver):
    """The group of before had a rank on b; this one is smaller."""
    begin(deliver, "a", "b")
    begin(deliver, "a")
    with pytest.raises(RunError, match="died 1 times"):
        deliver(FAILURE)


def test_a_lost_node_excuses_one_failure(cluster, deliver):
    begin(deliver, "a", "b")
    deliver(FAILURE)
    begin(deliver, "a")
    with pytest.raises(RunError, match="died 1 times"):
        deliver(FAILURE)


def test_a_node_is_waited_for_whose_death_is_noticed_late(cluster, deliver, monkeypatch):
    """Its workers are missed at once, the node only after some missed heartbeats."""
    monkeypatch.setattr(launch, "NODE_DEATH_SECONDS", 60)
    cluster |= {"b"}
    begin(deliver, "a", "b")
    monkeypatch.setattr(launch.time, "sleep", lambda _: cluster.discard("b"))
    deliver(FAILURE)
