"""Job: gristmill pool inspect.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_inspect.py --pool s3://bucket/pool --out s3://bucket/inspect
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "inspect", *sys.argv[1:]]))
