#!/usr/bin/env bash
# Model checking of the concurrent parts with loom, in a target directory of its own since it builds with another cfg.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
cargo test --release -p heapwright-work --lib
cargo test --release -p heapwright-memory --lib
cargo test --release -p heapwright --lib
cargo test --release -p heapwright-signals --lib
