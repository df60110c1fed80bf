"""Run a job on a cluster that grows for it; print the nodes seen, and wait for the shrinking.

python growing.py ADDRESS filter|train|gpus|proxies FOLDER: what the job reads lies in FOLDER.
"""

import os
import sys
import threading
import time
from pathlib import Path

SHRINK_SECONDS = 120
SECONDS_A_BATCH = 0.7


def filter_pool(folder):
    from group_filters import Logged

    from gristmill.core.job import run_job
    from gristmill.pools.selection import FilterJob

    chosen = Logged(folder=str(folder / "log"), seconds=SECONDS_A_BATCH)
    run_job(FilterJob(pool=str(folder / "p"), filter=chosen, out=str(folder / "o")))


def train(folder):
    """Two ranks; first four, which are more than there will ever be."""
    from gristmill.core.errors import BadInputError
    from gristmill.core.job import run_job
    from gristmill.training.lm.job import TrainLmJob
    from gristmill.training.lm.placement import Placement

    def job(workers):
        return TrainLmJob(
            preset=str(folder / "model.json"), corpora=(str(folder / "t"),), mixture="uniform",
            steps=8, batch_size=12, out=str(folder / "o"), validation_sequences=5,
            execution=Placement(workers=workers, checkpoint_every=4),
        )  # fmt: skip

    try:
        run_job(job(4))
    except BadInputError as error:
        print("refused:", error, flush=True)
    run_job(job(2))


def gpus(folder):
    """Slices that take a GPU, of which the head has none."""
    from slice_workers import Square

    from gristmill.core.errors import BadInputError
    from gristmill.execution.growth import most_gpus
    from gristmill.execution.session import Execution
    from gristmill.execution.slices import Slice, map_slices
    from gristmill.training.ranks import place_ranks

    try:
        place_ranks(0)
    except BadInputError as error:
        print("refused:", error, flush=True)
    worker = Square(str(folder / "log"), num_gpus=1.0 if most_gpus() else 0.0)
    pieces = [Slice(name=f"{i:03d}", payload={"number": i}) for i in range(6)]
    done = map_slices("s", pieces, worker, ledger=str(folder / "o"), execution=Execution())
    print("squares:", [found["square"] for found in done], flush=True)


def proxies(folder):
    """More at once than the head has room for."""
    from made_proxies import job

    from gristmill.core.job import run_job

    run_job(job(folder, str(folder / "t"), folder / "o", count=16, workers=0, steps=1500))


def main(address, what, folder):
    import ray

    from gristmill.execution.session import source_root

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
    {"filter": filter_pool, "train": train, "gpus": gpus, "proxies": proxies}[what](Path(folder))
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
