"""Two Ray nodes of one CPU each on this machine, which come and go as they are told on stdin.

python two_node_host.py: prints the cluster's address, then answers each line with one of its own:
`remove` (a machine vanishes), `drain SECONDS` (its provider gives notice), `add` (another comes).
"""

import os
import sys
import time

MEMORY = 150 << 20


def main():
    import ray
    from ray._raylet import GcsClient
    from ray.cluster_utils import Cluster
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    from gristmill.execution.session import source_root

    os.environ["PYTHONPATH"] = os.pathsep.join([source_root(), os.path.dirname(__file__)])
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    preempted = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    print(cluster.address, flush=True)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "remove" and second is not None:
            cluster.remove_node(second, allow_graceful=False)
            second = None
        elif word == "drain":
            deadline = int(1000 * (time.time() + float(number)))
            client = GcsClient(address=cluster.address)
            accepted, why = client.drain_node(second.node_id, preempted, "test", deadline)
            assert accepted, why
        elif word == "add" and second is None:
            second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        print(f"{word} done", flush=True)
    cluster.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
