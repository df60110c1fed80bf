"""Job: gristmill demo.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- \\
    python jobs/demo.py --out /tmp/gristmill-demo

Writes to the disk of the node that drives it, the head's.
"""

import sys

from gristmill.recipes.commands import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
