#!/usr/bin/env bash
# Builds the documentation into build/docs; a warning is an error.
# usage: ./launch/docs.sh [--dry_run]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. launch/_run.sh
run . launch/_venv.sh "[docs]"
run "$venv/bin/sphinx-build" --fail-on-warning --keep-going --quiet docs build/docs
