"""Job: gristmill pool extract.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_extract.py --pool s3://bucket/texts --subset s3://bucket/f/subset.npy \\
    --out s3://bucket/kept
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "extract", *sys.argv[1:]]))
