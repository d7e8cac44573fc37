#!/usr/bin/env bash
# Runs the whole flow on a small synthetic collection: features, training, clusters, plots.
# usage: ./launch/demo.sh [--dry_run] [--config.KEY=VALUE ...]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. launch/_run.sh
run . launch/_venv.sh ""
run "$venv/bin/python" -m vae_jax.demo --outdir=data/demo
run exec "$venv/bin/python" -m vae_jax.main --config=configs/demo.py "$@"
