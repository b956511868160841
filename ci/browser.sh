#!/usr/bin/env bash
# Looks at reports and heap maps in a real browser without a window: every chart is drawn and nothing is wrong, light and dark, and a
# map's slider, movie and colours do what they should.
#
#   ci/browser.sh                      a run of Guile, with its map, runs of bench, and a long run
#   ci/browser.sh --screenshots DIR    and leaves pictures of them there
set -uo pipefail
cd "$(dirname "$0")/.."
pictures=""
if [ "${1:-}" = --screenshots ]; then
  pictures=${2:?a directory}
  mkdir -p "$pictures"
fi
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || {
  echo "no Chromium is installed: ci/install.sh installs it" >&2
  exit 1
}
cargo build --release --workspace --quiet || exit 1
heapwright=$PWD/target/release/heapwright
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

browse() { # page, arguments...
  local page=$1
  shift
  timeout 120 "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" \
    --virtual-time-budget=5000 "$@" "file://$page" 2>"$work/said"
}

look() { # name, the number of charts at least, page, its height in a picture
  local name=$1 charts=$2 page=$3 height=${4:-3250} scheme
  for scheme in light dark; do
    local settings=""
    [ "$scheme" = dark ] && settings="--blink-settings=preferredColorScheme=0"
    # A frame for the page keeps the network out: what a page asks for elsewhere is an error in it.
    browse "$page" $settings --dump-dom --enable-logging=stderr --host-resolver-rules="MAP * ~NOTFOUND" >"$work/dom"
    local body theme
    body=$(grep -o '<body[^>]*>' "$work/dom" | grep data-charts)
    theme=$(grep -o '<html[^>]*>' "$work/dom" | grep -o 'data-theme="[a-z]*"')
    local drawn
    drawn=$(sed -n 's/.*data-charts="\([0-9]*\)".*/\1/p' <<<"$body")
    local maps=0
    grep -q '"type":"map"' "$page" && maps=1
    if [ "${drawn:-0}" -lt "$charts" ] || ! grep -q "data-maps=\"$maps\"" <<<"$body" || ! grep -q 'data-errors="0"' <<<"$body" || ! grep -q "$scheme" <<<"$theme" || grep -q Uncaught "$work/said"; then
      echo "FAILED: $name in $scheme: $body $theme"
      grep -E 'CONSOLE|Uncaught' "$work/said"
      failed=$((failed + 1))
    else
      echo "ok: $name in $scheme: $drawn charts, $maps maps"
    fi
  done
  if [ "$(stat -c %s "$page")" -gt 10000000 ]; then
    echo "FAILED: $name has $(stat -c %s "$page") bytes"
    failed=$((failed + 1))
  fi
  if [ -n "$pictures" ]; then
    browse "$page" --window-size="1200,$height" --screenshot="$work/$name.png" >/dev/null
    mv "$work/$name.png" "$pictures/report-$name.png"
  fi
}

drive() { # a page with a map
  { cat "$1" && echo "<script>" && cat ci/drive-map.js && echo "</script>"; } >"$work/driven.html"
  browse "$work/driven.html" --virtual-time-budget=60000 --dump-dom >"$work/dom"
  local body said
  body=$(grep -o '<body[^>]*>' "$work/dom")
  for said in 'data-slider="moves"' 'data-colours="differ"' 'data-movie="plays"' 'data-errors="0"'; do
    if grep -q "$said" <<<"$body"; then
      echo "ok: a map is used: $said"
    else
      echo "FAILED: a map is used: $said is not in $body"
      failed=$((failed + 1))
    fi
  done
}

cat >"$work/trees.scm" <<'SCM'
(use-modules (ice-9 threads))
(define (tree depth) (if (= depth 0) '() (cons (tree (- depth 1)) (tree (- depth 1)))))
(define kept (tree 19))
(par-for-each
  (lambda (n) (do ((i 0 (+ i 1))) ((= i 60)) (tree 16) (make-vector (* i 50) n) (string-append "a" (number->string i))))
  '(1 2 3))
(display (length kept))
SCM
GUILE_AUTO_COMPILE=0 "$heapwright" run --record "$work/guile.jsonl" --report "$work/guile.html" -- guile "$work/trees.scm" >/dev/null || failed=$((failed + 1))
look guile 8 "$work/guile.html"

(cd "$work" && "$heapwright" map guile.jsonl --html map.html) || failed=$((failed + 1))
look map 0 "$work/map.html" 760
drive "$work/map.html"

(cd "$work" && "$heapwright" bench gcbench,lru --plan immix,marksweep,semispace,genimmix,stickyimmix --heap 1.5x,2x,3x,4x --scale 0.2 --report bench.html >/dev/null) || failed=$((failed + 1))
look bench 12 "$work/bench.html"

# A page may be long: a million collections.
python3 - "$work/long.jsonl" <<'PY'
import json, sys
with open(sys.argv[1], "w") as f:
    f.write(json.dumps({"type": "begin", "version": 1, "pid": 1, "program": "long", "plan": "immix", "workers": 2}) + "\n")
    for n in range(1, 1000001):
        f.write('{"type":"collection","number":%d,"cause":"budget","kind":"young","at_ns":%d,"pause_ns":%d,"closure_ns":9000,"cpu_ns":10000,"before_bytes":9000000,"live_bytes":%d,"heap_bytes":8000000,"resident_bytes":9000000,"process_cpu_ns":%d}\n'
                % (n, n * 100000, 10000 + n * 7919 % 5000, 4000000 + n % 1000 * 1000, n * 90000))
PY
"$heapwright" report "$work/long.jsonl" --html "$work/long.html" || failed=$((failed + 1))
saved=$pictures pictures=""
look long 8 "$work/long.html"
pictures=$saved

[ "$failed" = 0 ]
