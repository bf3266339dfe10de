#!/usr/bin/env bash
# The agent beside what the distribution has for similar work: size with all shared libraries, peak memory and CPU of
# looking at an update of the same content and of taking it. In a root of its own, so that nothing is installed on this machine.
# They are made for different things: images (rauc, swupdate), chunks of a tree (casync), packages (unattended-upgrades,
# dnf). The table says what each was asked to do. Prints it, and keeps it in .cache/bench. Needs root.
# shellcheck disable=SC2016  # awk and the inner shells have their own $
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the bench beside others"

target=${CARGO_TARGET_DIR:-$project/target}
agent=$target/dist/prestage
lab=$target/release/prestage-lab
for program in "$agent" "$lab"; do
    [ -x "$program" ] || die "$program is not there: run make bench-peers, which builds it"
done
peers=(rauc swupdate casync unattended-upgrades dnf)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/prestage-peers.XXXXXX")
root=$work/root
finish() {
    umount "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

say "a root with: ${peers[*]}"
archive=$cache/archive-minimal
"$project/scripts/archive.sh" "$archive"
keyrings=()
while read -r keyring; do keyrings+=(--keyring="$keyring"); done <"$archive/keyrings"
mmdebstrap --quiet --mode=root --variant=minbase --format=directory --aptopt='APT::Install-Recommends "false"' \
    --include="$(IFS=,; echo "${peers[*]}"),openssl,squashfs-tools,cpio,createrepo-c" "${keyrings[@]}" \
    "$(awk 'NR == 1 { print $3 }' "$archive/release.list")" "$root" "$archive/release.list" >&2
mount -t proc proc "$root/proc"
inside() { chroot "$root" "$@"; }

# Bytes of the files that start with these and of all shared libraries that they need, each once.
with_libraries() {
    { printf '%s\n' "$@"; for file in "$@"; do inside ldd "$file" 2>/dev/null | grep -o '/[^ ]*' || true; done; } |
        while read -r file; do inside readlink -f "$file"; done | sort -u | while read -r file; do stat -c %s "$root$file"; done |
        awk '{ sum += $1 } END { print sum }'
}
# Bytes of a Python program: interpreter with libraries, and the packages that the program's own package needs.
python_closure() {
    local list
    list=$(inside apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$1" 2>/dev/null |
        grep -E '^[a-z0-9]' | sort -u | while read -r package; do
        inside dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$package" 2>/dev/null | sed -n 's/^installed //p'
    done)
    # shellcheck disable=SC2086 # a list of packages
    inside dpkg-query -L $list | sort -u | while read -r file; do [ -f "$root$file" ] && [ ! -L "$root$file" ] && stat -c %s "$root$file"; done |
        awk '{ sum += $1 } END { print sum }'
}

# 64 MiB of what does not compress, as an update of one file.
mkdir -p "$root/bench/tree" "$root/bench/in"
head -c 67108864 </dev/urandom >"$root/bench/tree/content"
rows=()
# usage: row NAME BYTES WHAT COMMAND...: the command runs in the root; a program that is not the agent is measured with its children.
row() {
    local name=$1 bytes=$2 what=$3 wall cpu tree own
    shift 3
    if ! "$lab" measure "$work/measured" "$@" >"$work/out" 2>&1; then
        say "$name, $what: failed"
        tail -n 5 "$work/out" >&2
        rows+=("| $name | $bytes | $what | failed | | |")
        return
    fi
    # shellcheck disable=SC2034 # the table has no wall-clock time
    read -r wall cpu tree own <"$work/measured"
    rows+=("| $name | $bytes | $what | $tree | $own | $cpu |")
}

# --- rauc: a bundle with one image, signed ------------------------------------------------------------------------------
inside openssl req -x509 -newkey rsa:2048 -nodes -keyout /bench/key.pem -out /bench/cert.pem -days 2 -subj /CN=peer 2>/dev/null
mkdir -p "$root/bench/rauc"
cp "$root/bench/tree/content" "$root/bench/rauc/rootfs.img"
printf '[update]\ncompatible=peer\nversion=1\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n' >"$root/bench/rauc/manifest.raucm"
inside rauc --cert=/bench/cert.pem --key=/bench/key.pem bundle /bench/rauc /bench/update.raucb >/dev/null 2>&1
row rauc "$(with_libraries /usr/bin/rauc)" "verify (rauc info)" chroot "$root" rauc --keyring=/bench/cert.pem info /bench/update.raucb

# --- swupdate: a signed .swu with the same content ----------------------------------------------------------------------
mkdir -p "$root/bench/swu"
cp "$root/bench/tree/content" "$root/bench/swu/content"
cat >"$root/bench/swu/sw-description" <<SW
software = { version = "1.0"; hardware-compatibility: [ "1.0" ];
  files: ( { filename = "content"; path = "/bench/in/content"; sha256 = "$(sha256sum "$root/bench/tree/content" | cut -d' ' -f1)"; } ); }
SW
inside openssl cms -sign -in /bench/swu/sw-description -out /bench/swu/sw-description.sig -signer /bench/cert.pem \
    -inkey /bench/key.pem -outform DER -nosmimecap -binary
(cd "$root/bench/swu" && printf '%s\n' sw-description sw-description.sig content | cpio -o -H crc --quiet) >"$root/bench/update.swu"
printf 'board 1.0\n' >"$root/etc/hwrevision"
swupdate=/usr/bin/swupdate
[ -x "$root$swupdate" ] || swupdate=$(inside sh -c 'command -v swupdate')
row swupdate "$(with_libraries "$swupdate")" "verify (swupdate -c)" chroot "$root" "$swupdate" -k /bench/cert.pem -c -i /bench/update.swu
row swupdate "$(with_libraries "$swupdate")" "install one file (swupdate -i)" chroot "$root" "$swupdate" -k /bench/cert.pem -i /bench/update.swu

# --- casync: chunks of the same tree ------------------------------------------------------------------------------------
inside casync make --store=/bench/store.castr /bench/tree.caidx /bench/tree >/dev/null 2>&1
row casync "$(with_libraries /usr/bin/casync)" "extract, each chunk verified (casync extract)" chroot "$root" casync extract --store=/bench/store.castr /bench/tree.caidx /bench/extracted

# --- package managers with their timers: a look with nothing to do --------------------------------------------------------
row unattended-upgrades "$(python_closure unattended-upgrades)" "dry run, nothing to do" chroot "$root" unattended-upgrade --dry-run
mkdir -p "$root/bench/repository" "$root/bench/repos"
inside createrepo_c --quiet /bench/repository
printf '[peer]\nname=peer\nbaseurl=file:///bench/repository\ngpgcheck=0\n' >"$root/bench/repos/peer.repo"
row "dnf (dnf-automatic calls it)" "$(python_closure dnf)" "check-update, an empty repository" chroot "$root" dnf -q --releasever=9 --setopt=reposdir=/bench/repos check-update

# --- prestage -------------------------------------------------------------------------------------------------------------
mkdir -p "$target/bench-size"
cp "$agent" "$target/release/prestage-build" "$target/bench-size/"
PRESTAGE_BIN=$target/bench-size "$lab" peer-rows 2>"$work/peer-rows.err" >"$work/own" || { cat "$work/peer-rows.err" >&2; die "the agent's own rows"; }
while read -r line; do rows+=("$line"); done <"$work/own"

mkdir -p "$cache/bench"
{
    printf '| program | bytes with shared libraries | asked to | peak KiB of the largest process | of its own | CPU s |\n'
    printf '| --- | ---: | --- | ---: | ---: | ---: |\n'
    printf '%s\n' "${rows[@]}"
    printf '\nNot measured: rauc install (needs a D-Bus service and slots); mender-client (needs a server).\n'
} | tee "$cache/bench/peers.md"
