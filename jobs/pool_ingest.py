"""Job: gristmill pool ingest.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_ingest.py tars --source s3://bucket/raw --out s3://bucket/pool
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "ingest", *sys.argv[1:]]))
