#!/usr/bin/env bash
# A program each in Crystal, Guile and C that attacks what its language leans on. On our library it must print what it prints on
# the system's own: plainly, with the verifier and two workers, with four workers, and with a collection at every 1,000th allocation.
#
#   ci/attack.sh [NAME]     NAME: only crystal, crystal-mt, guile or c
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
lib=${HEAPWRIGHT_LIB_DIR:-$root/target/release}
[ -e "$lib/libgc.so" ] || { echo "there is no $lib/libgc.so: cargo build --release first" >&2; exit 1; }
only=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/lib" "$work/stats"
ln -s "$lib/libgc.so" "$work/lib/libgc.so.1"
export GUILE_AUTO_COMPILE=0 XDG_CACHE_HOME="$work/cache" CRYSTAL_CACHE_DIR="$work/crystal"

passed=0
failed=0
attack() { # name, sizes for plain and for stress, command in which @ stands for the size
  local name=$1 sizes=($2) mode size settings want got status
  shift 2
  [ -n "$only" ] && [ "$only" != "$name" ] && return
  for mode in plain verify workers stress; do
    size=${sizes[0]}
    case $mode in
      plain) settings=() ;;
      verify) settings=(HEAPWRIGHT_VERIFY=1 HEAPWRIGHT_WORKERS=2) ;;
      workers) settings=(HEAPWRIGHT_WORKERS=4) ;;
      stress) settings=(HEAPWRIGHT_STRESS=1000) size=${sizes[1]} ;;
    esac
    want=$(timeout 300 bash -c "${*//@/$size}" 2>"$work/err")
    status=$?
    [ "$status" = 0 ] || { echo "FAILED $name: exit $status on the system's library: $(tail -n 1 <<<"$want") $(tail -n 1 "$work/err")"; failed=$((failed + 1)); continue; }
    rm -f "$work/stats"/*
    got=$(env LD_LIBRARY_PATH="$work/lib" HEAPWRIGHT_STATS_DIR="$work/stats" "${settings[@]}" timeout 300 bash -c "${*//@/$size}" 2>"$work/err")
    status=$?
    if [ "$status" != 0 ] || [ "$got" != "$want" ]; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): exit $status"
      diff <(printf '%s\n' "$want") <(printf '%s\n' "$got") | head -n 5
      tail -n 3 "$work/err"
    elif ! grep -ql '"plan"' "$work/stats"/*.json 2>/dev/null; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): it did not run on our library"
    elif grep -l '"violations":[1-9]' "$work/stats"/*.json; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): the verifier found something wrong"
    else
      passed=$((passed + 1))
      echo "ok $name ($mode)"
    fi
  done
}

"${CC:-cc}" -std=gnu11 -O1 -g -Wall -o "$work/c" ci/attack/attack.c -lgc -lpthread || exit 1
attack c "1000 200" "$work/c @"
if command -v guile >/dev/null; then
  attack guile "300 40" "ATTACK_SIZE=@ guile --no-auto-compile ci/attack/attack.scm"
else
  echo "skipped: guile is not installed"
fi
if command -v crystal >/dev/null; then
  crystal build -o "$work/one" ci/attack/attack.cr 2>"$work/err" || { cat "$work/err"; exit 1; }
  crystal build -Dpreview_mt -o "$work/many" ci/attack/attack.cr 2>"$work/err" || { cat "$work/err"; exit 1; }
  attack crystal "200 40" "$work/one @"
  attack crystal-mt "200 40" "$work/many @"
else
  echo "skipped: crystal is not installed"
fi
echo "attacks: $passed passed, $failed failed"
[ "$failed" = 0 ]
