"""Job: gristmill pool reshard.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_reshard.py --pool s3://bucket/pool --subset s3://bucket/f1/subset.npy --out s3://bucket/r1
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "reshard", *sys.argv[1:]]))
