"""Job: gristmill pool score.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/pool_score.py --pool s3://bucket/pool --arch ViT-L-14 \\
    --weights s3://bucket/l14.pt --out s3://bucket/scored
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["pool", "score", *sys.argv[1:]]))
