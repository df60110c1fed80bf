#!/bin/bash
# A Ray head on this machine, for jobs that are submitted: bash laptop.sh
# Made by `gristmill cluster render` from fleet.yaml: change that, not this.
# Ends with Ctrl-C. Nobody without the token gets in, though Ray's scheduler listens on all interfaces.
set -euo pipefail
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
umask 077
ray get-auth-token --generate > /dev/null
exec ray start --head --block --port="${GRISTMILL_PORT:-6379}" --node-ip-address=127.0.0.1 \
    --dashboard-host=127.0.0.1 --dashboard-port="${GRISTMILL_DASHBOARD_PORT:-8265}" \
    --object-store-memory="${GRISTMILL_OBJECT_STORE_BYTES:-1000000000}"
