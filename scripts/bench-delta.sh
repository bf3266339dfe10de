#!/usr/bin/env bash
# Deltas on a real kiosk: the packages of the distribution's release brought to its security and other updates, whole and
# as deltas; what goes over the wire, what it takes at the centre and on the node, and that both nodes are the same in the
# end. Then the same with one file of every package edited, one gone, and one byte of every patch flipped. Needs root.
# usage: bench-delta.sh          FAULTS=0: without the damaged nodes; KIND: the root that it starts from; BASES: the folder of
#                                older packages (all that were ever fetched here)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "bench-delta"

kind=${KIND:-desktop}
need_shipped bench-delta prestage prestage-build prestage-lab
root=$("$project/scripts/node-root.sh" "$kind")
begin bench-delta
prestage=("$bin/prestage" --root "$node")

# A node as it was before its updates, with nothing of an agent on it but its configuration. usage: fresh_node ID [TOML]
fresh_node() {
    if mountpoint -q "$node"; then umount "$node"; fi
    rm -rf --one-file-system "$work/upper" "$work/overlay"
    mkdir -p "$node" "$work/upper" "$work/overlay"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/overlay" "$node"
    configure_node "$1"
    printf '%b' "${2:-}" >>"$node/etc/prestage/agent.toml"
}
mounts+=("$node")

