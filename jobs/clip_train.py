"""`gristmill clip train` as a Ray job, for a cluster that is already up.

    ray job submit --working-dir . \
        --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' -- \
        python jobs/clip_train.py small --data s3://pool/shards --out s3://runs/small-1

Takes the same words as the command; the same words again resume.
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["clip", "train", *sys.argv[1:]]))
