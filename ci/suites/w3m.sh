#!/usr/bin/env bash
# The tests of w3m's source, on the installed w3m and our library, in four modes; and a page of five megabytes, which must look
# as on the system's library.
#
#   ci/suites/w3m.sh [SOURCE]     SOURCE: a tree of w3m; without it, Debian's source package is fetched
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
lib=${HEAPWRIGHT_LIB_DIR:-$root/target/release}
[ -e "$lib/libgc.so" ] || { echo "there is no $lib/libgc.so: cargo build --release first" >&2; exit 1; }
command -v w3m >/dev/null || { echo "w3m is not installed: ci/install.sh w3m" >&2; exit 1; }
source=${1:-$(bash ci/source.sh w3m "$root/target/sources/w3m")} || { echo "no source of w3m" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/lib"
ln -s "$lib/libgc.so" "$work/lib/libgc.so.1"
export HOME="$work"

python3 programs/make_page.py >"$work/big.html"
w3m -config /dev/null -T text/html -dump "$work/big.html" >"$work/big.stock"

passed=0
failed=0
cd "$source/tests" || exit 1
for mode in plain verify stress workers; do
  case $mode in
    plain) settings=() ;;
    verify) settings=(HEAPWRIGHT_VERIFY=1) ;;
    stress) settings=(HEAPWRIGHT_STRESS=1000) ;;
    workers) settings=(HEAPWRIGHT_WORKERS=4) ;;
  esac
  ours() { env "${settings[@]}" LD_LIBRARY_PATH="$work/lib" w3m -config /dev/null "$@"; }
  check() { # name, expected, got
    if cmp -s "$2" "$3"; then
      passed=$((passed + 1))
    else
      failed=$((failed + 1))
      echo "FAILED $1 ($mode)"
      diff "$2" "$3" | head -n 5
    fi
  }
  for page in *.html; do
    name=${page%.html}
    options=()
    [ -e "$name.opts" ] && mapfile -t options < <(grep -v '^#' "$name.opts")
    ours -o ignore_null_img_alt=false -I utf-8 -O utf-8 -T text/html "${options[@]}" <"$page" >"$work/got" 2>/dev/null
    check "$name" "$name.expected" "$work/got"
  done
  [ "$mode" = stress ] && continue
  ours -T text/html -dump "$work/big.html" >"$work/got"
  check "five megabytes" "$work/big.stock" "$work/got"
done
echo "w3m: $passed passed, $failed failed"
[ "$failed" = 0 ]
