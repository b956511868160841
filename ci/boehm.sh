#!/usr/bin/env bash
# The 17 test programs of Boehm's own source, unmodified, linked to our library: plainly, with the verifier, with a
# collection at every 1,000th allocation, and with four workers. Those about leaks and damage are judged by what they print.
#
#   ci/boehm.sh [SOURCE]     SOURCE: a tree of gc 8.2; without it, Debian's source package is fetched
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
lib=${HEAPWRIGHT_LIB_DIR:-$root/target/release}
[ -e "$lib/libgc.so" ] || { echo "there is no $lib/libgc.so: cargo build --release first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/lib" "$work/bin"
ln -s "$lib/libgc.so" "$work/lib/libgc.so.1"
source=${1:-$(bash ci/source.sh libgc "$root/target/sources")} || { echo "no source of libgc" >&2; exit 1; }
cd "$source" || exit 1

passed=0
failed=0
fail() { # name, what was wrong, file to show
  failed=$((failed + 1))
  echo "FAILED $1: $2"
  tail -n 5 "$3"
}

# As Debian configures the library; the private headers are used for their macros only.
flags=(-O2 -w -Iinclude -Iinclude/private -I. -DGC_THREADS -DGC_PTHREADS -DTHREAD_LOCAL_ALLOC -DPARALLEL_MARK -DENABLE_DISCLAIM
  -DGC_ATOMIC_UNCOLLECTABLE -DALL_INTERIOR_POINTERS -DGC_GCJ_SUPPORT -DJAVA_FINALIZATION -DUSE_MMAP -DUSE_MUNMAP -DHANDLE_FORK
  -DGC_ENABLE_SUSPEND_THREAD -DGC_BUILTIN_ATOMIC -DNO_EXECUTE_PERMISSION -DGC_REQUIRE_WCSDUP)
ours=("$work/lib/libgc.so.1" "-Wl,-rpath,$work/lib:$work/bin" -lpthread -ldl -lm)
programs=()
build() { # program, compiler and its arguments
  local name=$1
  shift
  programs+=("$name")
  "$@" "${flags[@]}" -o "$work/bin/$name" "${ours[@]}" >"$work/log" 2>&1 || fail "$name" "it does not build" "$work/log"
}
build gctest gcc tests/test.c
build leaktest gcc tests/leak_test.c
build middletest gcc tests/middle.c
build smashtest gcc tests/smash_test.c
build hugetest gcc tests/huge_test.c
build realloc_test gcc tests/realloc_test.c
build test_atomic_ops gcc tests/test_atomic_ops.c
build threadleaktest gcc tests/thread_leak_test.c
build threadkey_test gcc tests/threadkey_test.c
build subthreadcreate_test gcc tests/subthread_create.c
build initsecondarythread_test gcc tests/initsecondarythread.c
build disclaim_test gcc tests/disclaim_test.c
build disclaim_bench gcc tests/disclaim_bench.c
build disclaim_weakmap_test gcc tests/disclaim_weakmap_test.c
build cordtest gcc cord/tests/cordtest.c cord/cordbscs.c cord/cordprnt.c cord/cordxtra.c
build libroots1.so gcc -shared -fPIC tests/staticrootslib.c
build libroots2.so gcc -DSTATICROOTSLIB2 -shared -fPIC tests/staticrootslib.c
build staticrootstest gcc -DSTATICROOTSLIB2 tests/staticrootstest.c "$work/bin/libroots1.so" "$work/bin/libroots2.so"
# Debian's own libgccpp, on our library.
ours=(-lgccpp "${ours[@]}")
build test_cpp g++ tests/test_cpp.cc

count() { grep -c -- "$1" "$work/log" || true; }
# What a program must have printed, beyond its exit status.
judge() { # name
  case $1 in
    gctest) [ "$(count 'Collector appears to work')" = 1 ] ;;
    test_cpp) [ "$(count 'The test appears to have succeeded')" = 1 ] ;;
    cordtest) [ "$(count SUCCEEDED)" = 1 ] ;;
    # Ten objects, of which it drops all; a stale word may hold a few.
    leaktest) [ "$(count '(tests/leak_test.c:19, sz= .*NORMAL)')" -ge 5 ] ;;
    smashtest) [ "$(count 'found 1 smashed heap objects')" = 1 ] && [ "$(count '(tests/smash_test.c:26, sz= 40)')" = 1 ] ;;
    threadleaktest) [ "$(count '(tests/thread_leak_test.c:35, sz= 4, NORMAL)')" -ge 2 ] ;;
    # Entries of the weak map went, and none was missed by a lookup.
    disclaim_weakmap_test) grep -Eq '[1-9][0-9]* removed' "$work/log" ;;
    *) true ;;
  esac
}

for mode in plain verify stress workers; do
  case $mode in
    plain) settings=() ;;
    verify) settings=(HEAPWRIGHT_VERIFY=1) ;;
    stress) settings=(HEAPWRIGHT_STRESS=1000) ;;
    workers) settings=(HEAPWRIGHT_WORKERS=4) ;;
  esac
  for name in "${programs[@]}"; do
    case $name in *.so) continue ;; esac
    mkdir -p "$work/stats"
    rm -f "$work/stats"/*
    timeout 300 env "${settings[@]}" HEAPWRIGHT_STATS_DIR="$work/stats" "$work/bin/$name" >"$work/log" 2>&1
    status=$?
    if [ "$status" != 0 ]; then
      fail "$name ($mode)" "exit status $status" "$work/log"
    elif grep -l '"violations":[1-9]' "$work/stats"/*.json 2>/dev/null; then
      fail "$name ($mode)" "the verifier found something wrong" "$work/log"
    elif ! judge "$name"; then
      fail "$name ($mode)" "not the output that was wanted" "$work/log"
    else
      passed=$((passed + 1))
    fi
  done
done
echo "Boehm's programs: $passed passed, $failed failed"
[ "$failed" = 0 ]
