#!/usr/bin/env bash
# Starts N processes of the main job on this machine, as a scheduler would start them on N hosts.
# usage: ./launch/local_cluster.sh [--dry_run] N --config=FILE [--config.KEY=VALUE ...]
#
# Change what fits your machine, in the environment:
#   DEVICES=1          virtual CPU devices of each process
#   PYTHON=python      the interpreter; relative paths are those of the current directory
#   GRACE=30           seconds that the others have to end after one has failed, before SIGKILL
#
# Every line of output begins with the process's number. SIGTERM and SIGINT go to all processes.
# The exit status is that of the first process that fails, such as 75: saved, the same command
# continues.
set -uo pipefail

devices="${DEVICES:-1}" python="${PYTHON:-python}" grace="${GRACE:-30}"

fail() {
  echo "local_cluster: $1" >&2
  exit 2
}

dry_run=false
if [ "${1:-}" = --dry_run ]; then
  dry_run=true
  shift
fi
count="${1:-}"
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "the number of processes must come first: $0 2 --config=FILE"
shift

# Whoever asks for a free port may lose it again before using it; on one machine that is rare.
port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')" ||
  fail "$python does not run: name an interpreter with PYTHON=/path/to/python"
export JAX_PLATFORMS=cpu
# XLA heeds the last of several.
export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
export PYTHONUNBUFFERED=1

prefix() { # reads until the process has closed its end, whatever signals come
  trap '' INT TERM
  exec sed -u "s/^/[$1] /"
}

processes=()
for ((i = 0; i < count; i++)); do
  command=("$python" -m vae_jax.main "$@" --distributed
    "--coordinator_address=127.0.0.1:$port" "--num_processes=$count" "--process_id=$i")
  if $dry_run; then
    printf '%q ' env "JAX_PLATFORMS=$JAX_PLATFORMS" "XLA_FLAGS=$XLA_FLAGS" "${command[@]}"
    echo
    continue
  fi
  "${command[@]}" > >(prefix "$i") 2> >(prefix "$i" >&2) &
  processes[i]=$!
  echo "[$i] is process $!" >&2
done

signal_all() { # SIGNAL
  ((${#processes[@]} == 0)) || kill -s "$1" "${processes[@]}" 2>/dev/null
}
trap 'signal_all TERM' INT TERM

status=0
deadline=
while ((${#processes[@]})); do
  for i in "${!processes[@]}"; do
    kill -0 "${processes[i]}" 2>/dev/null && continue
    wait "${processes[i]}"
    code=$?
    unset "processes[i]"
    if ((code && !status)); then
      echo "[$i] ended with status $code" >&2
      status=$code deadline=$((SECONDS + grace))
    fi
  done
  if [ -n "$deadline" ] && ((SECONDS >= deadline)); then
    signal_all KILL
  fi
  sleep 0.1
done
exit "$status"
