"""Job: gristmill clip verify.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/clip_verify.py --bundle s3://bucket/bundle \\
    --pool s3://bucket/pool --out s3://bucket/verify
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["clip", "verify", *sys.argv[1:]]))
