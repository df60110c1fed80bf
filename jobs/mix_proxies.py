"""Job: gristmill mix proxies.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/mix_proxies.py --design s3://bucket/mixtures.csv --corpora s3://bucket/tokens \\
    --preset regmix-1m --gpus-per-proxy 0.5 --out s3://bucket/proxies
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["mix", "proxies", *sys.argv[1:]]))
