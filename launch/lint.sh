#!/usr/bin/env bash
# Checks style, types, shell scripts and the explorer's page with the linters that setup.py pins; for developers.
# usage: ./launch/lint.sh [--dry_run]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. launch/_run.sh
run . launch/_venv.sh "[lint]"
run "$venv/bin/ruff" check .
run "$venv/bin/ruff" format --check .
run "$venv/bin/shellcheck" -x launch/*.sh launch/slurm.sbatch .ci/*
if $dry_run || [ -x "$venv/bin/biome" ]; then # there is none but for Linux on x86_64
  run "$venv/bin/biome" check --error-on-warnings --config-path=launch vae_jax/explorer/page/*.js
fi
run "$venv/bin/mypy"
