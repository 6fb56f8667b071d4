#!/usr/bin/env bash
# Runs a command of the package on one host:  bash launch/entrypoint.sh train|judge|evaluate ARGUMENT..
#
# All launchers start this. It passes the first SIGTERM on to the command, which then saves and ends with status 75, and ends
# with the command's status once the command has ended. A command that dies of the signal, because it was still importing its
# libraries, counts as told to stop, too.
set -uo pipefail

readonly told_to_stop=75
stopping=
child=

# shellcheck disable=SC2329 # called by the trap
stop() {
  printf 'launch: told to stop at %s\n' "$(date -u +%FT%TZ)" >&2
  # A second signal would end the command before it has saved.
  if [[ -z $stopping ]]; then
    stopping=1
    [[ -z $child ]] || kill -TERM "$child" 2>/dev/null
  fi
}
trap stop TERM
trap 'stopping=1' INT # a terminal sends it to the command, too

if [[ $# -eq 0 || ! $1 =~ ^[a-z_]+$ ]]; then
  echo "usage: entrypoint.sh train|judge|evaluate ARGUMENT.." >&2
  exit 2
fi
command=(python -m "spct_jax.$1" "${@:2}")
printf 'launch: starts at %s:%s\n' "$(date -u +%FT%TZ)" "$(printf ' %q' "${command[@]}")" >&2
# Where nothing else ends the command when this script is killed, the system does.
if command -v setpriv >/dev/null; then
  setpriv --pdeathsig KILL "${command[@]}" &
else
  "${command[@]}" &
fi
child=$!
[[ -z $stopping ]] || kill -TERM "$child" 2>/dev/null # the signal came while it was started

status=0
wait "$child" || status=$?
# A signal ends `wait` early, with a status that is not the command's.
while kill -0 "$child" 2>/dev/null; do
  status=0
  wait "$child" || status=$?
done
if [[ -n $stopping ]]; then
  status=0
  wait "$child" || status=$?
  [[ $status -ne $((128 + 15)) ]] || status=$told_to_stop
fi
printf 'launch: ended at %s with status %d\n' "$(date -u +%FT%TZ)" "$status" >&2
exit "$status"
