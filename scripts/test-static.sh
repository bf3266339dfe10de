#!/usr/bin/env bash
# Whole cases of the end-to-end tests with the agent as it is shipped: nodes patched by apt and by dnf, several mirrors, https
# with the system's authorities and with a private one, client certificates, proxies, names, time zones with and without
# their data; roots as Debian and Enterprise Linux lay them out, and an empty one. Needs root.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "running the end-to-end cases"

need_shipped test-static prestage prestage-build
readelf --program-headers "$PRESTAGE_BIN/prestage" | grep -q INTERP && die "$PRESTAGE_BIN/prestage is not static"
cd "$project"
cargo test --quiet -p prestage-tests --test e2e -- --include-ignored whole_path:: mirrors:: proxy:: unconfigured:: rpm:: roots::
