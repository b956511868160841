#!/usr/bin/env bash
# Switches errors on one by one and expects that the tests of the plans find each (crates/core/src/bugs.rs).
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTFLAGS="--cfg seeded_bugs" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/seeded-bugs" \
  cargo test --release -p heapwright-bench --test seeded_bugs -- --nocapture
