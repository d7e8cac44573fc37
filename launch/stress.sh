#!/usr/bin/env bash
# Kills runs, damages their files, fills their disks and feeds them nonsense; nothing may be lost.
# usage: ./launch/stress.sh [--dry_run] [short|long] [PYTEST_ARGUMENT ...]
#   short  a few cases of each kind, about five minutes on two cores (the default)
#   long   all: 66 kills, 320 damaged files, full disks and 9,000 hostile inputs, about an hour
# As root it also mounts small disks in pytest's temporary folder, and unmounts them.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. launch/_run.sh
version="${1:-short}"
case "$version" in
  short | long) shift || true ;;
  *) sed -n '3,6s/^# //p' "$0" >&2 && exit 2 ;;
esac
run . launch/_venv.sh "[test]"
run exec env VAE_JAX_STRESS="$version" \
  "$venv/bin/python" -m pytest -n auto --dist worksteal tests/stress tests/test_hostile.py "$@"
