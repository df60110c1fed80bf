"""Job: gristmill pool hash.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_hash.py --pool s3://bucket/pool --out s3://bucket/hashed
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "hash", *sys.argv[1:]]))
