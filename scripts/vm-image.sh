#!/usr/bin/env bash
# Makes the disk of a node for the virtual machine laboratory: this machine's distribution as its release was published,
# with systemd, GRUB, root on an LVM thin volume and /boot on a partition of its own. Nothing but packages of the
# distribution's archive goes into it. Made once and kept; prints its folder:
#
#   disk.raw     the node's disk
#   packages     what is on it: package and version
#
# The host needs no device-mapper and no KVM: the volumes are made by the node's own kernel, in a machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need_root "making the disk of a virtual machine"

# package: the file that shows it is there
missing=()
for wanted in qemu-system-x86:/usr/bin/qemu-system-x86_64 nbdkit:/usr/bin/nbdkit socat:/usr/bin/socat; do
    [ -e "${wanted#*:}" ] || missing+=("${wanted%%:*}")
done
if [ "${#missing[@]}" -gt 0 ]; then
    say "missing: ${missing[*]}, for virtual machines"
    # A qemu-utils of another release would have to go: it is replaced by the one that belongs to the emulator.
    if dpkg-query -W -f '${db:Status-Status}' qemu-utils 2>/dev/null | grep -qx installed; then
        missing+=("qemu-utils=$(LC_ALL=C apt-cache policy qemu-system-x86 | sed -n 's/^  Candidate: //p')")
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --allow-downgrades "${missing[@]}" >&2
fi

folder="$cache/vm"
mkdir -p "$folder"
exec 9>"$folder/image.lock"
flock 9
archive="$folder/archive"
"$project/scripts/archive.sh" "$archive"
guest="$project/tests/vm/guest"
packages=systemd,systemd-sysv,systemd-timesyncd,udev,dbus,kmod,linux-image-cloud-amd64,initramfs-tools,grub-pc
packages+=,lvm2,thin-provisioning-tools,e2fsprogs,fdisk,timeshift,rsync,zstd,iproute2,procps,ca-certificates,curl,busybox
seed_key=$(sed '/^# --- The disk/q' "$0" | cat - "$archive/release" "$archive/release.list" "$guest"/*/* | short_hash)
key=$(cat "$0" "$guest/build-disk" - <<<"$seed_key" | short_hash)
image="$folder/image-$key"
if [ -d "$image" ]; then
    printf '%s\n' "$image"
    exit
fi

started=$SECONDS
say "making the disk of a virtual machine; this is done once"
new="$folder/image.new"
# In memory where there is room for it: a gigabyte of small files.
scratch=$new
if [ -w /dev/shm ] && [ "$(df --output=avail -k /dev/shm | tail -n 1)" -gt 4000000 ]; then
    scratch=$(mktemp -d /dev/shm/vm-image.XXXXXX)
fi
trap 'rm -rf "$new" "$scratch"' EXIT
rm -rf "$new"
mkdir -p "$new" "$cache/debs"

# --- The packages, in a file system that was never mounted ------------------------------------------------------------
make_seed() {
    local root="$scratch/root" keyrings=() keyring
    while read -r keyring; do keyrings+=(--keyring="$keyring"); done <"$archive/keyrings"
    # no_timer_check: on a busy host an emulated timer may not tick in time for the kernel's test of it, and it would panic.
    # Modules by name, for there is no machine here that could be looked at; and fsck for the root file system.
    # shellcheck disable=SC2016 # $1 is mmdebstrap's
    if ! mmdebstrap --verbose --mode=root --variant=minbase --format=directory --include="$packages" \
        "${keyrings[@]}" --skip=cleanup/apt/cache \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --setup-hook="mkdir -p \"\$1/var/cache/apt/archives\" && find '$cache/debs' -name '*.deb' -exec cp -t \"\$1/var/cache/apt/archives\" {} +" \
        --customize-hook="cp -n \"\$1\"/var/cache/apt/archives/*.deb '$cache/debs/'" \
        --customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*_* "$1"/etc/apt/sources.list' \
        --customize-hook="install -m 755 -t \"\$1/usr/local/sbin\" '$guest'/bin/*" \
        --customize-hook="install -m 644 -t \"\$1/etc/systemd/system\" '$guest'/units/*.service" \
        --customize-hook="install -m 644 -t \"\$1/etc/systemd/network\" '$guest'/units/*.network" \
        --customize-hook='chroot "$1" systemctl --quiet enable systemd-networkd lab-shell' \
        --customize-hook='chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service' \
        --customize-hook='echo node >"$1/etc/hostname"; printf "127.0.0.1 localhost\n127.0.1.1 node\n" >"$1/etc/hosts"; rm -f "$1/etc/resolv.conf"' \
        --customize-hook='mkdir -p "$1/var/log/journal"; : >"$1/etc/machine-id"' \
        --customize-hook='sed -i -e "s/^MODULES=.*/MODULES=list/" -e "s/^FSTYPE=.*/FSTYPE=ext4/" "$1/etc/initramfs-tools/initramfs.conf"' \
        --customize-hook='printf "%s\n" virtio_pci virtio_blk dm_mod dm_thin_pool >>"$1/etc/initramfs-tools/modules"' \
        --customize-hook='printf "%s\n" GRUB_TIMEOUT=0 GRUB_TERMINAL=serial GRUB_DISABLE_OS_PROBER=true GRUB_CMDLINE_LINUX_DEFAULT=quiet "GRUB_CMDLINE_LINUX=\"console=ttyS0 mitigations=off no_timer_check\"" >"$1/etc/default/grub"' \
        --customize-hook='chroot "$1" update-initramfs -u -k all' \
        "$(awk 'NR == 1 { print $3 }' "$archive/release.list")" \
        "$root" "$archive/release.list" >"$folder/mmdebstrap.log" 2>&1; then
        tail -n 40 "$folder/mmdebstrap.log" >&2
        die "the packages could not be installed; all of it is in $folder/mmdebstrap.log"
    fi
    mkdir -p "$1"
    dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package} ${Version}\n' >"$1/packages"
    cp "$root"/boot/vmlinuz-* "$1/vmlinuz"
    cp "$root"/boot/initrd.img-* "$1/initrd"
    truncate -s "$(($(du -sm "$root" | cut -f1) * 120 / 100 + 100))M" "$1/seed.raw"
    mke2fs -q -t ext4 -L root -E root_owner=0:0,nodiscard -d "$root" "$1/seed.raw"
    rm -rf "$root"
}

