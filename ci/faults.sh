#!/usr/bin/env bash
# Programs under faults: a storm of signals, forks, stops, a heap at its limit, few addresses, threads by the thousand, libraries
# that come and go. Each must come to its end with every object as it was, plainly, and with two workers and the verifier.
#
#   ci/faults.sh [--long] [NAME]     --long: a minute of signals and of stops, more of the rest; NAME: only that
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
lib=${HEAPWRIGHT_LIB_DIR:-$root/target/release}
[ -e "$lib/libgc.so" ] || { echo "there is no $lib/libgc.so: cargo build --release first" >&2; exit 1; }
seconds=6 forked=1000 threads=8000 loaded=1000
if [ "${1:-}" = --long ]; then
  seconds=60 forked=5000 threads=100000 loaded=10000
  shift
fi
only=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/lib" "$work/stats"
ln -s "$lib/libgc.so" "$work/lib/libgc.so.1"
cc=${CC:-cc}
"$cc" -std=gnu11 -O2 -g -Wall -o "$work/faults" ci/faults/faults.c -lgc -lpthread -ldl || exit 1
"$cc" -shared -fPIC -o "$work/roots.so" ci/faults/roots.c || exit 1

passed=0
failed=0
ours() { env LD_LIBRARY_PATH="$work/lib" HEAPWRIGHT_STATS_DIR="$work/stats" "${settings[@]}" timeout 200 "$@"; }

# A mode of the program, or a function that runs it, in both settings. One that ends with 124 hung.
fault() { # name, command...
  local name=$1 mode status
  shift
  [ -n "$only" ] && [ "$only" != "$name" ] && return
  for mode in plain checked; do
    settings=()
    [ "$mode" = checked ] && settings=(HEAPWRIGHT_WORKERS=2 HEAPWRIGHT_VERIFY=1)
    rm -f "$work/stats"/*
    "$@" >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" = 124 ]; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): it hung"
    elif [ "$status" != 0 ] || grep -q FAILED "$work/out" "$work/err"; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): exit $status: $(cat "$work/out" "$work/err" | tail -n 3)"
    elif grep -l '"violations":[1-9]' "$work/stats"/*.json 2>/dev/null; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): the verifier found something wrong"
    else
      passed=$((passed + 1))
      echo "ok $name ($mode): $(tail -n 1 "$work/out")"
    fi
  done
}

# The whole process is stopped and goes on, at no time in particular; once for two seconds.
stopped() {
  ours "$work/faults" churn "$seconds" &
  local job=$! pid stops=0
  sleep 0.3
  pid=$(pgrep -f "^$work/faults churn" | head -n 1)
  while kill -STOP "$pid" 2>/dev/null; do
    sleep "$([ "$stops" = 5 ] && echo 2 || echo "0.0$((RANDOM % 9))")"
    kill -CONT "$pid"
    stops=$((stops + 1))
    sleep "0.0$((RANDOM % 9))"
  done
  wait "$job" || return
  [ "$stops" -ge 10 ] || { echo "FAILED: stopped only $stops times"; return 1; }
  echo "stopped $stops times, once for 2 s; $(tail -n 1 "$work/out")"
}

few_addresses() {
  local kilobytes said
  said=""
  for kilobytes in 20000 40000 80000 300000 2000000; do
    (ulimit -v "$kilobytes" && ours "$work/faults" vlimit) >"$work/one" 2>"$work/err" || { cat "$work/one"; return 1; }
    said+="$((kilobytes / 1000)) MB: $(cut -d, -f1 "$work/one"); "
  done
  # Hardly any: an error of the system or of the program is all right, a crash is not.
  for kilobytes in 2000 6000 10000 14000; do
    (ulimit -v "$kilobytes" && ours "$work/faults" vlimit) >/dev/null 2>"$work/err"
    local status=$?
    [ "$status" -lt 128 ] || [ "$status" = 137 ] || { echo "FAILED: exit $status with $kilobytes kB"; return 1; }
  done
  echo "${said}then null each time, and memory again when all was let go"
}

# By the environment, and by a call of the program.
at_the_limit() {
  settings+=(HEAPWRIGHT_MAX=39m)
  ours "$work/faults" limit 32
}

crystal_storm() {
  ours "$work/storm" "$seconds" &
  local job=$! pid="" signals=0
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.2
    pid=$(head -n 1 "$work/out")
    [ -n "$pid" ] && break
  done
  while kill -USR1 "$pid" 2>/dev/null && kill -USR2 "$pid" 2>/dev/null; do
    sleep 0.001
  done
  wait "$job"
}

fault storm ours "$work/faults" storm "$seconds"
fault forks ours "$work/faults" forks "$forked"
fault stopped stopped
fault limit at_the_limit
fault limit-by-call ours "$work/faults" limit 32
fault few-addresses few_addresses
fault threads ours "$work/faults" threads "$threads"
fault cancel ours "$work/faults" cancel $((threads / 4))
fault forks-while-loading ours "$work/faults" forks-while-loading $((forked / 4)) "$work/roots.so"
fault libraries ours "$work/faults" libraries "$loaded" "$work/roots.so"
if command -v crystal >/dev/null && { [ -z "$only" ] || [ "$only" = crystal-storm ]; }; then
  # On one thread: with -Dpreview_mt, Crystal 1.6 takes a spin lock in its signal handler that the same thread may hold, whatever the
  # collector does. It is rare: minutes of a storm at such a program show nothing.
  crystal build -o "$work/storm" ci/faults/storm.cr 2>"$work/err" || cat "$work/err"
  fault crystal-storm crystal_storm
fi
echo "faults: $passed passed, $failed failed"
[ "$failed" = 0 ]
