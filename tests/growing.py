"""Run a filter job on a cluster that grows for it; print the nodes seen, and wait for the shrinking.

python growing.py ADDRESS POOL OUT LOG SECONDS_A_BATCH
"""

import os
import sys
import threading
import time

SHRINK_SECONDS = 120


def main(address, pool, out, log, seconds):
    import ray
    from group_filters import Logged

    from gristmill.core.job import run_job
    from gristmill.execution.session import source_root
    from gristmill.pools.selection import FilterJob

    path = os.pathsep.join([source_root(), os.path.dirname(__file__)])
    ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    seen, over = [], threading.Event()

    def alive():
        return sum(node["Alive"] for node in ray.nodes())

    def look():
        while not over.wait(0.5):
            seen.append(alive())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    run_job(FilterJob(pool=pool, filter=Logged(folder=log, seconds=float(seconds)), out=out))
    over.set()
    thread.join()
    print("began with:", seen[0], flush=True)
    print("most nodes:", max(seen), flush=True)
    end = time.monotonic() + SHRINK_SECONDS
    while alive() > 1 and time.monotonic() < end:
        time.sleep(1)
    print("nodes left:", alive(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
