#!/usr/bin/env bash
# A whole fleet on this machine: prestage-fleet, a published repository, 50 real agents in roots of their own with real apt
# and dpkg, a policy in a real git repository. A rollout, nodes that do not stand it, the automatic halt, the revert, the way
# back. Pictures of the dashboard at each stage go to .cache/demo-fleet. 1 if anything that had to hold did not.
# Needs root and Debian 12 or 13, or Ubuntu.
# usage: demo-fleet.sh [NODES]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the demo of a fleet"
install_missing "to look at the dashboard" chromium fonts-liberation
install_missing "to keep policies in" git
"$project/scripts/node-root.sh" minimal >/dev/null
# Unoptimised, because what does not hold must unwind: mounts and servers go with it.
PRESTAGE_BIN=${PRESTAGE_BIN:-$project/target/debug} exec "$project/target/debug/prestage-lab" demo-fleet \
    "$cache/demo-fleet" "${1:-50}"
