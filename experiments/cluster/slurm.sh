#!/usr/bin/env bash
# A search on nodes that SLURM gives: a Ray of its own, which ends with the job.
#
#   sbatch experiments/cluster/slurm.sh quickstart --device cuda:0 --trials 200 --workers 4 --run /shared/runs/q
#
# What follows the script is for `nas search`. The run must be in a folder that all nodes see; a job
# that ran out of time, or was requeued, goes on when the same line is given again. Each node trains
# and measures its own GPU; a second job on a node would be measured with ours, hence --exclusive.
# Partition, account, and what makes `nas` and `ray` be found, are yours to add.
#SBATCH --job-name=joulenas
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$head:${RAY_PORT:-6379}

# Others have accounts on these machines: without a token they could run code as you.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

meter=(--resources '{"joule_meter": 1}')
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port="${address##*:}" \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID" --include-dashboard=false "${meter[@]}" --block &
for _ in {1..60}; do
    ray health-check --address "$address" >/dev/null 2>&1 && break
    sleep 2
done
others=$((${#nodes[@]} - 1))
if ((others > 0)); then
    srun --overlap --nodes="$others" --ntasks="$others" --exclude="$head" \
        ray start --address="$address" "${meter[@]}" --block &
fi

nas search "$@" --address "$address" --resume
