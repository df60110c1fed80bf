"""Job: gristmill lm evaluate.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/lm_evaluate.py s3://bucket/lm-1 \\
    --corpora s3://bucket/tokens --baseline trigram --out s3://bucket/lm-1-evaluated
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["lm", "evaluate", *sys.argv[1:]]))
