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

# The run is over once its supervisor has noted how it ended, or is gone.
running() {
  local child supervisor boot
  [[ ! -e $state/ended && -e $state/pid ]] || return 1
  read -r child supervisor boot <"$state/pid"
  [[ -n $child && $boot == "$(cat /proc/sys/kernel/random/boot_id)" ]] && kill -0 "$supervisor" 2>/dev/null
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
  for _ in {1..600}; do
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
  echo "$child $$ $(cat /proc/sys/kernel/random/boot_id)" >"$state/pid.new" && mv "$state/pid.new" "$state/pid"
  status=0
  wait "$child" || status=$?
  echo "$status" >"$state/ended.new" && mv "$state/ended.new" "$state/ended"
  ;;
status)
  if [[ ! -e $state/pid ]]; then
    echo "status: none"
  elif running; then
    echo "status: running"
  elif [[ -e $state/ended ]]; then
    echo "status: ended $(cat "$state/ended")"
  else
    echo "status: ended 137" # killed together with its supervisor, as by a reboot
  fi
  ;;
stop)
  if running; then
    read -r child _ <"$state/pid"
    kill -TERM "$child" 2>/dev/null || true # it may just have ended
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
