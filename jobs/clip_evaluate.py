"""Job: gristmill clip evaluate.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/clip_evaluate.py --run s3://bucket/train \\
    --eval-data s3://bucket/eval --out s3://bucket/evaluate
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["clip", "evaluate", *sys.argv[1:]]))
