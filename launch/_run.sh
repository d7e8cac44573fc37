# shellcheck shell=bash
# Sourced by the launch scripts: takes --dry_run off the arguments, if it is the first. `run` then
# prints the command that it is given, instead of running it.

# shellcheck disable=SC2034 # read by those that source this
venv="${VENV:-.venv${OLDEST:+-oldest}}" # which _venv.sh makes
dry_run=false
if [ "${1:-}" = --dry_run ]; then
  dry_run=true
  shift
fi

run() {
  if $dry_run; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
