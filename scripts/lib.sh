# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is used by those who source it
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

# The programs of the build, in $bin. usage: need_programs TARGET PROGRAM...
need_programs() {
    local target=$1 program
    shift
    bin=${PRESTAGE_BIN:-$project/target/release}
    for program in "$@"; do
        [ -x "$bin/$program" ] || die "$bin/$program is not there: run make $target, which builds it"
    done
}

# As need_programs, with the agent as it is shipped: static, as make dist builds it. usage: need_shipped TARGET PROGRAM...
need_shipped() {
    local target=${CARGO_TARGET_DIR:-$project/target} program
    if [ -z "${PRESTAGE_BIN:-}" ]; then
        mkdir -p "$target/shipped"
        for program in "${@:2}"; do
            if [ "$program" = prestage ]; then program=dist/prestage; else program=release/$program; fi
            [ -x "$target/$program" ] || die "$target/$program is not there: run make $1, which builds it"
            cp "$target/$program" "$target/shipped/"
        done
        PRESTAGE_BIN=$target/shipped
    fi
    export PRESTAGE_BIN
    need_programs "$@"
}

# Begins a run: a folder for it in $work, which goes at the end with the processes in $pids, the mounts in $mounts and the
# agents of gpg in $gpg_homes; what is written to $log is shown if it fails. usage: begin NAME
begin() {
    run_name=$1 pids=() mounts=() bundle_more=()
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/prestage-$1.XXXXXX")
    log=$work/log node=$work/node repo=$work/repository build=$bin/prestage-build gpg_homes=("$work/gpg")
    : >"$log"
    trap end EXIT
    trap 'exit 130' INT TERM
}
end() {
    local code=$? pid mount home
    set +e
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    for mount in "${mounts[@]}"; do mountpoint -q "$mount" && umount "$mount"; done
    for home in "${gpg_homes[@]}"; do [ ! -d "$home" ] || GNUPGHOME=$home gpgconf --kill all 2>/dev/null; done
    if [ "$code" -ne 0 ]; then
        printf '\nThe %s failed (exit %s). The end of its log:\n' "$run_name" "$code" >&2
        tail -n 60 "$log" >&2
    fi
    rm -rf --one-file-system "$work"
    exit "$code"
}

# Something that had to hold does not.
fail() {
    printf 'FAILED: %s\n' "$*" | tee -a "$log" >&2
    exit 1
}

# Runs a command, and keeps what it was, how long it took and what it needed, for show_steps. Its output goes to
# $work/NAME.out and the log. usage: step NAME COMMAND...
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

