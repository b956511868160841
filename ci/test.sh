#!/usr/bin/env bash
# The one test command: installs what client tests need when it may, then runs every check.
#
#   ci/test.sh            everything
#   ci/test.sh --quick    without model checking, seeded bugs and client programs
#
# Closes with a line "N passed, N failed" and exits non-zero if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."

quick=0
case "${1:-}" in
  "") ;;
  --quick) quick=1 ;;
  *) echo "usage: ci/test.sh [--quick]" >&2; exit 2 ;;
esac

passed=0
failed=0
step() { # name, command...
  local name=$1 begin=$SECONDS
  shift
  echo "=== $name"
  if "$@"; then
    passed=$((passed + 1))
    echo "--- ok: $name ($((SECONDS - begin)) s)"
  else
    failed=$((failed + 1))
    echo "--- FAILED: $name ($((SECONDS - begin)) s)"
  fi
}

bash ci/install.sh || echo "some client programs could not be installed; their checks will say so"

step "format" cargo fmt --all --check
step "the picture of results" python3 ci/picture.py --check
step "lints" cargo clippy --workspace --all-targets -- -D warnings
step "build" cargo build --release --workspace
step "tests" cargo test --release --workspace --no-fail-fast
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
step "benchmarks compile and run" cargo bench --workspace --bench '*' -- --test
if [ "$quick" = 0 ]; then
  step "model checking" bash ci/models.sh
  step "seeded bugs" bash ci/bugs.sh
  step "Boehm's own programs" bash ci/boehm.sh
  step "client programs" bash ci/clients.sh
  step "attacks" bash ci/attack.sh
  step "faults" bash ci/faults.sh
  step "reports in a browser" bash ci/browser.sh
  step "clients in small" bash ci/smoke.sh --install
  step "w3m's tests" bash ci/suites/w3m.sh
  step "ECL's tests" bash ci/suites/ecl.sh
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
