#!/usr/bin/env bash
# Makes the programs as they are shipped: static, against musl, stripped, the same bytes from the same source. Prints
# their paths.
#
# With rustup's musl target, that target's standard library is taken. Without it (many build hosts reach no more than
# their distribution's archive) the distribution's own Rust builds the standard library from its source package.
#
#   scripts/dist.sh                        the agent
#   scripts/dist.sh prestage-build …       others; each is a build of its own, for the features of one build are shared
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

target=x86_64-unknown-linux-musl
folder=${CARGO_TARGET_DIR:-$project/target}/dist
mkdir -p "$folder"
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

# Paths of the build host are no part of the program.
flags=("--remap-path-prefix=$project=prestage" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo")
# No back trace is ever printed: a panic ends the program with its message. 180 KB.
flags+=("-Cforce-unwind-tables=no")
# Machine code that is there more than once is made a function: -Oz as clang does it for other processors.
flags+=("-Cllvm-args=-enable-machine-outliner=always")
# Symbols are kept beside the program, to see where its bytes are.
export CARGO_PROFILE_RELEASE_STRIP=none
export CARGO_TARGET_DIR="$folder" CARGO_INCREMENTAL=0
export CC_x86_64_unknown_linux_musl=musl-gcc CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc
arguments=(build --release --locked --target "$target")

if have rustup && rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    install_missing "to build against musl" musl-tools
    say "building for $target with rustup's standard library"
    build() { RUSTFLAGS="${flags[*]}" cargo "${arguments[@]}" "$@" >&2; }
else
    # shellcheck disable=SC2046 # three names
    install_missing "to build against musl" musl-tools $(distribution_rust)
    rustc=/usr/bin/rustc cargo=/usr/bin/cargo
    recent "$rustc" || die "$rustc is too old"
    # The unwinder of this distribution's LLVM: gcc's wants what musl does not have. The folder holds it alone, so
    # that nothing else of LLVM's is found by chance.
    unwinder=$(apt-cache --names-only search '^libunwind-[0-9]+-dev$' | cut -d' ' -f1 | sort -V | head -n 1)
    install_missing "to build against musl" "${unwinder:?no libunwind-NN-dev in this distribution}"
    mkdir -p "$folder/native"
    cp "$(dpkg -L "$unwinder" | grep '/libunwind\.a$' | head -n 1)" "$folder/native/"
    flags+=("-Clink-self-contained=no" "-Crelocation-model=static" "-Lnative=$folder/native")
    flags+=("--remap-path-prefix=$("$rustc" --print sysroot)=rust" "--remap-path-prefix=/usr/src=rust")
    say "building for $target, standard library and all, with $("$rustc" --version)"
    build() {
        PATH="/usr/bin:/bin" RUSTC="$rustc" RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" "$cargo" "${arguments[@]}" \
            -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size "$@" >&2
    }
fi
for program in "${programs[@]}"; do
    build -p "$program" --bin "$program"
    cp "$folder/$target/release/$program" "$folder/$program.unstripped"
    strip --strip-all --remove-section=.comment -o "$folder/$program" "$folder/$program.unstripped"
    readelf --program-headers "$folder/$program" | grep -q INTERP && die "$folder/$program asks for a loader: it is not static"
    printf '%s\n' "$folder/$program"
done
