#!/usr/bin/env bash
# Measures fetching with the shipped programs: how well caps are kept, on the wire; the speed without a cap beside curl's
# over loopback; what an idle poll costs. Prints tables, and keeps them in .cache/bench. Needs root.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" -eq 0 ] || die "run as root: nodes are overlay mounts"
"$project/scripts/node-root.sh" minimal >/dev/null
mkdir -p "$project/.cache/bench"
need_shipped bench-fetch prestage prestage-build prestage-lab
"$bin/prestage-lab" bench-fetch | tee "$project/.cache/bench/fetch.md"
"$bin/prestage-lab" bench-share | tee "$project/.cache/bench/share.md"
