"""Job: gristmill clip train.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/clip_train.py small --data s3://bucket/shards \\
    --workers 8 --out s3://bucket/train
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["clip", "train", *sys.argv[1:]]))
