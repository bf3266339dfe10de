#!/usr/bin/env bash
# Prestage beside the ordinary tools, in one run, on the same real packages (about 500 MB, fetched once through apt and
# kept in the cache). Prints a table in markdown and keeps it in .cache/bench/results.md. Needs root.
#
# CPU is user and system time of a program and all that it starts; memory is the peak of the program itself, without
# apt. Rounds alternate, and the median counts.
# usage: bench.sh [ROUNDS]
# shellcheck disable=SC2016  # dpkg-query and awk have their own $
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the bench"

rounds=${1:-5}
need_programs bench prestage prestage-build prestage-lab
begin bench
agent=$bin/prestage
declare -A peak build_peak

# Runs and measures a command that must end with code 0, or the codes of $allowed; sets seconds, cpu, kib.
allowed=0
measure() {
    local code=0
    printf '\n$ %s\n' "$*" >>"$log"
    "$bin/prestage-lab" measure "$work/measured" "$@" >>"$log" 2>&1 </dev/null || code=$?
    [[ " $allowed " == *" $code "* ]] || { echo "exit code $code" >>"$log"; return 1; }
    read -r seconds cpu _ kib <"$work/measured"
}
mib() { awk -v b="$1" 'BEGIN { printf "%.1f MiB", b / 1048576 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f (1/%.1f)", a / b, b / a }'; }

# An overlay over a cached root. usage: make_node NAME KIND
make_node() {
    local node=$work/$1 root
    root=$("$project/scripts/node-root.sh" "$2" 2>>"$log")
    mkdir -p "$node" "$work/$1.upper" "$work/$1.work"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/$1.upper,workdir=$work/$1.work" "$node"
    mounts+=("$node")
    mkdir -p "$node/etc/prestage"
}
# usage: configure NAME MIRROR ROOT_OF_REPOSITORY
configure() {
    printf '[node]\nid = "bench-%s"\n[repository]\nmirrors = ["%s"]\n[fetch]\npaced = false\n' "$1" "$2" >"$work/$1/etc/prestage/agent.toml"
    cp "$3/metadata/1.root.json" "$work/$1/etc/prestage/root.json"
}
keep=$cache/bench
mkdir -p "$keep" "$work/gpg"
chmod 700 "$work/gpg"
export GNUPGHOME=$work/gpg
gpg --batch --quiet --passphrase '' --quick-gen-key 'Bench, thrown away' default default never 2>>"$log"

# --- The packages ----------------------------------------------------------------------------------------------------
make_node small minimal
make_node kiosk kiosk
# shellcheck source=/dev/null
variant=$(. "$work/small/etc/os-release" && echo "$ID-$VERSION_ID-$(dpkg --print-architecture)")
archive=$keep/archive
"$project/scripts/archive.sh" "$archive"
keyrings=()
while read -r keyring; do keyrings+=(--keyring "$keyring"); done <"$archive/keyrings"

