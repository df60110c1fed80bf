"""Job: gristmill lm train.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/lm_train.py regmix-1m --corpora s3://bucket/tokens \\
    --mixture s3://bucket/search/mixture.json --tokens 1000000000 --workers 8 --out s3://bucket/lm-1
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["lm", "train", *sys.argv[1:]]))