# Starts a server that says at which http URL it listens, and waits for that. Sets served_url.
listen() {
    local name=$1 deadline=$((SECONDS + 20))
    shift
    : >"$work/$name.log"
    "$@" >>"$work/$name.log" 2>&1 </dev/null &
    pids+=($!)
    until served_url=$(grep -o 'http://[^ )]*' "$work/$name.log" | head -n 1) && [ -n "$served_url" ]; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$name did not say where it listens: $(cat "$work/$name.log")"
        kill -0 "${pids[-1]}" 2>/dev/null || fail "$name ended at once: $(cat "$work/$name.log")"
    done
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

# The steps as commands, and a table of what they needed.
show_steps() {
    local name seconds cpu own_kib
    printf '\nThe commands, in order:\n\n'
    cut -f2 "$work/commands" | sed "s|$bin/||; s|^|    |"
    printf '\n%-10s %9s %9s %12s\n' step seconds "CPU s" "peak memory"
    while IFS=$'\t' read -r name _; do
        read -r seconds cpu _ own_kib <"$work/$name.measure"
        printf '%-10s %9.2f %9.2f %12s\n' "$name" "$seconds" "$cpu" "$(human $((own_kib * 1024)))"
    done <"$work/commands"
}
# A table of what came of it. usage: table TITLE; row WHAT VALUE ...
table() { printf '\n| %-46s | %22s |\n| %s | %s: |\n' "" "$1" "----------------------------------------------" "---------------------"; }
row() { printf '| %-46s | %22s |\n' "$1" "$2"; }
human() { numfmt --to=iec-i --suffix=B --format=%.1f "$1"; }

# The keys and the repository of a centre, in $work and $repo, by the build tool in $build.
new_centre() {
    local role
    for role in root targets bundles snapshot timestamp; do
        "$build" key new "$work/$role.key" >>"$log" 2>&1 || fail "prestage-build key new $role.key"
    done
    step "root" "$build" root init "$repo" --root-key "$work/root.key" --targets-key "$work/targets.key" \
        --bundles-key "$work/bundles.key" --snapshot-key "$work/snapshot.key" --timestamp-key "$work/timestamp.key"
}
# From what was collected in $work/collected to a repository that is served, with a tap before it ($mirror), and a receiver
# of reports ($receiver). More arguments for `bundle` may be in bundle_more.
publish_and_serve() {
    step "bundle" "$build" bundle "$work/collected" --version "$(date -u +%Y%m%d)-1" --cycle "$(date -u +%Y-%m)" \
        --output "$work/bundle" "${bundle_more[@]}"
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
}
# The node in $node, told where that is. usage: configure_node ID
configure_node() {
    mkdir -p "$node/etc/prestage"
    cp "$repo/metadata/1.root.json" "$node/etc/prestage/root.json"
    printf '[node]\nid = "%s"\nlabels = { role = "till" }\n[repository]\nmirrors = ["%s"]\n[report]\nurl = "%s"\n' \
        "$1" "$mirror" "$receiver" >"$node/etc/prestage/agent.toml"
}
in_node() { chroot "$node" "$@"; }
# A value of the node's status.
told() { jq -r "$1" "$node/var/lib/prestage/status.json"; }

# The middle one of numbers, one a line.
median() { sort -g | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# Those of the named packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
    done
}

# Installs packages of this distribution, and starts none of their services, now or at the next boot: a web server on
# port 80 or a Prometheus is not what a developer asked for. policy-rc.d, which maintainer scripts ask before they start
# anything, says no meanwhile; one that is there is put back. What they have enabled is disabled again.
install_packages() {
    [ "$#" -gt 0 ] || return 0
    have apt-get || die "this machine has no apt; install by hand: $*"
    [ "$(id -u)" -eq 0 ] || die "run as root, or install by hand: apt-get install $*"
    (
        # One at a time, also with another program that installs.
        exec 9>/var/lock/prestage-install-packages
        flock 9
        policy=/usr/sbin/policy-rc.d
        aside=$policy.before-prestage
        # What a run that was killed has left.
        if [ -e "$policy" ] && grep -qs '^# prestage: ' "$policy"; then rm "$policy"; fi
        if [ -e "$aside" ]; then mv "$aside" "$policy"; fi
        # shellcheck disable=SC2317 # called by the trap
        put_back() {
            rm -f "$policy"
            if [ -e "$aside" ]; then mv "$aside" "$policy"; fi
        }
        trap put_back EXIT
        trap 'exit 130' INT TERM
        enabled() { systemctl --root=/ list-unit-files --state=enabled --no-legend 2>/dev/null | cut -d' ' -f1 | sort || true; }
        before=$(enabled)
        if [ -e "$policy" ]; then mv "$policy" "$aside"; fi
        printf '#!/bin/sh\n# prestage: no service starts because a package is installed\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            -o DPkg::Lock::Timeout=600 "$@" >&2
        comm -13 <(printf '%s\n' "$before") <(enabled) | while read -r unit; do
            say "disabled again: $unit"
            systemctl --root=/ disable "$unit" >/dev/null 2>&1 || true
        done
    )
}

# Installs what is missing of the named packages. usage: install_missing WHY PACKAGE...
install_missing() {
    local why=$1 missing
    shift
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "missing: ${missing[*]}, $why"
    install_packages "${missing[@]}"
}
