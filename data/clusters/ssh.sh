#!/usr/bin/env bash
# Hosts with ssh: the driver and the scheduler here, a worker of 64 calls on each host.
#
#     data/clusters/ssh.sh topics.txt 10.0.0.1 worker-1 worker-2
#
# The address is this machine's on a private network. The checkout and its .venv stand at the same
# path on each host, with OPENAI_BASE_URL and OPENAI_API_KEY set there for shells without a login.
set -euo pipefail

topics=${1:?give a file with a topic a line} address=${2:?give the address of this machine}
shift 2
port=${PORT:-8786}

.venv/bin/dask scheduler --host "$address" --port "$port" --no-dashboard &
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

for host in "$@"; do
  ${SSH:-ssh} "$host" "cd '$PWD' && .venv/bin/dask worker 'tcp://$address:$port' \
    --nworkers 1 --nthreads 64 --memory-limit 0 --no-dashboard" &
done

.venv/bin/agentlab write "$topics" --out content --resume --cluster "tcp://$address:$port"
