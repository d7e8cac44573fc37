#!/usr/bin/env bash
# Checks style, types and shell scripts with the linters that setup.py pins; for developers.
# usage: ./launch/lint.sh [--dry_run]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. launch/_run.sh
run . launch/_venv.sh "[lint]"
run "$venv/bin/ruff" check .
run "$venv/bin/ruff" format --check .
run "$venv/bin/shellcheck" -x launch/*.sh launch/slurm.sbatch .ci/*
run "$venv/bin/mypy"
