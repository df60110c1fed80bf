"""Job: gristmill corpus mix.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/corpus_mix.py --corpus s3://bucket/tokens --size 1000000000 --out s3://bucket/mixed
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "mix", *sys.argv[1:]]))
