#!/usr/bin/env bash
# Makes the root directory of a real node: this machine's distribution as its release was published, without the
# security and other updates that came since. Made once and kept; prints where. Whoever uses it mounts an overlay over
# it and leaves it as it is.
# usage: node-root.sh minimal | booted | kiosk | desktop
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "making a node root"

kind=${1:?usage: node-root.sh minimal | booted | kiosk | desktop}
mkdir -p "$cache"
exec 9>"$cache/root-$kind.lock"
flock 9
case $kind in booted) archive="$cache/archive-minimal" ;; *) archive="$cache/archive-$kind" ;; esac
"$project/scripts/archive.sh" "$archive"

case $kind in
minimal)
    # iproute2 shows what the package manager sees of the network.
    variant=apt
    packages=iproute2
    ;;
booted)
    # The same with an init, for containers that boot it.
    variant=apt
    packages=iproute2,systemd,systemd-sysv,dbus,ca-certificates,procps
    ;;
kiosk)
    variant=minbase
    mapfile -t names < <(grep -v '^#' "$project/scripts/kiosk-packages.txt")
    packages=$(apt-cache --no-all-versions show "${names[@]}" 2>/dev/null |
        sed -n 's/^Package: //p' | sort -u | paste -sd,)
    ;;
desktop)
    # A kiosk with a kernel, a screen and a browser: for the bench of deltas.
    variant=minbase
    packages=linux-image-amd64,systemd-sysv,openssh-server,chromium,xserver-xorg,openbox,lightdm,network-manager,cups,sudo,python3,curl
    ;;
*) die "there is no node root of kind $kind; there are minimal, booted, kiosk and desktop" ;;
esac

# Keyed by everything that decides what is in it. A point release of the distribution makes a new one.
key=$(cat "$0" "$archive/release" "$archive/release.list" - <<<"$variant $packages" | short_hash)
root="$cache/root-$kind-$key"

if [ ! -d "$root" ]; then
    say "making a node root ($kind); this is done once"
    rm -rf "$root.new"
    keyrings=()
    while read -r keyring; do keyrings+=(--keyring="$keyring"); done <"$archive/keyrings"
    # Packages stay in a cache of ours, so that a changed list does not fetch all of them again.
    mkdir -p "$cache/debs"
    mmdebstrap --quiet --mode=root --variant="$variant" --format=directory --include="$packages" \
        "${keyrings[@]}" --skip=cleanup/apt/cache \
        --setup-hook="mkdir -p \"\$1/var/cache/apt/archives\" && find '$cache/debs' -name '*.deb' -exec cp -t \"\$1/var/cache/apt/archives\" {} +" \
        --customize-hook="cp -n \"\$1\"/var/cache/apt/archives/*.deb '$cache/debs/'" \
        --customize-hook="rm -rf \"\$1\"/var/cache/apt/archives/*.deb \"\$1\"/var/lib/apt/lists/*_*" \
        --customize-hook="printf '#!/bin/sh\n# No service of a test root ever starts.\nexit 101\n' >\"\$1/usr/sbin/policy-rc.d\" && chmod 755 \"\$1/usr/sbin/policy-rc.d\"" \
        --customize-hook="echo test-node >\"\$1/etc/hostname\"" \
        "$(awk 'NR == 1 { print $3 }' "$archive/release.list")" \
        "$root.new" "$archive/release.list" >&2
    mv "$root.new" "$root"
fi
echo "$root"
