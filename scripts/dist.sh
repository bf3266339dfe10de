#!/usr/bin/env bash
# Makes the programs as they are shipped: static, against musl, stripped, the same bytes from the same source. Prints
# their paths.
#
# With rustup's musl target, that target's standard library is taken. Without it (many build hosts reach no more than
# their distribution's archive) the distribution's own Rust builds the standard library from its source package.
#
#   scripts/dist.sh                        the agent, in target/dist
#   scripts/dist.sh prestage-build …       others; each is a build of its own, for the features of one build are shared
#   ARCH=arm64 scripts/dist.sh             for another processor (arm64, armhf), in target/dist/arm64
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

arch=${ARCH:-$(dpkg --print-architecture)}
# What Debian's name for the processor is called by Rust and by gcc.
case $arch in
amd64) target=x86_64-unknown-linux-musl triple=x86_64-linux-gnu ;;
arm64) target=aarch64-unknown-linux-musl triple=aarch64-linux-gnu ;;
armhf) target=armv7-unknown-linux-musleabihf triple=arm-linux-gnueabihf ;;
*) die "nobody has built it for $arch yet" ;;
esac
folder=${CARGO_TARGET_DIR:-$project/target}/dist
output=$folder
[ "$arch" = "$(dpkg --print-architecture)" ] || output=$folder/$arch
mkdir -p "$output"
if [ "$#" -gt 0 ]; then programs=("$@"); else programs=(prestage); fi

# The release of a program that calls itself "rustc 1.96.0 (…)" is at least 1.88.
recent() { [ "$(printf '%s\n' 1.88.0 "$("$1" --version | cut -d' ' -f2 | cut -d- -f1)" | sort -V | head -n 1)" = 1.88.0 ]; }

# The names under which this distribution has a Rust that is recent enough: bookworm has a second one for browsers.
distribution_rust() {
    local suffix version
    for suffix in '' -web; do
        version=$(LC_ALL=C apt-cache policy "rustc$suffix" | sed -n 's/^  Candidate: //p')
        if dpkg --compare-versions "${version:-0}" ge 1.88; then
            if [ -n "$suffix" ]; then echo "rustc-web cargo-web rust-web-src"; else echo "rustc cargo rust-src"; fi
            return
        fi
    done
    die "no Rust of at least 1.88 with its source in this distribution: rustup target add $target"
}

