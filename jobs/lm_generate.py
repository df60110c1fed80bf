"""Job: gristmill lm generate.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/lm_generate.py --model s3://bucket/lm-1 \\
    --prompt 'Once upon a time' --num-texts 4 --out s3://bucket/lm-1-texts
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["lm", "generate", *sys.argv[1:]]))
