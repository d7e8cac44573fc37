# shellcheck shell=bash
# Sourced by the launch scripts: makes .venv if it is missing and installs the package into it.
# usage: . launch/_venv.sh EXTRAS       (EXTRAS such as "" or "[test]")

python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "vae_jax needs Python 3.11 or newer; name one with PYTHON=/path/to/python3.11." >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
# Installing again is needed only after the requirements or the extras have changed.
stamp=".venv/installed-$(cat setup.py - <<<"$1" | sha256sum | cut -c1-16)"
if [ ! -e "$stamp" ]; then
  echo "installing vae_jax$1 into .venv ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$1"
  touch "$stamp"
fi
