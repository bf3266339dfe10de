#!/usr/bin/env bash
# Puts the agent into a package for the virtual machine laboratory: the static program, its units, its user and folders,
# its configuration. Prints the package's path.
#
#   scripts/agent-deb.sh PROGRAM FOLDER
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

program=${1:?usage: agent-deb.sh PROGRAM FOLDER}
folder=${2:?usage: agent-deb.sh PROGRAM FOLDER}
[ -x "$program" ] || die "$program is not there: make dist"
mkdir -p "$folder"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -n 1)
architecture=$(dpkg --print-architecture)

install -D -m 755 "$program" "$tree/usr/bin/prestage"
install -D -m 644 "$project/packaging/config/agent.toml" "$tree/etc/prestage/agent.toml"
install -D -m 644 "$project/systemd/prestage.sysusers" "$tree/usr/lib/sysusers.d/prestage.conf"
install -D -m 644 "$project/systemd/prestage.tmpfiles" "$tree/usr/lib/tmpfiles.d/prestage.conf"
for unit in "$project"/systemd/*.{service,timer,path,socket}; do
    install -D -m 644 "$unit" "$tree/lib/systemd/system/${unit##*/}"
done
mkdir "$tree/DEBIAN"
echo /etc/prestage/agent.toml >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: prestage
Version: $version
Architecture: $architecture
Maintainer: Nobody <nobody@example.org>
Description: the agent, packed for the virtual machine laboratory
CONTROL
cat >"$tree/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
systemd-sysusers prestage.conf
systemd-tmpfiles --create prestage.conf
systemctl daemon-reload
for timer in fetch install report; do
    systemctl --quiet enable "prestage-$timer.timer"
    systemctl start "prestage-$timer.timer"
done
systemctl --quiet enable prestage-recover.service
POSTINST
chmod 755 "$tree/DEBIAN/postinst"
deb="$folder/prestage_${version}_$architecture.deb"
SOURCE_DATE_EPOCH=1700000000 dpkg-deb --root-owner-group -Zgzip --build "$tree" "$deb" >/dev/null
printf '%s\n' "$deb"