# Kept if the next step fails.
seed="$folder/seed-$seed_key"
if [ ! -d "$seed" ]; then
    rm -rf "$seed.new"
    make_seed "$seed.new"
    mv "$seed.new" "$seed"
    say "$(wc -l <"$seed/packages") packages after $((SECONDS - started)) s"
fi

# --- The disk: partitions, volumes and GRUB, made by the node's own kernel --------------------------------------------
boot_mib=160  # room for two kernels and not much more: small /boot partitions are what fills up
root_mib=3072
pool_mib=5120 # all of root could be written once again and a little more
disk_mib=6144 # some of the volume group is left over
cp --sparse=always "$seed/seed.raw" "$scratch/seed.raw"
printf '%s\n' 'cd /usr/sbin' "write $guest/build-disk lab-build-disk" 'set_inode_field lab-build-disk mode 0100755' |
    debugfs -w -f /dev/stdin "$scratch/seed.raw" >/dev/null 2>&1
truncate -s "${disk_mib}M" "$new/disk.raw"
timeout 900 nice -n 10 qemu-system-x86_64 -machine q35 -accel tcg,thread=multi,tb-size=512 -cpu Nehalem -smp 2 -m 1024 \
    -nodefaults -display none -no-reboot -serial "file:$new/build.log" \
    -drive "file=$new/disk.raw,if=virtio,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap" \
    -drive "file=$scratch/seed.raw,if=virtio,format=raw,cache=unsafe,readonly=on" \
    -kernel "$seed/vmlinuz" -initrd "$seed/initrd" \
    -append "console=ttyS0 root=/dev/vdb ro rootfstype=ext4 init=/usr/sbin/lab-build-disk panic=-1 mitigations=off no_timer_check BOOT_MIB=$boot_mib ROOT_MIB=$root_mib POOL_MIB=$pool_mib" ||
    die "QEMU failed, or the disk was not made in 15 minutes"
grep -a -q LAB-DISK-DONE "$new/build.log" || {
    grep -a -v '^\[' "$new/build.log" | tail -n 40 >&2
    die "the disk of the virtual machine could not be made"
}
mv "$seed/packages" "$new/packages"
rm -rf "$seed"
mv "$new" "$image"
say "the disk takes $(du -m "$image/disk.raw" | cut -f1) MB; all of it took $((SECONDS - started)) s"
printf '%s\n' "$image"
