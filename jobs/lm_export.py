"""Job: gristmill lm export.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/lm_export.py s3://bucket/lm-1/model --out s3://bucket/lm-1-hf
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["lm", "export", *sys.argv[1:]]))
