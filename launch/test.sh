#!/usr/bin/env bash
# Installs the test extra and runs the test suite on the CPU. Style and types: launch/lint.sh.
# usage: ./launch/test.sh [--dry_run] [PYTEST_ARGUMENT ...]
#        PYTHON=python3.13 ./launch/test.sh    on another Python
#        OLDEST=1 ./launch/test.sh             with the oldest versions that setup.py allows
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. launch/_run.sh
run . launch/_venv.sh "[test]"
# Tests of a file stay together where that is possible, since they share what is slow to set up.
run exec "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