# Every package and every file of a package on the node, each with its digest. usage: node_is FILE
node_is() {
    {
        # shellcheck disable=SC2016 # for dpkg-query
        in_node dpkg-query -W -f '${binary:Package} ${Version} ${Status}\n'
        in_node dpkg --audit
        # Folders are in the lists too: nothing is said of them.
        cat "$node"/var/lib/dpkg/info/*.list | sort -u | sed "s|^|$node|" | tr '\n' '\0' |
            { xargs -0 sha256sum 2>/dev/null || true; } | sed "s|  $node/|  |"
    } >"$1"
    [ -s "$1" ] || fail "nothing is on the node"
}

# Gets every package that is on the root, in its version, that is not in the cache yet.
bases_of_the_root() {
    local apt name version file
    # shellcheck disable=SC2016 # for dpkg-query
    while read -r name version; do
        file=${name%:*}_${version//:/%3a}_${name#*:}.deb
        [ -e "$cache/debs/$file" ] || echo "$name=$version"
    done < <(chroot "$root" dpkg-query -W -f '${Package}:${Architecture} ${Version}\n') | sed 's/:all=/=/' >"$work/bases"
    [ -s "$work/bases" ] || return 0
    mkdir -p "$work/apt/lists/partial"
    apt=(apt-get -q -o "Dir::Etc::sourcelist=$archive/updates.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
    "${apt[@]}" update >&2
    (cd "$cache/debs" && xargs -a "$work/bases" "${apt[@]}" download >&2)
}

# Fetches and installs on a fresh node, and says what went over the wire in $received. usage: patch NAME
patch() {
    local before
    before=$(wire bytes)
    step "fetch-$1" "${prestage[@]}" fetch --now
    received=$(($(wire bytes) - before))
    told '.status.plan.deltas // {"packages": 0, "bytesSaved": 0, "whole": 0}' >"$work/deltas-$1"
    step "install-$1" "${prestage[@]}" install --now
    node_is "$work/node-$1"
}
# The same packages and files; but for what was done to those of a package that stays beside its successor, as a kernel does.
same_as_whole() {
    local difference
    difference=$(diff "$work/node-whole" "$work/node-$1" | grep '^[<>]' | grep -vFf "$work/staying" || true)
    [ -z "$difference" ] || fail "the node $1 is not the one that was patched with whole packages: $(head -n 5 <<<"$difference")"
}
of_deltas() { jq -r "$1" "$work/deltas-$2"; }

# --- The centre ------------------------------------------------------------------------------------------------------
archive=$work/archive
"$project/scripts/archive.sh" "$archive"
keyrings=()
while read -r keyring; do keyrings+=(--keyring "$keyring"); done <"$archive/keyrings"
# shellcheck source=/dev/null
variant=$(. "$root/etc/os-release" && echo "$ID-$VERSION_ID-$(chroot "$root" dpkg --print-architecture)")
new_centre
step "collect" "$build" collect apt --variant "$variant" --sources "$archive/updates.list" "${keyrings[@]}" \
    --inventory "$root/var/lib/dpkg/status" --output "$work/collected" --cache "$cache/bench-delta"
# What the root was made of is kept beside it, but for what its bootstrap has thrown away.
bases_of_the_root
bundle_more=(--bases "${BASES:-$cache/debs}" --inventory "$root/var/lib/dpkg/status" --explain)
publish_and_serve
cat "$work/bundle.out" >&2
index=$(find "$repo/targets" -name '*.index.json')

# --- Whole, then as deltas -------------------------------------------------------------------------------------------
# Of an empty list grep would take every line for one of it.
echo '//' >"$work/staying"
fresh_node bench-delta-whole '[fetch]\ndeltas = false\n'
patch whole
whole_wire=$received
fresh_node bench-delta-deltas
patch deltas
delta_wire=$received
same_as_whole deltas
made=$(of_deltas .packages deltas)
[ "$made" -gt 0 ] || fail "no package was made of a delta"

# --- Nodes and bundles that are not as they should be ----------------------------------------------------------------
# For each package that a delta starts from: a file of it that nothing depends on to run.
harmless_files() { harmless_files_of '.members[].sources[] | select(.kind == "delta") | "\(.base.name):\(.base.arch)"'; }
# ... and those of them whose package is not replaced.
staying_files() {
    # shellcheck disable=SC2016 # for jq
    harmless_files_of '.members[] | select(.package) | .package.name as $name | .sources[]
        | select(.kind == "delta" and .base.name != $name) | "\(.base.name):\(.base.arch)"'
}
# usage: harmless_files_of FILTER
harmless_files_of() {
    jq -r "$1" "$index" | sort -u | while read -r base; do
        in_node dpkg-query -L "$base" | grep "^/usr/share/doc/.*/copyright$\|^/usr/share/\|^/usr/lib/" | while read -r path; do
            if [ -f "$node$path" ] && [ ! -L "$node$path" ]; then printf '%s\n' "$path"; fi
        done | awk '/copyright$/ && !found { print; found = 1 } first == "" { first = $0 } END { if (!found) print first }'
    done
}
if [ "${FAULTS:-1}" != 0 ]; then
    fresh_node bench-delta-edited
    staying_files | sed 's|^/|  |' >>"$work/staying"
    harmless_files | while read -r path; do echo >>"$node$path"; done
    patch edited
    same_as_whole edited
    fresh_node bench-delta-missing
    harmless_files | while read -r path; do rm "$node$path"; done
    patch missing
    same_as_whole missing
    for name in edited missing; do
        [ "$(of_deltas .packages "$name")" -eq 0 ] || fail "a delta was made of a base that is $name"
    done
    fresh_node bench-delta-flipped
    bundle_file=$(find "$repo/targets" -name '*.bundle.tar.gz')
    jq -r '.members[].sources[] | select(.kind == "delta") | .offset + .length / 2 | floor' "$index" | while read -r at; do
        byte=$(od -An -tu1 -j "$at" -N1 "$bundle_file")
        printf '%b' "\\x$(printf '%x' $((byte ^ 1)))" | dd of="$bundle_file" bs=1 seek="$at" conv=notrunc status=none
    done
    patch flipped
    same_as_whole flipped
    [ "$(of_deltas .packages flipped)" -eq 0 ] || fail "a package was made of a damaged patch"
fi

# --- The table -------------------------------------------------------------------------------------------------------
# Sum of the whole sizes, and of what a node fetches that has the base, of a group of packages. What the node did not have
# in any version (what a new kernel recommends, say) is a group of its own.
# shellcheck disable=SC2016 # for dpkg-query
installed=$(chroot "$root" dpkg-query -W -f '${Package}\n' | jq -Rn '[inputs]')
sizes() {
    # shellcheck disable=SC2016 # for jq
    jq -r --arg group "$1" --argjson installed "$installed" '
        def group: if test("^linux-image-") then "kernel" elif test("^chromium") then "browser"
            elif IN($installed[]) then "ordinary" else "new" end;
        [.members[] | select(.package) | select((.package.name | group) == $group)
            | [.size, ([.sources[] | select(.kind == "delta") | .size] + [.size] | min)]] | transpose | map(add // 0) | @tsv' "$index"
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.1f %%", 100 * a / b; else printf "-" }'; }
show_steps >&2
{
    table "$variant, $kind"
    row "packages in the bundle" "$(jq '[.members[] | select(.package)] | length' "$index")"
    row "... with a delta" "$(jq '[.members[] | select(any(.sources[]; .kind == "delta"))] | length' "$index")"
    for group in "ordinary:ordinary packages" "kernel:kernel" "browser:browser" "new:packages that it did not have"; do
        name=${group#*:}
        IFS=$'\t' read -r whole delta <<<"$(sizes "${group%%:*}")"
        row "$name, whole" "$(human "${whole:-0}")"
        row "$name, with deltas" "$(human "${delta:-0}") ($(ratio "${delta:-0}" "${whole:-0}"))"
    done
    row "bundle file without its deltas" "$(human "$(jq '.bundle.length - ([.members[].sources[] | select(.kind == "delta") | .length] | add // 0)' "$index")")"
    row "on the wire, trimmed to what the node needs" "$(human "$whole_wire")"
    row "on the wire with deltas" "$(human "$delta_wire") ($(ratio "$delta_wire" "$whole_wire"))"
    row "packages made of deltas on the node" "$made"
    row "packages that came whole although there is one" "$(of_deltas .whole deltas)"
    if [ "${FAULTS:-1}" != 0 ]; then row "nodes edited, missing, flipped" "the same files"; fi
} >&2
jq -r '.notUsed[]? | "whole: \(.package): \(.why)"' "$work/deltas-deltas" >&2
say "done: every node has the same packages and the same files"
