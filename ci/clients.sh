#!/usr/bin/env bash
# Real programs on our libgc.so.1: each must print what it prints on the system's own library, also with the verifier on
# and with a collection at every 1,000th allocation.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
lib=${HEAPWRIGHT_LIB_DIR:-$root/target/release}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -e "$lib/libgc.so" ] || { echo "there is no $lib/libgc.so: cargo build --release first" >&2; exit 1; }
mkdir "$work/lib"
ln -s "$lib/libgc.so" "$work/lib/libgc.so.1"
export XDG_CACHE_HOME="$work/cache" GUILE_AUTO_COMPILE=0

passed=0
failed=0
skipped=0
# The same command on the system's library and on ours, in several modes; standard output and exit status must agree.
same() { # name, modes, command...
  local name=$1 modes=$2
  shift 2
  local want got status
  want=$("$@" 2>/dev/null)
  status=$?
  for mode in $modes; do
    local settings=()
    case $mode in
      plain) ;;
      verify) settings=(HEAPWRIGHT_VERIFY=1) ;;
      stress) settings=(HEAPWRIGHT_STRESS=1000) ;;
      workers) settings=(HEAPWRIGHT_WORKERS=2 HEAPWRIGHT_VERIFY=1) ;;
    esac
    mkdir -p "$work/stats"
    rm -f "$work/stats"/*
    got=$(timeout 900 env LD_LIBRARY_PATH="$work/lib" HEAPWRIGHT_STATS_DIR="$work/stats" "${settings[@]}" "$@" 2>"$work/err")
    local ours=$?
    if [ "$got" != "$want" ] || [ "$ours" != "$status" ]; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): exit $ours for $status"
      diff <(printf '%s\n' "$want") <(printf '%s\n' "$got") | head -n 5
      tail -n 5 "$work/err"
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

if command -v guile >/dev/null && command -v guild >/dev/null; then
  for p in gcbench weak; do
    guild compile -O2 -o "$work/$p.go" "programs/$p.scm" >/dev/null 2>&1
  done
  # Arguments: large enough to collect many times, small enough for every mode.
  same "guile gcbench" "plain verify workers stress" guile -c "(set-program-arguments '(\"x\" \"1\")) (load-compiled \"$work/gcbench.go\")"
  same "guile weak" "plain verify workers" guile -c "(set-program-arguments '(\"x\" \"60000\")) (load-compiled \"$work/weak.go\")"
  python3 programs/make_large_scheme.py 150 > "$work/large.scm"
  same "guile weak, small" "stress" guile -c "(set-program-arguments '(\"x\" \"2000\")) (load-compiled \"$work/weak.go\")"
  python3 programs/make_large_scheme.py 10 > "$work/small.scm"
  same "guild compile, small" "stress" sh -c "guild compile -O2 -o $work/small.go $work/small.scm >/dev/null && md5sum < $work/small.go"
  same "guild compile" "plain verify workers" sh -c "guild compile -O2 -o $work/large.go $work/large.scm >/dev/null && md5sum < $work/large.go"
else
  echo "skipped: guile is not installed"
  skipped=$((skipped + 1))
fi

if command -v crystal >/dev/null; then
  # The compiler's front half, which is all of it that allocates on the heap.
  same "crystal compiler" "plain verify workers stress" sh -c "CRYSTAL_CACHE_DIR=$work/front crystal build --no-codegen -o $work/front.out programs/hello.cr"
  for p in binary_trees gcbench strings fibers; do
    # The compiler itself runs on our heap, and what it makes is run on both.
    if env LD_LIBRARY_PATH="$work/lib" CRYSTAL_CACHE_DIR="$work/crystal" crystal build -o "$work/$p" "programs/$p.cr" 2>"$work/err"; then
      passed=$((passed + 1))
      echo "ok crystal build $p"
    else
      failed=$((failed + 1))
      echo "FAILED crystal build $p"
      tail -n 5 "$work/err"
      continue
    fi
    case $p in
      binary_trees) same "crystal $p" "plain verify workers" "$work/$p" 12 && same "crystal $p, small" "stress" "$work/$p" 8 ;;
      gcbench) same "crystal $p" "plain verify workers stress" "$work/$p" 1 ;;
      strings) same "crystal $p" "plain verify workers" "$work/$p" 200000 && same "crystal $p, small" "stress" "$work/$p" 20000 ;;
      fibers) same "crystal $p" "plain verify stress workers" "$work/$p" 100 20 ;;
    esac
  done
else
  echo "skipped: crystal is not installed"
  skipped=$((skipped + 1))
fi

echo "clients: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
