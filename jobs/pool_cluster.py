"""Job: gristmill pool cluster.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_cluster.py --pool s3://bucket/scored --clusters 100000 \\
    --sample 0.03 --out s3://bucket/centroids
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "cluster", *sys.argv[1:]]))
