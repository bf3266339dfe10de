#!/usr/bin/env bash
# Finds the distribution's own archive in this machine's apt configuration and writes it down:
#
#   DIR/release.list   the release as it was published, without security and other updates
#   DIR/updates.list   the same and its security and updates suites
#   DIR/keyrings       the keyrings that sign them, a file a line
#   DIR/release        which release, and which point release of it
#
# Third-party sources are passed over: only what says it is of the distribution (its Origin) counts.
# usage: archive.sh DIR
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

out=${1:?usage: archive.sh DIR}
mkdir -p "$out"
exec 8>"$out/lock" # tests run side by side
flock 8
# shellcheck source=/dev/null
. /etc/os-release
codename=${VERSION_CODENAME:?this distribution has no VERSION_CODENAME in /etc/os-release}

# uri suite component origin codename suite-name file:entry point-release
targets=$(apt-get indextargets \
    --format "\$(REPO_URI) \$(RELEASE) \$(COMPONENT) \$(ORIGIN) \$(CODENAME) \$(SUITE) \$(SOURCESENTRY) \$(VERSION)" \
    'Created-By: Packages' "Architecture: $(dpkg --print-architecture)" | sort -u)

# The value of Signed-By of one entry of a sources file: paths, or a key block.
signed_by() {
    local file=$1 entry=$2
    case $file in
    *.sources)
        # Entries are paragraphs, counted from 1.
        awk -v entry="$entry" '
            /^#/ { next }
            /^[[:space:]]*$/ { if (in_entry) { in_entry = 0 } ; next }
            !in_entry { in_entry = 1; n++ }
            n != entry { next }
            tolower($1) == "signed-by:" { take = 1; sub(/^[^:]*:[[:space:]]*/, ""); if ($0 != "") print; next }
            take && /^[[:space:]]/ { sub(/^ /, ""); if ($0 == ".") $0 = ""; print; next }
            { take = 0 }' "$file"
        ;;
    *) sed -n "${entry}p" "$file" | grep -o 'signed-by=[^] ]*' | cut -d= -f2 | tr ',' '\n' || true ;;
    esac
}

: >"$out/release.list"
: >"$out/updates.list"
: >"$out/keyrings.new"
while read -r uri suite component origin in_codename suite_name source version; do
    case $origin in Debian | Ubuntu) ;; *) continue ;; esac
    line="deb $uri $suite $component"
    case "$suite $suite_name $in_codename" in
    *backports* | *proposed*) continue ;;
    *security* | *-updates*) echo "$line" >>"$out/updates.list" ;;
    *)
        [ "$in_codename" = "$codename" ] || continue
        echo "$line" >>"$out/release.list"
        echo "$ID $codename $version" >"$out/release"
        ;;
    esac
    keys=$(signed_by "${source%:*}" "${source##*:}")
    case $keys in
    *BEGIN*)
        file="$out/key-$(short_hash <<<"$keys").asc"
        printf '%s\n' "$keys" >"$file"
        echo "$file" >>"$out/keyrings.new"
        ;;
    '') find /etc/apt/trusted.gpg.d /usr/share/keyrings -name "*.gpg" -o -name '*.asc' |
        grep -E "/etc/apt/|${ID}-archive-keyring.gpg$" >>"$out/keyrings.new" || true ;;
    *) printf '%s\n' "$keys" >>"$out/keyrings.new" ;;
    esac
done <<<"$targets"
cat "$out/release.list" >>"$out/updates.list"
sort -u "$out/keyrings.new" >"$out/keyrings"
rm "$out/keyrings.new"

[ -s "$out/release.list" ] || die "apt's configuration names no archive of $PRETTY_NAME; is /etc/apt/sources.list* complete, and was apt-get update run?"
grep -q -E 'security' "$out/updates.list" || die "apt's configuration names no security suite of $PRETTY_NAME; the demo needs one to have something to update"
[ -s "$out/keyrings" ] || die "no keyring of $PRETTY_NAME was found in Signed-By, /etc/apt/trusted.gpg.d or /usr/share/keyrings"
