#!/usr/bin/env bash
# Making a bundle of 600 RPM packages (330 MB) from a vendor's repository over HTTP, beside the ordinary tools for the same,
# in one run: reposync + createrepo_c + tar -czf + sha256sum + gpg against collect + bundle + sign. Both begin with nothing
# cached, both end with something signed that a node can be given; ours has checked each package's signature as well, and
# resolved for an inventory. The packages are made here, of random bytes, with the sizes of a real distribution's (a few
# large, many small); how long both take does not depend on what is in them. Prints a table in markdown. Needs root.
# usage: bench-rpm.sh [ROUNDS]
# shellcheck disable=SC2129  # one log for many commands
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "the bench"

rounds=${1:-3}
need_programs bench-rpm prestage-build prestage-lab
begin bench-rpm
count=600
# Another number where the packages are made in another way.
keep=$cache/bench-rpm-$count-1
gpg_homes+=("$keep.new/gpg" "$keep/gpg")

if [ ! -d "$keep" ]; then
    say "making $count packages; this is done once"
    rm -rf "$keep.new"
    mkdir -p "$keep.new/gpg" "$keep.new/vendor/Packages" "$work/tree"
    chmod 700 "$keep.new/gpg"
    GNUPGHOME=$keep.new/gpg gpg --batch --quiet --passphrase '' --quick-gen-key 'Bench Vendor' rsa2048 sign never
    GNUPGHOME=$keep.new/gpg gpg --batch --armor --export >"$keep.new/vendor.asc"
    {
        printf 'Name: bench\nVersion: 2\nRelease: 1\nSummary: bench\nLicense: none\nBuildArch: noarch\nAutoReqProv: no\n'
        printf '%%description\nBench.\n%%install\ncp -a %s/. %%{buildroot}/\n' "$work/tree"
        for n in $(seq "$count"); do
            # Seven in ten are of some 100 kB, one in ten of 3 MB.
            case $((n % 10)) in 0) size=3000 ;; 1 | 2) size=800 ;; *) size=$((20 + n % 160)) ;; esac
            mkdir -p "$work/tree/usr/share/bench-$n"
            head -c "${size}000" /dev/urandom >"$work/tree/usr/share/bench-$n/content"
            printf '%%package -n bench-%s\nSummary: bench\n%%description -n bench-%s\nBench.\n' "$n" "$n"
            printf '%%files -n bench-%s\n/usr/share/bench-%s/content\n' "$n" "$n"
            printf 'bench-%s-1-1.noarch\n' "$n" >>"$keep.new/list"
        done
    } >"$work/bench.spec"
    HOME=$work rpmbuild --quiet -bb --define "_topdir $work/build" --define "_rpmdir $keep.new/vendor/Packages" \
        --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' --define '__os_install_post %{nil}' \
        --define '_binary_payload w1.gzdio' "$work/bench.spec" >>"$log" 2>&1
    find "$keep.new/vendor/Packages" -name '*.rpm' -print0 | xargs -0 rpmsign --define '__gpg /usr/bin/gpg' \
        --define '_gpg_name Bench Vendor' --define "_gpg_path $keep.new/gpg" --addsign >>"$log" 2>&1
    createrepo_c --quiet --no-database "$keep.new/vendor" >>"$log" 2>&1
    GNUPGHOME=$keep.new/gpg gpgconf --kill all
    mv "$keep.new" "$keep"
    rm -rf "$work/tree" "$work/build"
fi
export GNUPGHOME=$keep/gpg
listen vendor python3 -u -m http.server --bind 127.0.0.1 --directory "$keep/vendor" 0
printf '[vendor]\nname=Bench\nbaseurl=%s/\nenabled=1\n' "${served_url%/}" >"$work/vendor.repo"
cat "$keep"/vendor/Packages/*.rpm >/dev/null

for role in root targets bundles snapshot timestamp; do "$build" key new "$work/$role.key" >>"$log" 2>&1; done
cat >"$work/ordinary" <<'SH'
set -e
url=$1 out=$2
mkdir -p "$out/root"
dnf -q -y --installroot="$out/root" --releasever=9 --setopt=reposdir=/nonexistent --setopt="cachedir=$out/cache" \
    --repofrompath=vendor,"$url" --repo=vendor reposync --newest-only --norepopath --download-path "$out/pool"
createrepo_c --quiet "$out/pool"
tar -czf "$out/bundle.tar.gz" -C "$out" pool
cd "$out"
sha256sum bundle.tar.gz >bundle.sha256
gpg --batch --quiet --yes --detach-sign bundle.tar.gz
SH
cat >"$work/ours" <<'SH'
set -e
build=$1 work=$2 out=$3 keep=$4
"$build" -q collect dnf --variant rpmlab-9-x86_64 --sources "$work/vendor.repo" --key "$keep/vendor.asc" --inventory "$keep/list" \
    --output "$out/collected"
"$build" -q bundle "$out/collected" --version "$(basename "$out")" --cycle bench --output "$out/bundle"
"$build" -q sign "$work/repository" "$out/bundle" --key "$work/bundles.key"
SH
measure() {
    "$bin/prestage-lab" measure "$work/measured" "$@" >>"$log" 2>&1 </dev/null
    read -r seconds cpu _ <"$work/measured"
}
say "$rounds rounds"
for _ in $(seq "$rounds"); do
    rm -rf "$work/ordinary.out" "$work/ours.out" "$work/repository" "$work/repository.pending"
    measure bash "$work/ordinary" "$served_url" "$work/ordinary.out"
    echo "$cpu $seconds" >>"$work/ordinary.times"
    "$build" root init "$work/repository" --root-key "$work/root.key" --targets-key "$work/targets.key" \
        --bundles-key "$work/bundles.key" --snapshot-key "$work/snapshot.key" --timestamp-key "$work/timestamp.key" >>"$log" 2>&1
    measure bash "$work/ours" "$build" "$work" "$work/ours.out" "$keep"
    echo "$cpu $seconds" >>"$work/ours.times"
done
packages=$(find "$work/ours.out/collected/pool" -name '*.rpm' | wc -l)
[ "$packages" -eq "$count" ] || die "ours has $packages packages, not $count"
column() { awk -v c="$2" '{ print $c }' "$work/$1.times" | median; }
{
    echo "$(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1); $count packages," \
        "$(du -sm "$keep/vendor/Packages" | cut -f1) MiB; median of $rounds rounds; load $(cut -d' ' -f1 /proc/loadavg)."
    echo
    echo "| making | CPU s | seconds |"
    echo "| --- | ---: | ---: |"
    echo "| reposync + createrepo_c + tar -czf + sha256sum + gpg | $(column ordinary 1) | $(column ordinary 2) |"
    echo "| prestage-build collect + bundle + sign | $(column ours 1) | $(column ours 2) |"
    awk -v a="$(column ours 1)" -v b="$(column ordinary 1)" -v c="$(column ours 2)" -v d="$(column ordinary 2)" \
        'BEGIN { printf "| ratio | %.2f | %.2f |\n", a / b, c / d }'
}
