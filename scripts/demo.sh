#!/usr/bin/env bash
# The whole of Prestage on this machine, with real packages: from the distribution's archive to a patched node whose
# package manager had no network. Needs root and Debian 12 or 13, or Ubuntu. Leaves nothing behind but the cache.
# shellcheck disable=SC2016  # dpkg-query and awk have their own $
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the demo"

bin=${PRESTAGE_BIN:-$project/target/release}
for program in prestage prestage-build prestage-lab; do
    [ -x "$bin/$program" ] || die "$bin/$program is not there: run make demo, which builds it"
done

work=$(mktemp -d "${TMPDIR:-/var/tmp}/prestage-demo.XXXXXX")
log=$work/log
node=$work/node
repo=$work/repository
pids=()

finish() {
    local code=$?
    set +e
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    mountpoint -q "$node" && umount "$node"
    if [ "$code" -ne 0 ]; then
        printf '\nThe demo failed (exit %s). The end of its log:\n' "$code" >&2
        tail -n 60 "$log" >&2
    fi
    rm -rf --one-file-system "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    printf 'FAILED: %s\n' "$*" >>"$log"
    exit 1
}

# What was run, how long it took and what it needed: for the table at the end.
# usage: step NAME COMMAND...; the command's output goes to $work/NAME.out and the log.
step() {
    local name=$1 code=0
    shift
    say "$name: ${*//$work\//}"
    printf '\n$ %s\n' "$*" >>"$log"
    printf '%s\t%s\n' "$name" "${*//$work\//}" >>"$work/commands"
    "$bin/prestage-lab" measure "$work/$name.measure" "$@" >"$work/$name.out" 2>>"$log" </dev/null || code=$?
    cat "$work/$name.out" >>"$log"
    [ "$code" -eq 0 ] || fail "$name ended with exit code $code"
}

# Starts a server that says "listening on URL" and waits for that line. Prints the URL.
listen() {
    local name=$1
    shift
    : >"$work/$name.log"
    "$@" >>"$work/$name.log" 2>&1 </dev/null &
    pids+=($!)
    local deadline=$((SECONDS + 20)) url=
    while [ -z "$url" ]; do
        url=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$work/$name.log" | head -n 1)
        [ "$SECONDS" -lt "$deadline" ] || { cat "$work/$name.log" >>"$log"; fail "$name did not say where it listens"; }
        kill -0 "${pids[-1]}" 2>/dev/null || { cat "$work/$name.log" >>"$log"; fail "$name ended at once"; }
    done
    served_url=$url
}

# What went over the wire so far, once every connection has ended: requests, and bytes to the node.
wire() {
    local deadline=$((SECONDS + 20))
    until [ "$(grep -c '^opened' "$work/wire.log")" = "$(grep -c '^closed' "$work/wire.log")" ]; do
        [ "$SECONDS" -lt "$deadline" ] || fail "a connection to the mirror stays open"
    done
    case $1 in
    requests) grep -c -E '^(GET|HEAD) ' "$work/wire.log" || true ;;
    bytes) awk -F'[= ]' '/^closed/ { sum += $3 } END { print sum + 0 }' "$work/wire.log" ;;
    esac
}
in_node() { chroot "$node" "$@"; }
installed() { in_node dpkg-query -W -f '${binary:Package} ${Version} ${Status}\n' | sed -n 's/ install ok installed$//p' | sort; }
human() { numfmt --to=iec-i --suffix=B --format=%.1f "$1"; }

: >"$log"
say "the log of everything is $log until the demo ends"

# --- A real node, without its updates --------------------------------------------------------------------------------
root=$("$project/scripts/node-root.sh" kiosk 2>>"$log")
started=$SECONDS # what came before is the archive's and the cache's time
mkdir -p "$node" "$work/upper" "$work/overlay"
if ! mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/overlay" "$node" 2>>"$log"; then
    say "no overlay here: copying the node's root"
    cp -a "$root/." "$node/"
fi
packages_before=$(installed | tee "$work/before" | wc -l)
[ "$packages_before" -ge 150 ] || fail "the node has only $packages_before packages"
# Seen from inside: dpkg's own hook writes down the network that it runs in.
mkdir -p "$node/etc/apt/apt.conf.d"
cat >"$node/etc/apt/apt.conf.d/99-look-at-the-network" <<'CONF'
DPkg::Pre-Invoke { "{ ip -o link; readlink /proc/self/ns/net; } >/var/log/network-seen"; };
CONF

# --- The centre: keys, bundle, repository ----------------------------------------------------------------------------
build=$bin/prestage-build
archive=$work/archive
"$project/scripts/archive.sh" "$archive"
keyrings=()
while read -r keyring; do keyrings+=(--keyring "$keyring"); done <"$archive/keyrings"
# shellcheck source=/dev/null
variant=$(. "$node/etc/os-release" && echo "$ID-$VERSION_ID-$(in_node dpkg --print-architecture)")
version=$(date -u +%Y%m%d)-1
cycle=$(date -u +%Y-%m)

for role in root targets bundles snapshot timestamp; do
    "$build" key new "$work/$role.key" >>"$log" 2>&1 || fail "prestage-build key new $role.key"
done
step "root" "$build" root init "$repo" --root-key "$work/root.key" --targets-key "$work/targets.key" \
    --bundles-key "$work/bundles.key" --snapshot-key "$work/snapshot.key" --timestamp-key "$work/timestamp.key"
step "collect" "$build" collect apt --variant "$variant" --sources "$archive/updates.list" "${keyrings[@]}" \
    --inventory "$node/var/lib/dpkg/status" --output "$work/collected"
step "bundle" "$build" bundle "$work/collected" --version "$version" --cycle "$cycle" --output "$work/bundle"
step "sign" "$build" sign "$repo" "$work/bundle" --key "$work/bundles.key"
step "publish" "$build" publish "$repo" "$work/bundle" --snapshot-key "$work/snapshot.key" \
    --timestamp-key "$work/timestamp.key"
step "check" "$build" check "$repo" --full
listen server "$build" serve "$repo" --listen 127.0.0.1:0
# Between node and mirror: counts what goes over the wire, protocol included, whatever either of them says.
listen wire "$bin/prestage-lab" tap "${served_url#http://}"
mirror=$served_url
listen receiver "$bin/prestage-lab" receive "$work/received"
receiver=$served_url

# --- The node --------------------------------------------------------------------------------------------------------
mkdir -p "$node/etc/prestage"
cp "$repo/metadata/1.root.json" "$node/etc/prestage/root.json"
cat >"$node/etc/prestage/agent.toml" <<CONF
[node]
id = "demo-till-1"
labels = { role = "till" }
[repository]
mirrors = ["$mirror"]
[report]
url = "$receiver"
CONF
prestage=("$bin/prestage" --root "$node")
step "fetch" "${prestage[@]}" fetch --now
told() { jq -r "$1" "$node/var/lib/prestage/status.json"; }
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
    printf '\nThe commands, in order:\n\n'
    cut -f2 "$work/commands" | sed "s|$bin/||; s|^|    |"
    printf '\n%-10s %9s %9s %12s\n' step seconds "CPU s" "peak memory"
    while IFS=$'\t' read -r name _; do
        read -r seconds cpu _ own_kib <"$work/$name.measure"
        printf '%-10s %9.2f %9.2f %12s\n' "$name" "$seconds" "$cpu" "$(human $((own_kib * 1024)))"
    done <"$work/commands"
    printf '\n| %-46s | %22s |\n| %s | %s: |\n' "" "$variant" "----------------------------------------------" "---------------------"
    row() { printf '| %-46s | %22s |\n' "$1" "$2"; }
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
