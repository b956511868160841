#!/usr/bin/env bash
# A small program for each of Debian's clients of libgc that is installed: on our library it must print, and write, what it
# does on the system's own: plainly, with the verifier, with four workers, and with a collection at every 20,000th allocation (at every
# 1,000th the larger clients take minutes).
#
#   ci/smoke.sh [--install]     --install: first install the clients, some 250 MB, where that is allowed; not Asymptote, which brings TeX
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
lib=${HEAPWRIGHT_LIB_DIR:-$root/target/release}
[ -e "$lib/libgc.so" ] || { echo "there is no $lib/libgc.so: cargo build --release first" >&2; exit 1; }
if [ "${1:-}" = --install ]; then
  bash ci/install.sh ecl w3m nix-bin neko macaulay2 stalin mmv chase fauhdlc gobjc parser3-cgi lilypond inkscape guile-2.2 ||
    echo "not all clients could be installed"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/lib" "$work/stats" "$work/home"
ln -s "$lib/libgc.so" "$work/lib/libgc.so.1"
export HOME="$work/home" XDG_CACHE_HOME="$work/home/cache" GUILE_AUTO_COMPILE=0
smoke=$root/ci/smoke

passed=0
failed=0
absent=0
# Each run has a directory of its own, with all files of ci/smoke; what is printed and each file that is new must agree.
run() { # directory, shell command
  cp -r "$smoke" "$1"
  (cd "$1" && timeout 300 bash -c "$2" >printed 2>errors; echo "exit $?" >>printed; mv errors ../errors)
}
client() { # name, program that must be there, shell command
  local name=$1 wants=$2 command=$3 mode settings
  command -v "$wants" >/dev/null || { absent=$((absent + 1)); echo "absent: $name"; return; }
  rm -rf "$work/stock"
  run "$work/stock" "$command"
  for mode in plain verify workers stress; do
    case $mode in
      plain) settings=() ;;
      verify) settings=(HEAPWRIGHT_VERIFY=1) ;;
      workers) settings=(HEAPWRIGHT_WORKERS=4) ;;
      stress) settings=(HEAPWRIGHT_STRESS=20000) ;;
    esac
    rm -rf "$work/ours"
    rm -f "$work/stats"/*
    (
      export LD_LIBRARY_PATH="$work/lib" HEAPWRIGHT_STATS_DIR="$work/stats" "${settings[@]}"
      run "$work/ours" "$command"
    )
    if ! diff -r "$work/stock" "$work/ours" >"$work/diff"; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): it does not do what it does on the system's library"
      head -n 5 "$work/diff"
      tail -n 3 "$work/errors"
    elif ! grep -ql '"plan"' "$work/stats"/*.json 2>/dev/null; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): it did not run on our library"
    elif grep -l '"violations":[1-9]' "$work/stats"/*.json; then
      failed=$((failed + 1))
      echo "FAILED $name ($mode): the verifier found something wrong"
    else
      passed=$((passed + 1))
    fi
  done
  echo "done: $name"
}

client w3m w3m 'w3m -config /dev/null -T text/html -dump page.html'
client ecl ecl "ecl -norc -eval '(progn (print (reduce (function +) (loop for i below 200000 collect (list i)) :key (function car))) (ext:gc t) (ext:quit))'"
client nix nix-instantiate "nix-instantiate --eval --strict --store dummy:// '$root/programs/alloc.nix' --arg n 2000"
client neko nekoc 'nekoc list.neko && neko list'
client guile-2.2 guile-2.2 'guile-2.2 list.scm'
client macaulay2 M2 "M2 --script /dev/stdin <<<'R = QQ[x,y,z]; print gens gb ideal(x^3-y*z, y^3-x*z, z^3-x*y)'"
client chase chase 'ln -s page.html link && chase link | xargs basename'
client mmv mmv "touch f1.a f2.a && mmv '*.a' '#1.b' && ls *.b"
client stalin stalin 'ulimit -s unlimited 2>/dev/null || ulimit -s 1000000; stalin -On -I /usr/lib/stalin/include fib.sc && ./fib && rm -f fib fib.c'
client fauhdlc fauhdlc 'fauhdlc -o clock.fir clock.vhdl'
client objc gcc 'gcc -w -std=gnu11 trees.m -o trees -lobjc_gc && ./trees && rm trees'
client parser3 parser3 'parser3 sum.p'
client lilypond lilypond 'lilypond -s -dno-point-and-click --svg -o scale scale.ly'
client inkscape inkscape 'inkscape shapes.svg --export-type=png -o shapes.png'
client asymptote asy "asy -noV -f eps -o box <(echo 'size(100); draw(unitsquare); fill(unitcircle, red);') && grep -v '^%%' box.eps | head -n 50 && rm -f box.eps"
echo "clients in small: $passed passed, $failed failed, $absent absent"
[ "$failed" = 0 ]
