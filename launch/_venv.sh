# shellcheck shell=bash
# Sourced by the launch scripts: installs the package into a virtual environment, which it makes if
# it is missing, half made, or of another Python than is asked for.
# usage: . launch/_venv.sh EXTRAS       (EXTRAS such as "" or "[test]")
#
# Change, in the environment:
#   PYTHON=python3.12   the interpreter; if unset that of the environment, or else python3
#   OLDEST=1            install the oldest versions that setup.py allows, into .venv-oldest
#   VENV=.venv          where the environment is

venv="${VENV:-.venv${OLDEST:+-oldest}}"
unset PYTHONDONTWRITEBYTECODE # or every process would compile all that it imports, for seconds

abi() { # PYTHON: prints what its packages are built for; nothing if it does not run or is too old
  "$1" -c 'import sys, sysconfig
sys.version_info < (3, 11) or print(sysconfig.get_config_var("SOABI"))' 2>/dev/null || true
}

found=
[ ! -e "$venv/pyvenv.cfg" ] || found="$(abi "$venv/bin/python")"
if [ -z "$found" ] || { [ -n "${PYTHON:-}" ] && [ "$found" != "$(abi "$PYTHON")" ]; }; then
  python="${PYTHON:-python3}"
  if [ -z "$(abi "$python")" ]; then
    echo "vae_jax needs Python 3.11 or newer; name one with PYTHON=/path/to/python3.11." >&2
    exit 1
  fi
  clear=
  if [ -e "$venv/pyvenv.cfg" ]; then
    echo "making $venv anew for $python, $(abi "$python"): it is ${found:-half made} ..." >&2
    clear=yes
  fi
  "$python" -m venv --without-pip ${clear:+--clear} "$venv"
fi

# Installing again is needed only after a change of the requirements, the extras, or the folder.
stamp="$venv/installed-$(cat setup.py - <<<"$1 $PWD" | sha256sum | cut -c1-16)"
if [ ! -e "$stamp" ]; then
  echo "installing vae_jax$1 into $venv ..."
  # RECORD is written last: what lacks it is half installed, and would pass for installed.
  for package in "$venv"/lib/python*/site-packages/*.dist-info; do
    [ -e "$package/RECORD" ] || rm -rf "$package"
  done
  pip=("$venv/bin/python" -m pip install -qq --disable-pip-version-check)  # says errors alone
  if ! "$venv/bin/python" -c 'from importlib.metadata import version; version("pip")' 2>/dev/null; then
    rm -rf "$venv"/lib/python*/site-packages/pip
    if ! "$venv/bin/python" -m ensurepip >/dev/null; then
      echo "This Python has no pip: install python3-venv (Debian, Ubuntu) or name another Python" \
        "with PYTHON=/path/to/python3.11." >&2
      exit 1
    fi
    # The pip that Python brings takes four times as long; where there is no network, it must do.
    "${pip[@]}" --retries=0 --upgrade pip 2>/dev/null || true
  fi
  if [ -n "${OLDEST:-}" ]; then
    # What tests and extras need is left free: pip would search for hours for a set that fits.
    sed -n '/install_requires=\[/,/^ *\],/p' setup.py |
      grep -oE '"[A-Za-z0-9_.-]+(\[[^]]*\])?>=[0-9.]+' |
      sed -E 's/"|\[.*\]//g; s/>=/==/' >"$venv/oldest.txt"
  fi
  # Python compiles what it imports, when it does; all that there is would take a minute.
  "${pip[@]}" --no-compile ${OLDEST:+--constraint="$venv/oldest.txt"} -e ".$1"
  touch "$stamp"
fi
