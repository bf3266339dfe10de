#!/usr/bin/env bash
# Installs, with apt, what build, demo, tests and benches need beside Rust, git and make. Says what and why. With
# nothing to do it is done in well under a second.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# package: the file that shows it is there: why
wanted='
gcc:/usr/bin/gcc:links Rust programs and builds the TLS library
libc6-dev:/usr/include/stdlib.h:links Rust programs
ca-certificates:/etc/ssl/certs/ca-certificates.crt:lets cargo reach the crate registry
mmdebstrap:/usr/bin/mmdebstrap:makes real node roots
apt-utils:/usr/bin/apt-ftparchive:makes the archives that tests collect from
gpg:/usr/bin/gpg:signs those archives with keys that are thrown away
gpg-agent:/usr/bin/gpg-agent:is what gpg signs with
gpgv:/usr/bin/gpgv:is what apt verifies an archive with
dnf:/usr/bin/dnf-3:resolves for nodes with RPM packages
dnf-plugins-core:/usr/lib/python3/dist-packages/dnf-plugins/reposync.py:mirrors a repository, which is measured against
rpm:/usr/bin/rpmbuild:makes, signs and checks RPM packages
createrepo-c:/usr/bin/createrepo_c:describes RPM packages
python3-createrepo-c:/usr/lib/python3/dist-packages/createrepo_c/__init__.py:reads what describes them, apart from dnf
openssl:/usr/bin/openssl:is measured against, and signs for the build tool
openssh-client:/usr/bin/ssh-agent:holds keys that the build tool signs with
curl:/usr/bin/curl:reads the repository as an ordinary client
jq:/usr/bin/jq:reads status files in the demo, and what a signer is asked
time:/usr/bin/time:measures time and memory
iproute2:/usr/sbin/ip:makes the network of the fleet bench, and looks at network namespaces
bsdutils:/usr/bin/script:gives a test a terminal of its own
nginx-light:/usr/sbin/nginx:is the web server that nodes are tested with
btrfs-progs:/usr/bin/btrfs:makes nodes that can go back to a snapshot
rsync:/usr/bin/rsync:is one of the usual ways that the fleet bench has beside the agent
avahi-daemon:/usr/sbin/avahi-daemon:answers for nodes that look for each other
tinyproxy-bin:/usr/bin/tinyproxy:is the proxy that nodes are tested with
strace:/usr/bin/strace:kills programs between two system calls
xz-utils:/usr/bin/xz:is what packages are compressed with
shellcheck:/usr/bin/shellcheck:checks the scripts
python3-jsonschema:/usr/lib/python3/dist-packages/jsonschema/__init__.py:checks documents against the published schemas
postgresql:/usr/bin/pg_ctlcluster:is the database of larger fleets, which the fleet server is tested with
python3-yaml:/usr/lib/python3/dist-packages/yaml/__init__.py:reads the description of the API, to compare it with the server
python3-venv:/var/lib/dpkg/info/python3-venv.list:runs the tests against python-tuf
'

missing=()
while IFS=: read -r package file why; do
    [ -n "$package" ] || continue
    if [ ! -e "$file" ] && [ ! -e "${file/#\/usr\/sbin/\/sbin}" ]; then
        missing+=("$package")
        say "missing: $package, which $why"
    fi
done <<<"$wanted"

have cargo || die "cargo is missing: install Rust (rustup.rs, or the distribution's rustc and cargo of at least 1.88)"
have cargo-nextest || say "cargo-nextest is not there: tests run with cargo test instead (cargo install cargo-nextest is quicker at running them)"

if [ "${#missing[@]}" -gt 0 ]; then
    have apt-get || die "this machine has no apt; the demo and the end-to-end tests need Debian 12 or 13, or Ubuntu"
    [ "$(id -u)" -eq 0 ] || die "run as root, or install by hand: apt-get install ${missing[*]}"
    apt-get update -q
    install_packages "${missing[@]}"
fi

# Which suites exist is read from apt's lists; a fresh container has none.
if [ "$(id -u)" -eq 0 ] && [ -z "$(apt-get indextargets --format "\$(SITE)" 'Created-By: Packages')" ]; then
    say "apt has no package lists yet: updating them"
    apt-get update -q
fi
