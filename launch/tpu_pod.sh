#!/usr/bin/env bash
# Runs the whole job on all hosts of a Cloud TPU slice.
# usage: ./launch/tpu_pod.sh [--dry_run] create          make the slice, install on every host
#        ./launch/tpu_pod.sh [--dry_run] run ARGS...      start the job: --config=... and so on
#        ./launch/tpu_pod.sh [--dry_run] logs             follow the first host's log
#        ./launch/tpu_pod.sh [--dry_run] resume ARGS...   make the slice again if it was preempted;
#                                                         then run, which continues
#        ./launch/tpu_pod.sh [--dry_run] delete           stop paying
#
# Change, here or in the environment:
ZONE="${ZONE:-us-west4-a}"
ACCELERATOR="${ACCELERATOR:-v5litepod-16}"
SHARE="${SHARE:-10.0.0.2:/vae_jax}" # an NFS export (Filestore) with the music; receives results
#
# Less often: the slice's name, its software (v6e: v2-alpha-tpuv6e, v5p: v2-alpha-tpuv5, v4:
# tpu-ubuntu2204-base), and whether it may be preempted, for a lower price (SPOT= for no).
NAME="${NAME:-vae-jax}"
VERSION="${VERSION:-v2-alpha-tpuv5-lite}"
SPOT="${SPOT---spot}"
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

ARCHIVE=build/vae_jax.tar.gz
MOUNT=/mnt/vae_jax # where the hosts see the share

# The share's data, checkpoints and results take their usual places in every host's checkout. They
# are the user's, who has the same number on all hosts.
INSTALL="set -e
sudo apt-get update -q && sudo apt-get install -qy nfs-common
sudo mkdir -p $MOUNT && { mountpoint -q $MOUNT || sudo mount -t nfs -o hard $SHARE $MOUNT; }
mkdir -p ~/vae_jax && cd ~/vae_jax && tar -xzf ~/vae_jax.tar.gz
for folder in data checkpoints results; do
  sudo install -d -o \$(id -u) -g \$(id -g) $MOUNT/\$folder && ln -sfn $MOUNT/\$folder \$folder
done
python3 -m pip install -q --user uv && ~/.local/bin/uv python install -q 3.12
PYTHON=\$(~/.local/bin/uv python find 3.12) && . launch/_venv.sh '[tpu]'"

tpu() { # VERB [OPTION ...]
  local verb="$1"
  shift
  run gcloud compute tpus tpu-vm "$verb" "$@" --zone="$ZONE"
}

create() {
  # shellcheck disable=SC2086 # SPOT is one flag or none
  tpu create "$NAME" --accelerator-type="$ACCELERATOR" --version="$VERSION" $SPOT
  run mkdir -p "${ARCHIVE%/*}"
  run tar --exclude=__pycache__ -czf "$ARCHIVE" \
    vae_jax configs launch setup.py pyproject.toml README.md
  tpu scp "$ARCHIVE" "$NAME:vae_jax.tar.gz" --worker=all
  tpu ssh "$NAME" --worker=all --command="$INSTALL"
}

start() {
  # A systemd unit outlives this connection, gets SIGTERM when its host is shut down, and starts
  # again after status 75: saved, the same command continues.
  local command="sudo systemctl reset-failed vae_jax 2>/dev/null; sudo systemd-run --unit=vae_jax \
--uid=\$(id -u) --gid=\$(id -g) --setenv=HOME=\$HOME --property=WorkingDirectory=\$HOME/vae_jax \
--property=RestartForceExitStatus=75 --property=RestartSec=10 --property=TimeoutStopSec=120 \
\$HOME/vae_jax/.venv/bin/python -m vae_jax.main --distributed"
  (($#)) && command+="$(printf ' %q' "$@")"
  tpu ssh "$NAME" --worker=all --command="$command"
}

. launch/_run.sh
verb="${1:-}"
(($#)) && shift
case "$verb" in
  create) create ;;
  run) start "$@" ;;
  logs) tpu ssh "$NAME" --worker=0 --command="journalctl --unit=vae_jax --follow --output=cat" ;;
  resume)
    if $dry_run; then
      state=PREEMPTED
    else
      state="$(tpu describe "$NAME" --format="value(state)")" || state=ABSENT
    fi
    if [ "$state" != READY ]; then
      [ "$state" = ABSENT ] || tpu delete "$NAME" --quiet
      create
    fi
    start "$@"
    ;;
  delete) tpu delete "$NAME" --quiet ;;
  *)
    sed -n '2,/^#$/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
