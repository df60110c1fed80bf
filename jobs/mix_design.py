"""Job: gristmill mix design.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/mix_design.py --domains s3://bucket/corpus --out s3://bucket/mixtures.csv
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["mix", "design", *sys.argv[1:]]))
