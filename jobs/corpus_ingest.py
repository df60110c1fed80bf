"""Job: gristmill corpus ingest.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/corpus_ingest.py embedded --out s3://bucket/text
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "ingest", *sys.argv[1:]]))
