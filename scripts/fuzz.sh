#!/usr/bin/env bash
# Fuzzes what reads bytes from outside: the targets in fuzz/fuzz_targets, each with its property at its head. Prints a line
# for each target and fails if one crashes, hangs or wants more than 64 MiB; what it crashed on is kept in
# fuzz/artifacts/TARGET. What is found on the way stays in fuzz/corpus, so that the next run begins there.
#
# Needs a C++ compiler beside Rust, no other tool: libFuzzer comes as source in its crate, and the compiler's own coverage
# pass does the rest, on stable Rust.
# usage: fuzz.sh [short | SECONDS] [TARGET...]      (SECONDS for each target; short: a minute for all of them)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# An input that takes longer is a hang: most take microseconds.
timeout=10
# The 64 MiB that a target may have are held by its allocator (fuzz/src/lib.rs). This is them and what libFuzzer needs for
# itself, which was 30 to 90 MiB: its tables of features, and the corpus, which it keeps in memory. libFuzzer's own
# -malloc_limit_mb does nothing without a sanitizer.
rss_limit_mb=$((64 + 128))
# What `short` takes for all targets.
short=60

cd "$project/fuzz"
mapfile -t all < <(basename -s .rs fuzz_targets/*.rs)
seconds=${1:-60}
shift $(($# > 0))
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=("${all[@]}")
[ "$seconds" != short ] || seconds=$((short / ${#targets[@]}))
[[ $seconds =~ ^[0-9]+$ ]] || die "usage: fuzz.sh [short | SECONDS] [TARGET...]"
for target in "${targets[@]}"; do
    [[ " ${all[*]} " == *" $target "* ]] || die "there is no target $target; there are: ${all[*]}"
done

if ! have g++; then
    say "missing: g++, which builds libFuzzer"
    have apt-get || die "this machine has no g++ and no apt to install it with"
    [ "$(id -u)" -eq 0 ] || die "run as root, or install by hand: apt-get install g++"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends g++ libc6-dev
fi

# What cargo-fuzz passes, without a sanitizer: there is no unsafe code of ours for one to watch. With --target, so that
# build scripts and macros are built without it.
coverage=(
    --cfg fuzzing
    -Ccodegen-units=1
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${coverage[*]}" cargo build --locked --quiet --release --target "$host" --bins

failed=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=artifacts/$target.log
    case $target in
    json | index | documents | envelope | metadata | journal | policy | rollout) words=(-dict=dict/json.dict) ;;
    *) words=() ;;
    esac
    result=ok
    "target/$host/release/$target" -max_total_time="$seconds" -timeout="$timeout" -rss_limit_mb="$rss_limit_mb" \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" "${words[@]}" \
        "corpus/$target" "seeds/$target" >"$log" 2>&1 </dev/null || result=FAILED
    awk -v target="$target" -v result="$result" '
        $2 ~ /^(INITED|NEW|REDUCE|RELOAD|pulse|DONE)$/ {
            for (i = 3; i < NF; i++) if ($i == "cov:") cov = $(i + 1); else if ($i == "corp:") corpus = $(i + 1)
            sub(/^#/, "", $1); seen = $1
        }
        /^stat::number_of_executed_units/ { seen = $2 }
        /^stat::peak_rss_mb/ { rss = $2 }
        END {
            sub(/\/.*/, "", corpus)
            printf "%-14s %11d executions  %5d places covered  %5d inputs kept  %4d MiB  %s\n",
                target, seen, cov, corpus, rss, result
        }' "$log"
    if [ "$result" != ok ]; then
        failed=1
        grep -v -E '^(#[0-9]|".*# Uses|INFO: |NEW_FUNC|\t*#)' "$log" | tail -n 25 >&2
        say "again: fuzz/target/$host/release/$target FILE, in $project/fuzz; all it said is in fuzz/$log"
    fi
done
[ "$failed" -eq 0 ] || die "fuzzing found something; the inputs are in fuzz/artifacts"
