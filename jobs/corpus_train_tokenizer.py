"""Job: gristmill corpus train-tokenizer.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/corpus_train_tokenizer.py --corpus s3://bucket/text --vocab-size 4096 --out s3://bucket/bpe
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "train-tokenizer", *sys.argv[1:]]))
