#!/usr/bin/env bash
# Makes DEB and RPM packages of the programs in packaging/programs, in target/packages. The programs are made before, by
# scripts/dist.sh, and are the same file in both kinds; so are all others, for the RPMs take them out of the DEBs.
#
# With debhelper and rpmbuild, which every distribution has: debhelper writes the maintainer scripts that Debian's policy
# wants, and is read and mended by people who know it. docs/development/packages.md weighs it against cargo-deb & co.
#
#   scripts/packages.sh         the packages; prints their paths
#   scripts/packages.sh check   and what lintian and rpmlint say of them; nothing is good
#   scripts/packages.sh agent   only the agent's DEB, such as for the virtual machine laboratory
#
# REVISION=2 makes a rebuild of the same source, which package managers take for newer; PACKAGES=DIR says where to,
# MANUAL=PROGRAM which prestage-manual writes the manual, where it is built already.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

target=${CARGO_TARGET_DIR:-$project/target}
dist=${PRESTAGE_DIST:-$target/dist}
folder=${PACKAGES:-$target/packages}
revision=${REVISION:-1}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$project/Cargo.toml" | head -n 1)
mapfile -t programs < <(sed '/^#/d' "$project/packaging/programs")
if [ "${1:-}" = agent ]; then
    programs=(prestage)
    export DH_OPTIONS=-pprestage
fi

for program in "${programs[@]}"; do
    [ -x "$dist/$program" ] || die "$dist/$program is not there: run make packages, which builds it"
done
install_missing "to make packages" debhelper rpm cpio
manual=$folder/manual
# One version, said once in Cargo.toml, and a change log that has come to it.
[ "$(dpkg-parsechangelog -l "$project/packaging/debian/changelog" -S Version)" = "$version" ] ||
    die "packaging/debian/changelog does not begin with version $version, which Cargo.toml says"
grep -q "^\* .* - $version-1$" "$project/packaging/rpm/prestage.spec" ||
    die "packaging/rpm/prestage.spec has no change log for version $version, which Cargo.toml says"
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l "$project/packaging/debian/changelog" -S Timestamp)
export SOURCE_DATE_EPOCH

rm -rf "$folder"
mkdir -p "$folder"
if [ -n "${MANUAL:-}" ]; then
    "$MANUAL" "$manual"
else
    cargo run --quiet --manifest-path "$project/Cargo.toml" --package prestage-manual -- "$manual"
fi
work=$(mktemp -d "${TMPDIR:-/var/tmp}/prestage-packages.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Names, versions, licences and notices of everything that is linked into a program.
third_party() {
    local program=$1 name crate_version licence source
    printf '%s contains these libraries. After the list come their notices.\n\n' "$program"
    cargo tree --manifest-path "$project/Cargo.toml" --locked --package "$program" --edges normal,no-proc-macro \
        --target "$(uname -m)-unknown-linux-musl" --prefix none --format '{p} {l}' |
        grep -v -F "$project" | sed 's/ (\*)$//' | sort -u >"$work/crates"
    cat "$work/crates"
    while read -r name crate_version licence; do
        source=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "$name-${crate_version#v}" | head -n 1)
        [ -n "$source" ] || die "the source of $name $crate_version ($licence) is not there, and so is not its notice"
        find "$source" -maxdepth 1 -type f \( -iname '*licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) -print0 |
            sort -z | while IFS= read -r -d '' notice; do
            printf '\n===== %s %s: %s\n\n' "$name" "$crate_version" "$(basename "$notice")"
            cat "$notice"
        done
    done <"$work/crates"
}

# --- DEB -------------------------------------------------------------------------------------------------------------
tree=$work/prestage-$version
mkdir -p "$tree/bin"
cp -a "$project"/{packaging,systemd} "$tree/"
install -D -m 644 -t "$tree/fleet" "$project/fleet/openapi.yaml"
cp -a "$project/packaging/debian" "$tree/debian"
deb_version=$version
if [ "$revision" != 1 ]; then
    deb_version=$version+$revision
    {
        printf 'prestage (%s) unstable; urgency=medium\n\n  * Rebuilt.\n\n' "$deb_version"
        sed -n '/^ -- /{p;q}' "$project/packaging/debian/changelog"
        echo
        cat "$project/packaging/debian/changelog"
    } >"$tree/debian/changelog"
fi
for program in "${programs[@]}"; do
    cp "$dist/$program" "$tree/bin/"
    third_party "$program" >"$work/notices"
    gzip -9n <"$work/notices" >"$tree/bin/$program-crates.gz"
    echo "bin/$program-crates.gz" >"$tree/debian/$program.docs"
done
cp -a "$manual/man" "$tree/"
# A page is the program's with whose name it begins, of several the longest; what begins with none is the agent's.
for page in "$tree"/man/*; do
    owner=prestage
    for program in "${programs[@]}"; do
        case ${page##*/} in "$program".* | "$program"-*) [ "${#program}" -lt "${#owner}" ] || owner=$program ;; esac
    done
    echo "man/${page##*/}" >>"$tree/debian/$owner.manpages"
