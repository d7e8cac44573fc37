#!/usr/bin/env bash
# Runs the whole flow on a small synthetic collection: features, training, clusters, plots.
# usage: ./launch/demo.sh [--config.KEY=VALUE ...]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/_venv.sh ""
.venv/bin/python -m vae_jax.demo --outdir=data/demo
exec .venv/bin/python -m vae_jax.main --config=configs/demo.py "$@"
