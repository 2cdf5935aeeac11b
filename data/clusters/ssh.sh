#!/usr/bin/env bash
# Hosts with ssh: the driver and the scheduler here, a worker of 64 calls on each host.
#
#     data/clusters/ssh.sh topics.txt 10.0.0.1 worker-1 worker-2
#
# The address is this machine's on a private network. The checkout and its .venv stand at the same
# path on each host. OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL are set here and there, to the
# same model; there for shells without a login.
set -euo pipefail

topics=${1:?give a file with a topic a line} address=${2:?give the address of this machine}
shift 2
port=${PORT:-8786}

# A worker that is silent for so long is taken for dead, and others get its calls.
export DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL=30s
.venv/bin/dask scheduler --host "$address" --port "$port" --no-dashboard &
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

for host in "$@"; do
  ${SSH:-ssh} "$host" "cd '$PWD' && .venv/bin/dask worker 'tcp://$address:$port' \
    --nworkers 1 --nthreads 64 --memory-limit 0 --no-dashboard" &
done

.venv/bin/agentlab write "$topics" --out content --resume --cluster "tcp://$address:$port"
