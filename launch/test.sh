#!/usr/bin/env bash
# Installs the test extra, checks style and types, and runs the test suite on the CPU.
# usage: ./launch/test.sh [--dry_run] [PYTEST_ARGUMENT ...]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/_run.sh
run . launch/_venv.sh "[test]"
run .venv/bin/ruff check .
run .venv/bin/ruff format --check .
run .venv/bin/mypy
run exec .venv/bin/python -m pytest -n auto "$@"
