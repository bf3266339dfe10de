#!/usr/bin/env bash
# Boots the systemd of a root directory in a container, on any machine with systemd-nspawn: also where no systemd runs, or
# with hybrid control groups, as in most containers. It has its own network, of `lo` alone. Ends with the container.
# usage: boot-container.sh ROOT [systemd-nspawn options]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "booting a container"

root=$(readlink -f "${1:?usage: boot-container.sh ROOT [systemd-nspawn options]}")
shift
# In a mount namespace of its own: an empty /run, and the unified control groups alone, so that nspawn and what it boots
# see an ordinary machine. The container gets a control group of its own, which whoever started this removes.
# shellcheck disable=SC2016 # the inner shell's own
exec unshare --mount --propagation private /bin/bash -euc '
    root=$1
    shift
    mount -t tmpfs -o mode=755 run /run
    umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    group=/sys/fs/cgroup/prestage-container-$$
    mkdir -p "$group"
    echo $$ >"$group/cgroup.procs"
    # One that is there already shows the processes of this machine, and nspawn would leave it to the container.
    umount "$root/proc" 2>/dev/null || true
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    exec systemd-nspawn --quiet --directory "$root" --boot --register=no --keep-unit --private-network --console=pipe "$@"
' boot "$root" "$@"
