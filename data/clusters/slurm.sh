#!/usr/bin/env bash
# SLURM: the driver and the scheduler on the first host, a worker of 64 calls on each.
#
#     sbatch data/clusters/slurm.sh topics.txt
#
# From the course's folder, with .venv on a disk that all hosts share, and OPENAI_BASE_URL,
# OPENAI_API_KEY and OPENAI_MODEL set where sbatch is called, which hands them on to all hosts.
#SBATCH --job-name=agentlab
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
set -euo pipefail

topics=${1:?give a file with a topic a line}
head=$(hostname --fqdn)
port=${PORT:-8786}
bin=.venv/bin

# A worker that is silent for so long is taken for dead, and others get its calls.
export DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL=30s
"$bin/dask" scheduler --host "$head" --port "$port" --no-dashboard &
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

srun --overlap "$bin/dask" worker "tcp://$head:$port" \
  --nworkers 1 --nthreads 64 --memory-limit 0 --no-dashboard &

"$bin/agentlab" write "$topics" --out content --resume --cluster "tcp://$head:$port"