# Every package of a node, as if each were to be updated: real packages, and many.
names() { dpkg-query --admindir="$work/$1/var/lib/dpkg" -W -f '${Package}\n' | sort -u; }
names small >"$work/50.list"
{
    names kiosk
    apt-cache --no-all-versions show chromium default-jre-headless firefox 2>/dev/null | sed -n 's/^Package: //p'
} | sort -u >"$work/500.list"
for size in 50 500; do
    key=$(cat "$work/$size.list" "$archive/release" "$work/kiosk/var/lib/dpkg/status" | short_hash)
    collected=$keep/collected-$size-$key
    if [ ! -d "$collected" ]; then
        say "collecting the packages of the $size MB bundle; this is done once"
        inventories=(--inventory "$work/$size.list")
        [ "$size" = 50 ] || inventories+=(--inventory "$work/kiosk/var/lib/dpkg/status")
        rm -rf "$collected.new"
        "$build" collect apt --variant "$variant" --sources "$archive/updates.list" "${keyrings[@]}" \
            "${inventories[@]}" --cache "$keep/apt" --output "$collected.new" >>"$log" 2>&1
        mv "$collected.new" "$collected"
    fi
    ln -s "$collected" "$work/collected-$size"
    cat "$collected"/pool/* >/dev/null # into the page cache: disks are not what is measured
done

# --- (b) Making: tar, sum, signature, metadata against bundle and sign -----------------------------------------------
for role in root targets bundles snapshot timestamp; do "$build" key new "$work/$role.key" >>"$log" 2>&1; done
for size in 50 500; do
    "$build" root init "$work/repo-$size" --root-key "$work/root.key" --targets-key "$work/targets.key" \
        --bundles-key "$work/bundles.key" --snapshot-key "$work/snapshot.key" \
        --timestamp-key "$work/timestamp.key" >>"$log" 2>&1
done
cat >"$work/make-ordinary" <<'SH'
set -e
cd "$1"
tar -czf "$2.tar.gz" --dereference pool
cd "$(dirname "$2")"
sha256sum "$(basename "$2").tar.gz" >"$2.sha256"
gpg --batch --quiet --yes --detach-sign "$2.tar.gz"
cd "$1"
apt-ftparchive packages pool >"$2.Packages"
SH
say "(b) making, $rounds rounds"
for round in $(seq "$rounds"); do
    rm -rf "$work/ordinary."* "$work/bundle-500"
    measure bash "$work/make-ordinary" "$work/collected-500" "$work/ordinary"
    echo "$cpu $seconds" >>"$work/b.ordinary"
    measure "$build" bundle "$work/collected-500" --version bench-1 --cycle bench --output "$work/bundle-500"
    bundle_cpu=$cpu bundle_seconds=$seconds build_peak[bundle]=$kib
    # Signed once for the repository; what signing costs is the same each round.
    if [ "$round" = 1 ]; then
        measure "$build" sign "$work/repo-500" "$work/bundle-500" --key "$work/bundles.key"
        sign_cpu=$cpu sign_seconds=$seconds build_peak[sign]=$kib
        measure "$build" publish "$work/repo-500" "$work/bundle-500" --snapshot-key "$work/snapshot.key" \
            --timestamp-key "$work/timestamp.key"
        build_peak[publish]=$kib
    fi
    awk -v a="$bundle_cpu" -v b="$sign_cpu" -v c="$bundle_seconds" -v d="$sign_seconds" \
        'BEGIN { print a + b, c + d }' >>"$work/b.ours"
done
{
    "$build" bundle "$work/collected-50" --version bench-1 --cycle bench --output "$work/bundle-50"
    "$build" sign "$work/repo-50" "$work/bundle-50" --key "$work/bundles.key"
    "$build" publish "$work/repo-50" "$work/bundle-50" --snapshot-key "$work/snapshot.key" \
        --timestamp-key "$work/timestamp.key"
} >>"$log" 2>&1
measure "$build" check "$work/repo-500" --full
build_peak[check]=$kib
for size in 50 500; do
    measure "$build" export "$work/repo-$size" --variant "$variant" --output "$work/export-$size.tar"
    "$build" export "$work/repo-$size" --variant "$variant" --output "$work/export-$size" >>"$log" 2>&1
done
build_peak[export]=$kib

# --- (a) Staging: sum, signature, tar, metadata against import -------------------------------------------------------
cat >"$work/stage-ordinary" <<'SH'
set -e
cd "$(dirname "$1")"
case $3 in
coreutils) sha256sum --quiet -c "$1.sha256" ;;
openssl) [ "$(openssl dgst -sha256 -r "$1.tar.gz" | cut -d' ' -f1)" = "$(cut -d' ' -f1 <"$1.sha256")" ] ;;
esac
gpg --batch --quiet --verify "$1.tar.gz.sig" "$1.tar.gz"
mkdir -p "$2"
tar -xzf "$1.tar.gz" -C "$2"
cd "$2"
apt-ftparchive packages pool >Packages
SH
say "(a) staging, $rounds rounds"
configure small "$work/repo-500" "$work/repo-500"
for _ in $(seq "$rounds"); do
    for sum in coreutils openssl; do
        rm -rf "$work/out"
        measure bash "$work/stage-ordinary" "$work/ordinary" "$work/out" "$sum"
        echo "$cpu $seconds" >>"$work/a.$sum"
    done
    rm -rf "$work/out" "$work/small/var/lib/prestage"
    measure "$agent" --root "$work/small" import "$work/export-500" --everything
    echo "$cpu $seconds" >>"$work/a.ours"
done

# --- (c) Memory of every verb, for both sizes ------------------------------------------------------------------------
say "(c) memory"
# The small node, but with every package of the bundle to be updated: its dpkg status says version 0 of each.
for size in 50 500; do
    find "$work/collected-$size/pool/" -name '*.deb' -printf '%f\n' | sed -E 's/^([^_]+)_.*_([^_]+)\.deb$/\1 \2/' |
        while read -r name arch; do
            printf 'Package: %s\nStatus: install ok installed\nArchitecture: %s\nVersion: 0\nMaintainer: x\nDescription: x\n\n' \
                "$name" "$arch"
        done >"$work/small/var/lib/dpkg/status"
    # The package manager is stopped before it changes anything: what is measured is the agent, which has verified and
    # copied everything by then.
    mkdir -p "$work/small/etc/apt/apt.conf.d"
    echo 'DPkg::Pre-Invoke { "exit 1"; };' >"$work/small/etc/apt/apt.conf.d/99-stop"
    rm -rf "$work/small/var/lib/prestage"
    listen "server-$size" "$build" serve "$work/repo-$size" --listen 127.0.0.1:0
    configure small "$served_url" "$work/repo-$size"
    state=$work/small/var/lib/prestage
    note() { peak[$1-$size]=$kib; }
    measure "$agent" --root "$work/small" fetch && note fetch
    staged=$(find "$state/fetch/staged/" -name '*.deb' | wc -l)
    # Nearly all: alternatives of one another are not installed together.
    [ $((staged * 100)) -ge $(("$(find "$work/collected-$size/pool/" -name '*.deb' | wc -l)" * 95)) ] ||
        die "the fetch staged $staged packages, not nearly all"
    measure "$agent" --root "$work/small" fetch && note "fetch (idle)"
    allowed="1 4 6" measure "$agent" --root "$work/small" install --now && note install
    measure "$agent" --root "$work/small" status && note status
    measure "$agent" --root "$work/small" doctor && note doctor
    measure "$agent" --root "$work/small" verify "$work/export-$size" && note verify
    rm -rf "$state"
    measure "$agent" --root "$work/small" import "$work/export-$size.tar" && note "import (file)"
    rm -rf "$state"
    measure "$agent" --root "$work/small" import "$work/export-$size" && note "import (folder)"
    rm -rf "$state"
done

# --- (d) Bytes fetched against the whole tarball ---------------------------------------------------------------------
say "(d) bytes"
listen wire "$bin/prestage-lab" tap "${served_url#http://}"
configure kiosk "$served_url" "$work/repo-500"
measure "$agent" --root "$work/kiosk" fetch
told() { jq -r "$1" "$work/kiosk/var/lib/prestage/status.json"; }
needed=$(told .status.plan.bytesNeeded) packages=$(told .status.plan.packages)
until [ "$(grep -c '^opened' "$work/wire.log")" = "$(grep -c '^closed' "$work/wire.log")" ]; do :; done
wire=$(awk -F'[= ]' '/^closed/ { sum += $3 } END { print sum + 0 }' "$work/wire.log")
tarball=$(stat -c %s "$work/ordinary.tar.gz")
bundle=$(stat -c %s "$work/repo-500"/targets/bundles/*/*/*.bundle.tar.gz)

# --- The tables ------------------------------------------------------------------------------------------------------
column() { awk -v c="$2" '{ print $c }' "$work/$1" | median; }
{
    echo "# Bench of $(date -u +%F)"
    echo
    echo "$(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r), $variant;"
    echo "$(find "$work/collected-500/pool/" -name '*.deb' | wc -l) packages, bundle $(mib "$bundle");" \
        "median of $rounds rounds."
    echo
    echo "| (a) staging | CPU s | seconds | CPU of Prestage to it |"
    echo "| --- | ---: | ---: | ---: |"
    ours=$(column a.ours 1)
    echo "| \`sha256sum && gpg --verify && tar -xzf && apt-ftparchive\` | $(column a.coreutils 1) | $(column a.coreutils 2) | $(ratio "$ours" "$(column a.coreutils 1)") |"
    echo "| the same with \`openssl dgst -sha256\` | $(column a.openssl 1) | $(column a.openssl 2) | $(ratio "$ours" "$(column a.openssl 1)") |"
    echo "| \`prestage import --everything\` | $ours | $(column a.ours 2) | 1 |"
    echo
    echo "| (b) making | CPU s | seconds | CPU of Prestage to it |"
    echo "| --- | ---: | ---: | ---: |"
    ours=$(column b.ours 1)
    echo "| \`tar -czf && sha256sum && gpg --detach-sign && apt-ftparchive\` | $(column b.ordinary 1) | $(column b.ordinary 2) | $(ratio "$ours" "$(column b.ordinary 1)") |"
    echo "| \`prestage-build bundle && sign\` | $ours | $(column b.ours 2) | 1 |"
    echo
    echo "| (c) peak memory of the agent | $(mib "$(stat -c %s "$work/repo-50"/targets/bundles/*/*/*.bundle.tar.gz)") bundle | $(mib "$bundle") bundle |"
    echo "| --- | ---: | ---: |"
    for verb in fetch "fetch (idle)" install "import (folder)" "import (file)" verify status doctor; do
        echo "| $verb | $(mib $((${peak[$verb-50]} * 1024))) | $(mib $((${peak[$verb-500]} * 1024))) |"
    done
    echo
    echo "| peak memory of the build tool | $(mib "$bundle") bundle |"
    echo "| --- | ---: |"
    for verb in bundle sign publish check export; do
        echo "| $verb | $(mib $((${build_peak[$verb]} * 1024))) |"
    done
    echo
    echo "| (d) a kiosk that needs $packages packages | bytes | of the tarball |"
    echo "| --- | ---: | ---: |"
    echo "| the whole tarball | $tarball | 100 % |"
    echo "| sizes of its own packages | $needed | $(awk -v a="$needed" -v b="$tarball" 'BEGIN { printf "%.1f %%", 100 * a / b }') |"
    echo "| fetched, as counted on the wire | $wire | $(awk -v a="$wire" -v b="$tarball" 'BEGIN { printf "%.1f %%", 100 * a / b }') |"
    echo "| fetched for each byte needed | | $(awk -v a="$wire" -v b="$needed" 'BEGIN { printf "%.2f %%", 100 * a / b }') |"
} | tee "$keep/results.md"
