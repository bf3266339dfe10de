#!/usr/bin/env bash
# The agent's budget: size of the program as it is shipped, peak memory of every verb, CPU of a run that has nothing to do;
# and where the bytes are, by crate. Prints tables, keeps them in .cache/bench, and fails where the budget is exceeded.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the bench of size and memory"

target=${CARGO_TARGET_DIR:-$project/target}
need_shipped bench-size prestage prestage-build prestage-lab
"$project/scripts/node-root.sh" minimal >/dev/null
mkdir -p "$cache/bench"
code=0
"$bin/prestage-lab" bench-size | tee "$cache/bench/size.md" || code=$?
# With its symbols, the same build is somewhere else.
if [ -x "$target/dist/prestage.unstripped" ]; then
    "$bin/prestage-lab" size-by-crate "$target/dist/prestage.unstripped" | tee -a "$cache/bench/size.md"
fi
exit "$code"