done
for program in "${programs[@]}"; do
    [ -e "$manual/completions/$program.bash" ] || continue
    install -D -m 644 "$manual/completions/$program.bash" "$tree/completions/$program/$program"
    install -D -m 644 -t "$tree/completions/$program" "$manual/completions/_$program" "$manual/completions/$program.fish"
    {
        echo "completions/$program/$program usr/share/bash-completion/completions"
        echo "completions/$program/_$program usr/share/zsh/vendor-completions"
        echo "completions/$program/$program.fish usr/share/fish/vendor_completions.d"
    } >>"$tree/debian/$program.install"
done
cp "$project"/systemd/prestage.{sysusers,tmpfiles} "$project/systemd/prestage-fleet.sysusers" "$tree/debian/"
(cd "$tree" && debian/rules binary) >"$folder/deb.log" 2>&1 || {
    tail -n 40 "$folder/deb.log" >&2
    die "the DEB packages could not be made"
}
mv "$work"/*.deb "$folder/"
if [ "${1:-}" = agent ]; then
    ls "$folder"/*.deb
    exit
fi

# --- RPM -------------------------------------------------------------------------------------------------------------
build=$work/rpm
mkdir -p "$build/SOURCES" "$work/source/rpmroot"
for program in "${programs[@]}"; do
    root=$work/rpmroot-$program
    dpkg-deb -x "$folder/${program}_${deb_version}_"*.deb "$root"
    # Where RPM distributions have them.
    if [ -d "$root/lib" ]; then
        cp -a "$root/lib/." "$root/usr/lib/"
        rm -r "${root:?}/lib"
    fi
    if [ -d "$root/usr/share/zsh/vendor-completions" ]; then
        mv "$root/usr/share/zsh/vendor-completions" "$root/usr/share/zsh/site-functions"
    fi
    rm -rf "$root/usr/share/lintian" "$root/usr/share/doc/$program"/{changelog.gz,copyright}
    install -D -m 644 -t "$root/usr/share/licenses/$program" "$project"/LICENSE-{APACHE,MIT}
    # A folder is the package's own if it has its name; the others belong to the system.
    (cd "$root" && find . -mindepth 1 \( -type d -path '*prestage*' -printf '%%dir "/%P"\n' \) -o \
        \( ! -type d ! -path './etc/*' ! -path './usr/share/doc/*' -printf '"/%P"\n' \) -o \
        \( ! -type d -path './usr/share/doc/*' -printf '%%doc "/%P"\n' \)) |
        grep -v '"/etc/' | sed 's/^\("\/usr\/share\/man\/.*\)"$/\1"/' | sort >"$work/source/files.$program"
    cp -a "$root/." "$work/source/rpmroot/"
done
tar -C "$work/source" --sort=name --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" -cf "$build/SOURCES/prestage-$version.tar" .
rpmbuild -bb --target "$(uname -m)" --define "_topdir $build" --define "_rpmdir $folder" \
    --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' --define '_binary_payload w6.xzdio' \
    --define '_source_filedigest_algorithm 8' --define '_binary_filedigest_algorithm 8' \
    --define "prestage_version $version" --define "prestage_revision $revision" "$project/packaging/rpm/prestage.spec" >"$folder/rpm.log" 2>&1 || {
    tail -n 40 "$folder/rpm.log" >&2
    die "the RPM packages could not be made"
}

if [ "${1:-}" = check ]; then
    install_missing "to check packages" lintian rpmlint
    say "lintian"
    # What it takes for misspelt words are letters in machine code, others with each build.
    lintian --fail-on error,warning,info --display-info --tag-display-limit 0 --suppress-tags spelling-error-in-binary \
        "$folder"/*.deb >&2 ||
        die "lintian finds something in the DEB packages"
    say "rpmlint"
    rpmlint --config "$project/packaging/rpm/rpmlint.toml" "$folder"/*.rpm >"$folder/rpmlint.log" 2>&1 || {
        cat "$folder/rpmlint.log" >&2
        die "rpmlint finds something in the RPM packages"
    }
    tail -n 1 "$folder/rpmlint.log" >&2
    grep -q '0 errors, 0 warnings' "$folder/rpmlint.log" || die "rpmlint finds something in the RPM packages: $folder/rpmlint.log"
fi
ls "$folder"/*.deb "$folder"/*.rpm
