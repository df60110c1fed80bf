"""Job: gristmill pool filter.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_filter.py clip_score --arch l14 --fraction 0.3 --pool s3://bucket/pool --out s3://bucket/f1
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "filter", *sys.argv[1:]]))
