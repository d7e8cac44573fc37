#!/usr/bin/env bash
# Installs the test extra, checks style and types, and runs the test suite on the CPU.
# usage: ./launch/test.sh [PYTEST_ARGUMENT ...]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/_venv.sh "[test]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest -n auto "$@"
