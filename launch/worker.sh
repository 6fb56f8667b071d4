#!/usr/bin/env bash
# On a TPU VM, what launch/tpu_vm.py asks of it:
#
#   worker.sh install                      the package and what it needs, in .venv of this copy of the repository
#   worker.sh start NAME=VALUE.. -- COMMAND..   the command, in the background, in this copy
#   worker.sh status                       prints "status: none", "status: running" or "status: ended N"
#   worker.sh stop SECONDS                 SIGTERM, and at most so long a wait for the end
#
# There is one run on a host at a time. Its output is in ~/.spct_jax/log.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly state=$HOME/.spct_jax
mkdir -p "$state"

running() {
  [[ ! -e $state/ended && -e $state/pid ]] && kill -0 "$(cat "$state/pid")" 2>/dev/null
}

case ${1-} in
install)
  PATH=$HOME/.local/bin:$PATH
  command -v uv >/dev/null || python3 -m pip install --quiet --user uv==0.13.8
  # The system's Python is older than the package needs.
  [[ -x .venv/bin/python ]] || uv venv --quiet --python 3.11 .venv
  uv pip install --quiet --python .venv/bin/python --constraint launch/constraints.txt --editable '.[tpu]'
  ;;
start)
  if running; then
    echo "a run is under way on this host; stop it first" >&2
    exit 3
  fi
  rm -f "$state/pid" "$state/ended"
  setsid nohup bash launch/worker.sh supervise "${@:2}" </dev/null >>"$state/log" 2>&1 &
  for _ in {1..100}; do
    [[ ! -e $state/pid ]] || exit 0
    sleep 0.1
  done
  echo "the run has not started; see $state/log" >&2
  exit 1
  ;;
supervise)
  shift
  variables=()
  while [[ $1 != -- ]]; do
    variables+=("$1")
    shift
  done
  env "${variables[@]}" "PATH=$PWD/.venv/bin:$PATH" "${@:2}" &
  child=$!
  echo "$child" >"$state/pid.new" && mv "$state/pid.new" "$state/pid"
  status=0
  wait "$child" || status=$?
  echo "$status" >"$state/ended.new" && mv "$state/ended.new" "$state/ended"
  ;;
status)
  # Between the end of a run and the note of it there is a moment.
  for _ in {1..20}; do
    running || [[ -e $state/ended || ! -e $state/pid ]] && break
    sleep 0.1
  done
  if [[ -e $state/ended ]]; then
    echo "status: ended $(cat "$state/ended")"
  elif running; then
    echo "status: running"
  elif [[ -e $state/pid ]]; then
    echo "status: ended 137" # killed together with who waited for it, as by a reboot
  else
    echo "status: none"
  fi
  ;;
stop)
  if running; then
    kill -TERM "$(cat "$state/pid")"
    for ((waited = 0; waited < 10 * ${2:-600}; waited++)); do
      running || break
      sleep 0.1
    done
  fi
  exec bash launch/worker.sh status
  ;;
*)
  echo "usage: worker.sh install|start|status|stop" >&2
  exit 2
  ;;
esac
