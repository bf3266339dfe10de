#!/usr/bin/env bash
# The whole of Prestage with a node of rpm and dnf: from a vendor's signed repository over HTTP to a patched node whose
# package manager had no network. Needs root and Debian 12 or Ubuntu. Leaves nothing behind but the cache.
#
# What is real: rpm, dnf 4, librpm and createrepo_c as Debian ships them, the repository over HTTP, its signatures, and the
# content of the packages, which is that of the distribution's own packages, before and after their security updates. What is
# not: they were made RPMs here (scripts/rpm-from-debs.sh), as no archive of Enterprise Linux can be reached.
# usage: demo-rpm.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the demo"

need_programs demo-rpm prestage prestage-build prestage-lab
begin demo-rpm
installed() { in_node rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE} %{ARCH}\n' | sort; }
say "the log of everything is $log until the demo ends"

# --- The vendor: packages, a key, a repository over HTTP -------------------------------------------------------------
packages=$("$project/scripts/rpm-from-debs.sh" 2>>"$log")
root=$("$project/scripts/rpm-root.sh" 2>>"$log")
started=$SECONDS
mkdir -p "$work/gpg" "$work/vendor/Packages" "$node" "$work/upper" "$work/overlay"
chmod 700 "$work/gpg"
export GNUPGHOME=$work/gpg
gpg --batch --quiet --passphrase '' --quick-gen-key 'Demo Vendor' rsa2048 sign never 2>>"$log"
gpg --batch --armor --export >"$work/vendor.asc"
cp "$packages"/new/*.rpm "$work/vendor/Packages/"
find "$work/vendor/Packages" -name '*.rpm' -print0 | xargs -0 rpmsign --define '__gpg /usr/bin/gpg' \
    --define '_gpg_name Demo Vendor' --define "_gpg_path $work/gpg" --addsign >>"$log" 2>&1
createrepo_c --quiet --no-database "$work/vendor" >>"$log" 2>&1
# A real web server that knows nothing of us.
listen vendor python3 -u -m http.server --bind 127.0.0.1 --directory "$work/vendor" 0
printf '[vendor]\nname=Demo Vendor\nbaseurl=%s/\nenabled=1\n' "${served_url%/}" >"$work/vendor.repo"

# --- A node without the updates --------------------------------------------------------------------------------------
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/overlay" "$node"
mounts+=("$node")
mkdir -p "$node/tmp/old"
cp "$packages"/old/*.rpm "$work/vendor.asc" "$node/tmp/old/"
# The files of these packages are already there, with this content: the node was made of them.
in_node sh -c 'rpm --import /tmp/old/vendor.asc && rpm -i --nosignature --justdb --noscripts /tmp/old/*.rpm' 2>>"$log"
rm -rf "$node/tmp/old"
# Seen from inside: a package of the vendor writes down the network that its script runs in.
packages_before=$(installed | tee "$work/before" | wc -l)

# --- The centre ------------------------------------------------------------------------------------------------------
variant=rpmlab-9-x86_64
new_centre
step "collect" "$build" collect dnf --variant "$variant" --sources "$work/vendor.repo" --key "$work/vendor.asc" \
    --inventory "$node/var/lib/rpm" --output "$work/collected"
publish_and_serve
# The vendor is gone: nothing of what follows can come from there.
kill "${pids[0]}"

# --- The node --------------------------------------------------------------------------------------------------------
configure_node demo-rpm-1
prestage=("$bin/prestage" --root "$node")
step "fetch" "${prestage[@]}" fetch --now
requests=$(wire requests) on_the_wire=$(wire bytes)
step "install" "${prestage[@]}" install --now
seen=$(told '.status.install.networkSeen | join(", ")')
step "report" "${prestage[@]}" report
step "status" "${prestage[@]}" status
cat "$work/status.out" >&2

# --- Proof -----------------------------------------------------------------------------------------------------------
[ "$seen" = "lo down" ] || fail "the package manager saw $seen"
seen_inside=$node/var/log/network-seen
[ -s "$seen_inside" ] || fail "no script of a package has looked at the network: the package manager did not run"
[ "$(sed 's/:.*//; s/ //g' "$seen_inside")" = lo ] || fail "a package's script saw more than lo: $(cat "$seen_inside")"
in_node dnf -q --disablerepo='*' check >>"$log" 2>&1 || fail "dnf check finds something wrong"
installed >"$work/after"
index=$(find "$repo/targets" -name '*.index.json')
jq -r '.members[].package | select(.) | "\(.name) \(.version)-\(.release) \(.arch)"' "$index" | sort >"$work/in-bundle"
[ -z "$(comm -23 "$work/in-bundle" "$work/after")" ] || fail "not installed: $(comm -23 "$work/in-bundle" "$work/after")"
updated=$(wc -l <"$work/in-bundle")
[ "$(comm -13 "$work/before" "$work/after" | wc -l)" -eq "$updated" ] || fail "more changed on the node than the bundle has"
# rpm itself compares every file of the updated packages with what the vendor signed: size, digest, mode, owner.
mapfile -t names < <(cut -d' ' -f1 "$work/in-bundle")
wrong=$(in_node rpm -V --nodeps --nomtime "${names[@]}" || true)
[ -z "$wrong" ] || fail "rpm -V: $wrong"
files=$(in_node rpm -ql "${names[@]}" | sort -u | wc -l)
before=$(sha256sum <"$node/var/lib/rpm/rpmdb.sqlite")
step "run-again" "${prestage[@]}" run
again=$(($(wire requests) - requests))
[ "$before" = "$(sha256sum <"$node/var/lib/rpm/rpmdb.sqlite")" ] || fail "a second run changed rpm's database"
[ "$again" -le 2 ] || fail "a second run made $again requests; at most 2 were expected"

{
    show_steps
    table "$variant"
    row "packages on the node" "$packages_before"
    row "packages updated, each proved with rpm -q" "$updated"
    row "their files, each proved with rpm -V" "$files"
    row "bundle" "$(human "$(stat -c %s "$repo"/targets/bundles/*/*/*.bundle.tar.gz)")"
    row "fetched, as counted on the wire" "$on_the_wire B"
    row "requests for it" "$requests"
    row "network seen by the package manager" "$seen"
    row "requests of a second run" "$again"
    row "the whole demo, without packages and root" "$((SECONDS - started)) s"
} >&2
say "done: everything that had to hold did"