# The C library of another processor, beside this machine's own and not in it: unpacked from this distribution's packages
# for that processor. Sets $compiler, a gcc that takes it, $archive, and $native, a folder with the unwinder.
foreign_musl() {
    local sysroot=$cache/musl-$arch apt=() package
    install_missing "to build for $arch" "gcc-$triple" "libc6-dev-$arch-cross"
    if [ ! -e "$sysroot/ready" ]; then
        say "musl for $arch"
        rm -rf "$sysroot"
        mkdir -p "$sysroot"/apt/{lists/partial,archives/partial}
        : >"$sysroot/apt/status"
        apt=(apt-get -q -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o "APT::Sandbox::User=root"
            -o "Dir::State=$sysroot/apt" -o "Dir::State::lists=$sysroot/apt/lists" -o "Dir::State::status=$sysroot/apt/status"
            -o "Dir::Cache=$sysroot/apt")
        # One list that its mirror is just changing is no reason to stop: the packages may stand in another.
        "${apt[@]}" update >&2 || say "not every package list of $arch could be read: going on with those that could"
        (cd "$sysroot/apt" && "${apt[@]}" download musl-dev "$unwinder" >&2)
        for package in "$sysroot"/apt/*.deb; do dpkg-deb -x "$package" "$sysroot"; done
        rm -r "$sysroot/apt"
        # The compiler's part of musl-gcc, with the paths of this folder.
        find "$sysroot/usr" -name musl-gcc.specs -exec sed "s|/usr/|$sysroot/usr/|g" {} \; >"$sysroot/musl-gcc.specs"
        # A gcc for another processor asks for a linker of that processor; LLVM's links for all.
        mkdir -p "$sysroot/bin"
        ln -s "$(command -v ld.lld)" "$sysroot/bin/$triple-ld.lld"
        ln -s "$(command -v ld.lld)" "$sysroot/bin/ld.lld"
        printf '#!/bin/sh\nexec %s-gcc -B%s "$@" -specs %s\n' "$triple" "$sysroot/bin/" "$sysroot/musl-gcc.specs" >"$sysroot/musl-gcc"
        chmod 755 "$sysroot/musl-gcc"
        touch "$sysroot/ready"
    fi
    compiler=$sysroot/musl-gcc native=$sysroot/native archive=$triple-ar
    take_unwinder "$(find "$sysroot/usr" -name libunwind.a | head -n 1)"
}

# The unwinder alone in $native, so that nothing else of LLVM's is found by chance. The distribution made it for glibc, with
# formats checked as its messages are printed, by a function that musl does not have.
take_unwinder() {
    rm -rf "$native"
    mkdir -p "$native"
    cp "$1" "$native/"
    "$compiler" -O2 -c -o "$native/checked.o" -x c - <<'C'
#include <stdarg.h>
#include <stdio.h>

int __fprintf_chk(FILE *file, int how, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int written = vfprintf(file, format, values);
    va_end(values);
    return written;
}
C
    "$archive" rs "$native/libunwind.a" "$native/checked.o" 2>/dev/null
    rm "$native/checked.o"
}

# Paths of the build host are no part of the program.
flags=("--remap-path-prefix=$project=prestage" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo")
# What makes the agent small, and the build tool with it. The fleet server is to be fast, and outlives a panic.
small=() small_agent=()
# No back trace is ever printed: a panic ends the program. 180 KB.
small+=("-Cforce-unwind-tables=no")
# Machine code that is there more than once is made a function: -Oz as clang does it for other processors. Not for 32-bit
# ARM: there LLVM's second run makes functions of functions that call without having kept where to return to, and for ever.
case $target in
armv7-*) ;;
*) small+=("-Cllvm-args=-enable-machine-outliner=always" "-Cllvm-args=-machine-outliner-reruns=2") ;;
esac
# Functions that came out the same are one: LLVM's linker sees it, the usual one does not. 20 KB.
small+=("-Clink-arg=-fuse-ld=lld" "-Clink-arg=-Wl,--icf=all,--no-dynamic-linker")
# Of SHA-256 for processors without instructions for it, and of SHA-512, the rounds are a loop. 14 KB.
small+=('--cfg=sha2_backend_soft="compact"')
# The elliptic curves as ring takes them for 32-bit processors: with small tables, and in C. A handshake takes a fraction
# of a millisecond more. 190 KB. ring's Rust asks for what the large ones alone have, by a name of its own each; the same is
# computed by what the small ones have: with more care about time, or without instructions that not every processor has.
small_c=-DOPENSSL_SMALL
ring=ring_core_$(sed -n '/^name = "ring"$/{n;s/version = "\(.*\)"/\1/;y/./_/;p}' "$project/Cargo.lock")__
same() { small_agent+=("-Clink-arg=-Wl,--defsym=$ring$1=$ring$2"); }
case $target in
x86_64-*)
    same p256_point_mul_base_vartime p256_point_mul_base
    same x25519_scalar_mult_adx x25519_scalar_mult_generic_masked
    ;;
aarch64-*) same p256_point_mul_base_vartime p256_point_mul_base ;;
esac
# Symbols are kept beside the program, to see where its bytes are.
export CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_SERVER_STRIP=none
export CARGO_INCREMENTAL=0
arguments=(build --locked --target "$target")
compiler=musl-gcc archive=ar

if have rustup && rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    install_missing "to build against musl" musl-tools lld
    say "building for $target with rustup's standard library"
    if [ "$output" != "$folder" ]; then
        install_missing "to build for $arch" "gcc-$triple"
        compiler=$triple-gcc
    fi
    build() { RUSTFLAGS="${flags[*]} $*" cargo "${arguments[@]}" --profile "$profile" -p "$program" --bin "$program" >&2; }
else
    # shellcheck disable=SC2046 # three names
    install_missing "to build against musl" musl-tools lld $(distribution_rust)
    rustc=/usr/bin/rustc cargo=/usr/bin/cargo
    recent "$rustc" || die "$rustc is too old"
    # The unwinder of this distribution's LLVM: gcc's wants what musl does not have.
    unwinder=$(apt-cache --names-only search '^libunwind-[0-9]+-dev$' | cut -d' ' -f1 | sort -V | head -n 1)
    : "${unwinder:?no libunwind-NN-dev in this distribution}"
    if [ "$output" = "$folder" ]; then
        install_missing "to build against musl" "$unwinder"
        native=$folder/native
        take_unwinder "$(dpkg -L "$unwinder" | grep '/libunwind\.a$' | head -n 1)"
    else
        foreign_musl
    fi
    flags+=("-Clink-self-contained=no" "-Crelocation-model=static" "-Lnative=$native")
    flags+=("--remap-path-prefix=$("$rustc" --print sysroot)=rust" "--remap-path-prefix=/usr/src=rust")
    # A panic of the agent ends it on the spot, and the kernel's log says at which address: with the program's symbols that
    # is a line. Its words would be a constant and a call for each that there is. 80 KB. Others say them, without a place.
    small_agent+=("-Zunstable-options" "-Cpanic=immediate-abort")
    small+=("-Zlocation-detail=none")
    # What is written for those who debug names a variant, and not what is in it. 40 KB.
    small+=("-Zfmt-debug=shallow")
    say "building for $target, standard library and all, with $("$rustc" --version)"
    build() {
        local std=("-Zbuild-std=std,panic_abort" -Zbuild-std-features=optimize_for_size)
        [ "$profile" = release ] || std=("-Zbuild-std=std,panic_unwind")
        PATH="/usr/bin:/bin" RUSTC="$rustc" RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]} $*" "$cargo" "${arguments[@]}" \
            "${std[@]}" --profile "$profile" -p "$program" --bin "$program" >&2
    }
fi
# ring's C and assembler, and the linking.
key=${target//-/_}
export "CC_$key=$compiler" "CARGO_TARGET_$(tr '[:lower:]' '[:upper:]' <<<"$key")_LINKER=$compiler"
for program in "${programs[@]}"; do
    profile=release
    # Flags are those of one program, so what it is made of is its own too.
    export CARGO_TARGET_DIR="$folder/build/$program" "CFLAGS_$key="
    case $program in
    prestage)
        export "CFLAGS_$key=$small_c"
        build "${small[@]}" "${small_agent[@]}"
        ;;
    prestage-fleet)
        profile=server
        build
        ;;
    *) build "${small[@]}" ;;
    esac
    cp "$CARGO_TARGET_DIR/$target/$profile/$program" "$output/$program.unstripped"
    prefix=$triple-
    [ "$output" != "$folder" ] || prefix=
    "${prefix}strip" --strip-all --remove-section=.comment -o "$output/$program" "$output/$program.unstripped"
    readelf --program-headers "$output/$program" | grep -q INTERP && die "$output/$program asks for a loader: it is not static"
    printf '%s\n' "$output/$program"
done
