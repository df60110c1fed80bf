"""Run a filter job on two nodes of one machine and take one away in the middle.

python two_nodes.py POOL OUT LOG: prints how many slices were done when the node went.
"""

import os
import sys
import threading
import time
from pathlib import Path

SECONDS_A_BATCH = 0.05


def main(pool, out, log):
    import ray
    from group_filters import Logged, SameLetters
    from ray.cluster_utils import Cluster

    from gristmill.core.job import run_job
    from gristmill.execution.session import source_root
    from gristmill.pools.selection import FilterJob

    os.environ["PYTHONPATH"] = os.pathsep.join([source_root(), os.path.dirname(__file__)])
    node = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    ray.init(address=cluster.address, log_to_driver=False)
    ledger = Path(out) / ".work" / "judged"

    def strike():
        while len(list(ledger.glob("*.json"))) < 10:
            time.sleep(0.01)
        print("done before:", len(list(ledger.glob("*.json"))), flush=True)
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=strike)
    thread.start()
    chosen = Logged(folder=log, seconds=SECONDS_A_BATCH) & SameLetters(best_by="score")
    # The pass for repeats asks Logged; a second Logged is asked in the pass that is struck.
    chosen = chosen & Logged(folder=log, seconds=SECONDS_A_BATCH)
    run_job(FilterJob(pool=pool, filter=chosen, out=out))
    thread.join()
    end = time.monotonic() + 60  # the head notices a dead node after some missed heartbeats
    while sum(n["Alive"] for n in ray.nodes()) > 1 and time.monotonic() < end:
        time.sleep(0.2)
    print("nodes left:", sum(n["Alive"] for n in ray.nodes()), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
