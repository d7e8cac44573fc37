#!/usr/bin/env bash
# Installs the test extra and runs the test suite on the CPU. Style and types: launch/lint.sh.
# usage: ./launch/test.sh [--dry_run] [PYTEST_ARGUMENT ...]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/_run.sh
run . launch/_venv.sh "[test]"
run exec .venv/bin/python -m pytest -n auto "$@"
