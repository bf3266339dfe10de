#!/usr/bin/env bash
# The whole of Prestage on this machine, with real packages: from the distribution's archive to a patched node whose
# package manager had no network. Needs root and Debian 12 or 13, or Ubuntu. Leaves nothing behind but the cache.
# shellcheck disable=SC2016  # dpkg-query and awk have their own $
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the demo"

need_programs demo prestage prestage-build prestage-lab
begin demo
installed() { in_node dpkg-query -W -f '${binary:Package} ${Version} ${Status}\n' | sed -n 's/ install ok installed$//p' | sort; }
say "the log of everything is $log until the demo ends"

# --- A real node, without its updates --------------------------------------------------------------------------------
root=$("$project/scripts/node-root.sh" kiosk 2>>"$log")
started=$SECONDS # what came before is the archive's and the cache's time
mkdir -p "$node" "$work/upper" "$work/overlay"
if ! mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/overlay" "$node" 2>>"$log"; then
    say "no overlay here: copying the node's root"
    cp -a "$root/." "$node/"
else
    mounts+=("$node")
fi
packages_before=$(installed | tee "$work/before" | wc -l)
[ "$packages_before" -ge 150 ] || fail "the node has only $packages_before packages"
# Seen from inside: dpkg's own hook writes down the network that it runs in.
mkdir -p "$node/etc/apt/apt.conf.d"
cat >"$node/etc/apt/apt.conf.d/99-look-at-the-network" <<'CONF'
DPkg::Pre-Invoke { "{ ip -o link; readlink /proc/self/ns/net; } >/var/log/network-seen"; };
CONF

# --- The centre: keys, bundle, repository ----------------------------------------------------------------------------
archive=$work/archive
"$project/scripts/archive.sh" "$archive"
keyrings=()
while read -r keyring; do keyrings+=(--keyring "$keyring"); done <"$archive/keyrings"
# shellcheck source=/dev/null
variant=$(. "$node/etc/os-release" && echo "$ID-$VERSION_ID-$(in_node dpkg --print-architecture)")
new_centre
step "collect" "$build" collect apt --variant "$variant" --sources "$archive/updates.list" "${keyrings[@]}" \
    --inventory "$node/var/lib/dpkg/status" --output "$work/collected"
publish_and_serve

# --- The node --------------------------------------------------------------------------------------------------------
configure_node demo-till-1
prestage=("$bin/prestage" --root "$node")
step "fetch" "${prestage[@]}" fetch --now
requests=$(wire requests) on_the_wire=$(wire bytes) fetched=$(told .status.fetch.bytesReceived)
step "install" "${prestage[@]}" install --now
step "report" "${prestage[@]}" report
step "status" "${prestage[@]}" status
cat "$work/status.out" >&2

# --- Proof -----------------------------------------------------------------------------------------------------------
seen=$node/var/log/network-seen
[ -s "$seen" ] || fail "the hook in the node's apt configuration wrote nothing: the package manager did not run"
grep -q '^[0-9]*: lo:.*state DOWN' "$seen" || fail "the package manager saw no lo that is down: $(cat "$seen")"
[ "$(grep -c '^[0-9]*:' "$seen")" -eq 1 ] || fail "the package manager saw more than lo: $(cat "$seen")"
[ "$(tail -n 1 "$seen")" != "$(readlink /proc/self/ns/net)" ] || fail "the package manager ran in the machine's own network namespace"

[ -z "$(in_node dpkg --audit)" ] || fail "dpkg --audit: $(in_node dpkg --audit)"
installed >"$work/after"
index=$(find "$repo/targets" -name '*.index.json')
jq -r '.members[] | select(.package) | .package as $p | [
    $p.name, $p.arch,
    (if $p.epoch > 0 then "\($p.epoch):" else "" end) + $p.version + (if $p.release == "" then "" else "-\($p.release)" end),
    .size] | @tsv' "$index" | sort >"$work/in-bundle"
# name arch version of what is installed and was not before
in_node dpkg-query -W -f '${Package}\t${Architecture}\t${Version}\n' | sort >"$work/after.tsv"
updated=0 needed=0
while IFS=$'\t' read -r name arch version_in_bundle size; do
    have_version=$(awk -F'\t' -v n="$name" -v a="$arch" '$1 == n && $2 == a { print $3 }' "$work/after.tsv")
    [ "$have_version" = "$version_in_bundle" ] ||
        fail "$name:$arch is ${have_version:-not installed} on the node; the bundle has $version_in_bundle"
    updated=$((updated + 1)) needed=$((needed + size))
done <"$work/in-bundle"
changed=$(comm -13 "$work/before" "$work/after" | wc -l)
[ "$changed" -eq "$updated" ] || fail "$changed packages changed on the node, and the bundle has $updated"
[ "$updated" -ge 30 ] || fail "only $updated packages were updated; at least 30 were expected"
reports=$(find "$work/received" -name '*.json' | wc -l)
[ "$reports" -ge 2 ] || fail "the receiver got $reports reports; a fetch and an install were to be reported"
jq -e -s 'any(.[]; .step == "install" and .outcome == "installed")' "$work"/received/*.json >/dev/null ||
    fail "no report says that the node is patched"

# --- Once more: nothing to do ----------------------------------------------------------------------------------------
dpkg_before=$(sha256sum <"$node/var/lib/dpkg/status")
step "run-again" "${prestage[@]}" run
again=$(($(wire requests) - requests))
[ "$dpkg_before" = "$(sha256sum <"$node/var/lib/dpkg/status")" ] || fail "a second run changed dpkg's status"
[ "$again" -le 2 ] || fail "a second run made $again requests; at most 2 were expected"

# --- The table -------------------------------------------------------------------------------------------------------
bundle=$(find "$repo/targets" -name '*.bundle.tar.gz')
bundle_size=$(stat -c %s "$bundle")
{
    show_steps
    table "$variant"
    row "packages on the node" "$packages_before"
    row "packages updated, each proved with dpkg-query" "$updated"
    row "bundle" "$(human "$bundle_size")"
    row "packages that the node needed" "$(human "$needed")"
    row "fetched, as the agent counts" "$fetched B"
    row "fetched, as counted on the wire" "$on_the_wire B"
    row "fetched for what was needed" "$(awk -v a="$on_the_wire" -v b="$needed" 'BEGIN { printf "%.2f %%", 100 * a / b }')"
    row "requests for it" "$requests"
    row "network seen by the package manager" "$(sed -n 's/^[0-9]*: \([^:]*\):.*state \([A-Z]*\).*/\1 \2/p' "$seen" | paste -sd,)"
    row "reports accepted" "$reports"
    row "requests of a second run" "$again"
    row "the whole demo, without the node root" "$((SECONDS - started)) s"
} >&2
say "done: everything that had to hold did"
