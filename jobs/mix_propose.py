"""Job: gristmill mix propose.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/mix_propose.py \\
        --model s3://bucket/fit --domains s3://bucket/corpus --tokens 25e9 --out s3://bucket/proposal
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["mix", "propose", *sys.argv[1:]]))
