#!/usr/bin/env bash
# Makes RPM packages of the distribution's own packages: old/ of what a node root with dnf was made of, new/ of the updates that
# the archive has for it. Files, modes and links are those of the .deb; maintainer scripts are not taken, because dpkg's
# are not rpm's. Dependencies between the packages that are made come along, the others are the root's. Made once and
# kept; prints where.
# usage: rpm-from-debs.sh
# shellcheck disable=SC2016  # dpkg-query and awk have their own $
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "making packages"

root=$("$project/scripts/rpm-root.sh")
exec 9>"$cache/rpms.lock"
flock 9
out=$cache/rpms-$(cat "$0" - <<<"$root $(cat "$cache/archive-rpm/release")" | short_hash)
if [ -d "$out" ]; then
    echo "$out"
    exit
fi
say "making RPM packages; this is done once"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/rpm-from-debs.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/debs-new" "$out.new/old" "$out.new/new"

# usage: convert DEB FOLDER
convert() {
    local deb=$1 to=$2 tree name version epoch=0 release=1 arch
    tree=$(mktemp -d "$work/tree.XXXXXX")
    dpkg-deb -x "$deb" "$tree"
    name=$(dpkg-deb -f "$deb" Package) version=$(dpkg-deb -f "$deb" Version) arch=$(dpkg-deb -f "$deb" Architecture)
    case $version in *:*) epoch=${version%%:*} version=${version#*:} ;; esac
    # The revision becomes the release; neither may have a hyphen.
    case $version in *-*) release=${version##*-} version=${version%-*} ;; esac
    version=${version//-/_}
    case $arch in all) arch=noarch ;; amd64) arch=x86_64 ;; arm64) arch=aarch64 ;; esac
    # What scripts of dpkg would make and change is the node's own, and documentation was left out of the root.
    rm -rf "${tree:?}"/usr/share/{doc,man,locale,lintian,bug} "$tree"/var/{lib/dpkg,lib/apt,cache/apt} "${tree:?}"/{dev,proc,sys,run,etc}
    {
        printf 'Name: %s\nVersion: %s\nRelease: %s\nEpoch: %s\n' "$name" "$version" "$release" "$epoch"
        printf 'Summary: %s\nLicense: see the distribution\nAutoReqProv: no\n' "$(dpkg-deb -f "$deb" Description | head -n 1)"
        dpkg-deb -f "$deb" Depends Pre-Depends | sed 's/^[A-Za-z-]*: //' | tr ',' '\n' | sed 's/|.*//; s/(.*//; s/:any//; s/ //g' |
            grep -x -F -f "$work/names" | sort -u | sed 's/^/Requires: /' || true
        # The one package of which every node has an update looks at the network that it is installed in.
        printf '%%description\nMade of the distribution'"'"'s package.\n%%install\ncp -a %s/. %%{buildroot}/\n' "$tree"
        [ "$name" != "${looks_at_network:-}" ] || printf '%%post\ncat /proc/net/dev | grep : >/var/log/network-seen\n'
        printf '%%files\n%%defattr(-,-,-)\n'
        (cd "$tree" && find . ! -type d -printf '"/%P"\n' | sed 's/\[/[[]/g')
    } >"$tree.spec"
    HOME=$work rpmbuild --quiet -bb --target "$arch" --define "_topdir $tree.build" --define "_rpmdir $to" \
        --define '__os_install_post %{nil}' --define '_build_id_links none' --define '_binary_payload w6.gzdio' \
        --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' --define '_buildhost localhost' \
        --define 'debug_package %{nil}' --define '_unpackaged_files_terminate_build 0' "$tree.spec" >"$tree.log" 2>&1 ||
        { cat "$tree.log" >&2; die "rpmbuild cannot make $name"; }
    rm -rf "$tree" "$tree.build" "$tree.spec"
}
export -f convert die say
export work

# What the root was made of, without the package manager that was taken away.
grep -v -E '^(dpkg|apt|libapt-pkg[^ ]*) ' "$root.packages" >"$work/packages"
cut -d' ' -f1 "$work/packages" >"$work/names"

# Their files, and those of their updates, come from the archive, through an apt with its own state.
archive=$cache/archive-rpm
mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
mapfile -t keyrings <"$archive/keyrings"
cat "${keyrings[@]}" >"$work/apt/keys.gpg"
apt=(apt-get -q -o "Dir::Etc::sourcelist=$archive/updates.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
"${apt[@]}" update >&2
mkdir -p "$work/debs-old"
# One look-up for all: name and the newest version.
mapfile -t names <"$work/names"
apt-cache "${apt[@]:2}" --no-all-versions show "${names[@]}" 2>/dev/null |
    awk '/^Package: / { name = $2 } /^Version: / { print name, $2 }' | sort -u >"$work/candidates"
while read -r name version arch; do
    echo "$name:$arch=$version" >>"$work/older"
    candidate=$(awk -v name="$name" '$1 == name { print $2; exit }' "$work/candidates")
    ! dpkg --compare-versions "$candidate" gt "$version" || echo "$name=$candidate" >>"$work/newer"
done < <(sed 's/ all$/ '"$(dpkg --print-architecture)"'/' "$work/packages")
(cd "$work/debs-old" && xargs -a "$work/older" "${apt[@]}" download >&2)
(cd "$work/debs-new" && xargs -a "$work/newer" "${apt[@]}" download >&2)
looks_at_network=$(cut -d= -f1 "$work/newer" | head -n 1)
export looks_at_network
for which in old new; do
    find "$work/debs-$which" -name '*.deb' -print0 |
        xargs -0 -P "$(nproc)" -I{} bash -c 'set -euo pipefail; convert "$1" "$2"' bash {} "$out.new/$which" >&2
done
mv "$out.new" "$out"
echo "$out"
