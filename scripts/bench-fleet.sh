#!/usr/bin/env bash
# A fleet of real agents on thin lines that fail, beside the usual scripts, and its simulation at scale. Prints tables in
# markdown; keeps them, the plots and what the nodes' programs said in .cache/bench-fleet. Needs root.
# docs/development/fleet-bench.md says what is measured and how.
#
# Scale, all of them with defaults (bench/src/scale.rs): STORES=60 NODES=5 (in each store) SEED=1 WINDOW (seconds)
# STORE_RATE UPLINK (bit/s) DELAY_MS LOSS_PPM BUNDLE (bytes) SIMULATED="10000 100000" (nodes)
# CONTENDERS="prestage curl rsync apt prestage-sharing". A small bench that shows everything takes a minute and a half:
# STORES=6 NODES=2.
#
# Everything runs in namespaces of a process of its own: when that is gone, however it ended, the kernel has taken
# every process, mount and link with it. What is left to do here is to remove two folders.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the fleet bench"
have ip tc ss nginx rsync curl apt-get unshare || die "ip, tc, ss, nginx, rsync, curl, apt-get or unshare is missing: run make setup"

need_shipped bench-fleet prestage prestage-build prestage-fleet-bench
out=$cache/bench-fleet
rm -rf "$out"
mkdir -p "$out"
"$project/scripts/node-root.sh" minimal >/dev/null

# The laboratory makes packages and the repository in a folder that it names in $out/sandbox.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/prestage-fleet.XXXXXX")
bench=
finish() {
    local code=$?
    trap '' INT TERM
    [ -z "$bench" ] || kill -KILL "$bench" 2>/dev/null || true
    wait 2>/dev/null || true
    if [ -s "$out/sandbox" ]; then rm -rf --one-file-system "$(<"$out/sandbox")"; fi
    rm -rf --one-file-system "$work" "$out/sandbox"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# In the background, so that a signal is heard at once. Killing unshare kills the first process of the namespace, and
# with it all others.
unshare --pid --fork --kill-child --mount-proc "$bin/prestage-fleet-bench" "$work" "$out" &
bench=$!
code=0
wait "$bench" || code=$?
bench=
(exit "$code")
