#!/usr/bin/env bash
# Runs the whole flow on a small synthetic collection: features, training, clusters, plots, and the
# page to explore them with.
# usage: ./launch/demo.sh [--dry_run] [--config.KEY=VALUE ...]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. launch/_run.sh
run . launch/_venv.sh ""
run "$venv/bin/python" -m vae_jax.demo --outdir=data/demo
run "$venv/bin/python" -m vae_jax.main --config=configs/demo.py "$@"
results=results/demo
for argument in "$@"; do
  case "$argument" in --outdir=*) results="${argument#*=}" ;; esac
done
if $dry_run || [ -e "$results/clusters.csv" ]; then
  run exec "$venv/bin/python" -m vae_jax.explore "$results"
fi
