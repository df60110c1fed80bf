#!/bin/bash
# A Ray head on this machine, for jobs that are submitted: bash laptop.sh [options of ray start]
# Made by `gristmill cluster render` from fleet.yaml: change that, not this.
# Ends with Ctrl-C. Nobody without the token gets in, though Ray's scheduler listens on all interfaces.
set -euo pipefail
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
umask 077
ray get-auth-token --generate > /dev/null
exec ray start --head --block --port=6379 --node-ip-address=127.0.0.1 \
    --dashboard-host=127.0.0.1 --dashboard-port=8265 --object-store-memory=1000000000 "$@"
