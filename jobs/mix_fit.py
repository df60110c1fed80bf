"""Job: gristmill mix fit.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/mix_fit.py \\
        --mixtures s3://bucket/mixtures.csv --losses s3://bucket/losses.csv --out s3://bucket/fit
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["mix", "fit", *sys.argv[1:]]))
