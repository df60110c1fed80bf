"""Job: gristmill mix search.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/mix_search.py --corpora s3://bucket/tokens --preset regmix-1m \\
    --gpus-per-proxy 0.5 --out s3://bucket/search
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["mix", "search", *sys.argv[1:]]))
