# shellcheck shell=bash
# What the scripts share. Sourced, not run.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export cache="$project/.cache" # made once, kept between runs, never committed
export LC_ALL=C.UTF-8

# One line to the terminal, apart from what programs print.
say() { printf '== %s\n' "$*" >&2; }

# A failure that needs no log: what, and what to do.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "$1 needs root: it mounts, changes roots and makes namespaces. Run it with sudo."
}

# Whether every program is there.
have() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || return 1
    done
}

# The first 16 digits of the SHA-256 of standard input: a key for the cache.
short_hash() { sha256sum | cut -c1-16; }
