#!/usr/bin/env bash
# The agent for other processors: built as scripts/dist.sh builds it for this one, and run under qemu's user mode through
# whole cases of the end-to-end tests: a node patched by real apt and dpkg, https with a private authority and a client
# certificate, a proxy, time zones with and without their data. Needs root.
#
#   scripts/dist-cross.sh               arm64 and armhf
#   scripts/dist-cross.sh arm64         one of them
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "running the end-to-end cases"

target=${CARGO_TARGET_DIR:-$project/target}
cases=(
    whole_path::a_node_is_patched_from_archive_to_report_without_a_network
    whole_path::a_second_run_does_nothing_and_makes_at_most_two_requests
    mirrors::a_private_authority_is_trusted_where_it_is_configured_and_a_client_certificate_is_shown
    proxy::a_proxy_carries_http_as_requests_and_https_through_a_tunnel
    unconfigured::
)
if [ "$#" -gt 0 ]; then processors=("$@"); else processors=(arm64 armhf); fi
install_missing "to run programs of other processors" qemu-user
for arch in "${processors[@]}"; do
    case $arch in
    arm64) qemu=qemu-aarch64 machine=AArch64 ;;
    armhf) qemu=qemu-arm machine=ARM ;;
    *) die "which qemu runs $arch is not written down here" ;;
    esac
    agent=$(ARCH=$arch "$project/scripts/dist.sh")
    readelf --file-header "$agent" | grep -q "Machine: *$machine\$" || die "$agent is not for $arch"
    say "$arch: $(stat -c %s "$agent") bytes"
    # What the cases take for the agent, and the build tool as it is.
    folder=$target/dist/$arch/run
    mkdir -p "$folder"
    printf '#!/bin/sh\nexec %s %s "$@"\n' "$qemu" "$agent" >"$folder/prestage"
    chmod 755 "$folder/prestage"
    ln -sf "$target/debug/prestage-build" "$folder/prestage-build"
    "$folder/prestage" --version >&2
    (cd "$project" && PRESTAGE_BIN=$folder cargo test --quiet -p prestage-tests --test e2e -- "${cases[@]}") >&2
done
