"""Job: gristmill lm describe.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/lm_describe.py pangu-pi-1b --workers 16 --out s3://bucket/described
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["lm", "describe", *sys.argv[1:]]))
