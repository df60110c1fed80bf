#!/bin/bash
# One job over 2 Slurm nodes: sbatch slurm.sh
# Made by `gristmill cluster render` from fleet.yaml: change that, not this.
#SBATCH --job-name=gristmill
#SBATCH --partition=gpu
#SBATCH --account=research
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=192
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=48:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

# shellcheck source=/dev/null
source /shared/gristmill/environment.sh

# One token a job, in a folder of yours that all nodes see; nobody else may read it.
umask 077
mkdir -p "$HOME/.ray"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/token-$SLURM_JOB_ID"
python -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

export RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600  # nodes may take minutes to read the environment
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname --ip-address | awk '{print $1}')

# Head and workers in one step: when the command ends, Ray ends on every node, with its exit code.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
    ray symmetric-run --address "$address:$((20000 + SLURM_JOB_ID % 20000))" \
    --min-nodes "$SLURM_JOB_NUM_NODES" --dashboard-host=127.0.0.1 --metrics-export-port=8080 \
    --num-cpus=192 --num-gpus=8 \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID" -- \
    env RAY_ADDRESS=auto gristmill clip train small --data s3://example-bucket/gristmill/shards --out s3://example-bucket/gristmill/train1 --workers 16
