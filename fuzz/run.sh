#!/bin/sh
# Runs every fuzz target for some seconds: fuzz/run.sh [SECONDS, default 60] [TARGET ...]
# Ends with an error at the first finding, which is kept in fuzz/artifacts.
set -eu
cd "$(dirname "$0")"
# These would replace the flags of .cargo/config.toml, and the fuzzer would be blind.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

seconds="${1:-60}"
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- decode peek_connect inflight_ops filter_match ws_frames ws_handshake forwarded proxy_protocol \
    config password_file rules_file import http

cargo build --release --locked --bins
for target in "$@"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    echo "fuzzing $target for $seconds s"
    # files of users are longer than what a peer sends at once
    case "$target" in config | rules_file) length=16384 ;; *) length=1024 ;; esac
    cargo run --release --locked --quiet --bin "$target" -- \
        "corpus/$target" "seeds/$target" -artifact_prefix="artifacts/$target/" \
        -max_total_time="$seconds" -max_len="$length" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
