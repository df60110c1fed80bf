"""Job: gristmill clip submit.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/clip_submit.py --method-name NAME --author WHO --email A@B.ORG \\
    --track filtering --writeup TEXT --filter-run s3://bucket/filter \\
    --reshard-run s3://bucket/reshard --train-run s3://bucket/train \\
    --eval-run s3://bucket/evaluate --out s3://bucket/bundle
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["clip", "submit", *sys.argv[1:]]))
