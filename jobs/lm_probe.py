"""Job: gristmill lm probe.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/lm_probe.py s3://bucket/lm-1 \\
    --corpora s3://bucket/tokens --out s3://bucket/lm-1-probes
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["lm", "probe", *sys.argv[1:]]))
