#!/usr/bin/env bash
# Makes the root directory of a node whose package manager is dnf, and prints where. Made once and kept; whoever uses it
# mounts an overlay over it and leaves it as it is.
#
# What is real: rpm, librpm, dnf 4 with its plugins, their database and their Python are the distribution's own builds, and
# the node has no other package manager. What is not: it is no Enterprise Linux. No archive of one is reachable from here,
# so the files of the root come from Debian, dpkg and apt are taken away, and its RPM database begins with one package,
# lab-base, that stands for all of them. What is installed and updated on top are RPM packages that rpmbuild made.
# usage: rpm-root.sh [booted]     booted: with systemd, for the scriptlets of packages
# shellcheck disable=SC2016  # dpkg-query has its own $
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "making a node root"

mkdir -p "$cache"
exec 9>"$cache/root-rpm.lock"
flock 9
archive="$cache/archive-rpm"
"$project/scripts/archive.sh" "$archive"

# iproute2 shows what the package manager sees of the network; the plugins are versionlock and needs-restarting.
packages=dnf,rpm,dnf-plugins-core,iproute2
if [ "${1:-}" = booted ]; then packages+=,systemd,systemd-sysv,dbus; fi
key=$(cat "$0" "$archive/release" "$archive/release.list" - <<<"$packages" | short_hash)
root="$cache/root-rpm-$key"
if [ -d "$root" ]; then
    echo "$root"
    exit
fi

say "making a node root (rpm); this is done once"
rm -rf "$root.new"
keyrings=()
while read -r keyring; do keyrings+=(--keyring="$keyring"); done <"$archive/keyrings"
mkdir -p "$cache/debs"
mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$packages" \
    "${keyrings[@]}" --skip=cleanup/apt/cache \
    --aptopt='APT::Install-Recommends "false"' \
    --setup-hook="mkdir -p \"\$1/var/cache/apt/archives\" && find '$cache/debs' -name '*.deb' -exec cp -t \"\$1/var/cache/apt/archives\" {} +" \
    --customize-hook="cp -n \"\$1\"/var/cache/apt/archives/*.deb '$cache/debs/'" \
    "$(awk 'NR == 1 { print $3 }' "$archive/release.list")" \
    "$root.new" "$archive/release.list" >&2

# Name, version and architecture of what it is made of, for scripts/rpm-from-debs.sh.
dpkg-query --admindir="$root.new/var/lib/dpkg" -W -f '${Package} ${Version} ${Architecture}\n' >"$root.packages"
# No other package manager is left, and nothing of it.
rm -rf "$root.new"/usr/bin/{apt*,dpkg*} "$root.new"/{etc,var/lib,var/cache}/{apt,dpkg} "$root.new"/usr/lib/{apt,dpkg} \
    "$root.new"/usr/share/{doc,man,locale} "$root.new"/var/log/{apt,dpkg.log,bootstrap.log}
rm -f "$root.new/etc/os-release"
cat >"$root.new/etc/os-release" <<'CONF'
NAME="RPM test node"
ID="rpmlab"
ID_LIKE="rhel"
VERSION_ID="9"
PLATFORM_ID="platform:el9"
PRETTY_NAME="RPM test node (made for tests, not Enterprise Linux)"
CONF
echo test-node >"$root.new/etc/hostname"
# Debian's rpm keeps its database in the user's home unless it is told not to.
mkdir -p "$root.new/etc/rpm" "$root.new/var/lib/rpm"
printf '%%_dbpath /var/lib/rpm\n' >"$root.new/etc/rpm/macros"
# The main section that Enterprise Linux 9 ships.
mkdir -p "$root.new/etc/dnf" "$root.new/etc/yum.repos.d"
cat >"$root.new/etc/dnf/dnf.conf" <<'CONF'
[main]
gpgcheck=1
installonly_limit=3
clean_requirements_on_remove=True
best=True
skip_if_unavailable=False
CONF
# As on a branch network whose line is down: a repository that nobody answers for. Only one that is never asked is no harm.
cat >"$root.new/etc/yum.repos.d/baseos.repo" <<'CONF'
[baseos]
name=unreachable
baseurl=http://127.0.0.1:1/baseos/
enabled=1
CONF

build=$(mktemp -d "${TMPDIR:-/var/tmp}/rpm-root.XXXXXX")
cat >"$build/lab-base.spec" <<'SPEC'
Name: lab-base
Version: 9
Release: 1
Summary: Stands for all files of the root that no package of this database owns
License: none
BuildArch: noarch
AutoReqProv: no
Provides: /bin/sh /usr/bin/sh /bin/bash /usr/bin/python3 system-release = 9 redhat-release = 9
%description
Made for tests.
%files
SPEC
rpmbuild --quiet --define "_topdir $build" --define "_rpmdir $build" --define '_build_name_fmt %%{NAME}.rpm' -bb "$build/lab-base.spec" >&2
cp "$build/lab-base.rpm" "$root.new/tmp/"
chroot "$root.new" rpm --initdb
chroot "$root.new" rpm -i --justdb /tmp/lab-base.rpm
rm -rf "$root.new/tmp/lab-base.rpm" "$build"
mv "$root.new" "$root"
echo "$root"
