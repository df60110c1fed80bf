"""Job: gristmill mix predict.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/mix_predict.py --model s3://bucket/fit --mixtures s3://bucket/more.csv --out s3://bucket/predicted.csv
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["mix", "predict", *sys.argv[1:]]))
