"""Job: gristmill corpus tokenize.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/corpus_tokenize.py --corpus s3://bucket/text --tokenizer s3://bucket/bpe --out s3://bucket/tokens
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "tokenize", *sys.argv[1:]]))
