//! What LVM, Timeshift and systemd really say on a node, step by step: for the tests of the code that reads it, which
//! must not live on invented output. `tests/data/recordings` holds a copy.

use std::time::Duration;

use crate::log::Log;
use crate::machine::Disks;
use crate::ready::Ready;
use crate::world::{STEP, World};

const LVS: &str = "lvs --all --reportformat json --units b --nosuffix -o \
    vg_name,lv_name,lv_attr,lv_size,origin,pool_lv,data_percent,metadata_percent,lv_merging,lv_merge_failed,lv_tags,vg_free,lv_time,lv_health_status,lv_skip_activation,segtype";
const VGS: &str =
    "vgs --reportformat json --units b --nosuffix -o vg_name,vg_attr,vg_size,vg_free,lv_count,snap_count";

struct Recorder<'w> {
    world: &'w mut World,
    number: u32,
}

impl Recorder<'_> {
    /// Runs a command and keeps what it wrote: the streams apart, and its exit code.
    fn keep(&mut self, name: &str, command: &str) -> String {
        self.keep_within(name, command, STEP)
    }

    fn keep_within(&mut self, name: &str, command: &str, limit: Duration) -> String {
        self.number += 1;
        let script = format!(
            "{{ {command}\n}} >/run/lab-out 2>/run/lab-err; code=$?; cat /run/lab-out; echo '--- stderr'; \
             cat /run/lab-err; echo \"--- exit code $code\""
        );
        let said =
            self.world.node().shell(&script, limit).unwrap_or_else(|silence| panic!("{name}: {silence}"));
        let folder = self.world.log.file("recordings");
        std::fs::create_dir_all(&folder).expect("a folder for recordings");
        let text = format!("$ {command}\n--- stdout\n{}", said.text);
        std::fs::write(folder.join(format!("{:02}-{name}", self.number)), text).expect("a recording");
        said.text
    }
}

pub fn lvm(ready: &Ready, log: &Log) -> Vec<String> {
    record(ready, log, record_lvm)
}

pub fn timeshift(ready: &Ready, log: &Log) -> Vec<String> {
    record(ready, log, record_timeshift)
}

fn record(ready: &Ready, log: &Log, what: fn(&mut Recorder<'_>)) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    what(&mut Recorder { world: &mut world, number: 0 });
    let count = std::fs::read_dir(log.file("recordings")).into_iter().flatten().count();
    vec![format!("{count} recordings")]
}

fn record_lvm(r: &mut Recorder<'_>) {
    r.keep("lvm-version", "lvm version");
    r.keep("findmnt", "findmnt --json --output TARGET,SOURCE,FSTYPE,OPTIONS --real");
    r.keep("mountinfo", "cat /proc/self/mountinfo");
    r.keep("lvs-plain", LVS);
    r.keep("vgs-plain", VGS);
    r.keep(
        "lvs-root-only",
        "lvs --reportformat json -o lv_name,vg_name,pool_lv,segtype $(findmnt -no SOURCE /)",
    );
    r.keep("lvs-no-such-volume", "lvs --reportformat json vg0/nothing");
    r.keep("lvcreate-thin-snapshot", "lvcreate -y -s -kn -n prestage_1 vg0/root --addtag prestage");
    r.keep("lvcreate-same-name", "lvcreate -y -s -kn -n prestage_1 vg0/root");
    r.keep("lvs-snapshot", LVS);
    r.keep("lvchange-addtag", "lvchange --addtag prestage.keepsake.0.1.7b7d vg0/root vg0/prestage_1; lvchange --addtag prestage.keepsake.0.1.7b7d vg0/root");
    r.keep("lvs-tagged", LVS);
    r.keep(
        "lvcreate-classic-of-thin",
        "lvcreate -y -s -L 64m -n classic vg0/root && lvs -a vg0 && lvremove -y vg0/classic",
    );
    r.keep("lvcreate-classic-no-room", "lvcreate -y -s -L 50g -n classic vg0/root");

    // A merge of the running root waits for the next boot.
    r.world.node().sh("echo after >/etc/marker; sync");
    r.keep("lvconvert-merge", "lvconvert -y --merge vg0/prestage_1");
    r.keep("lvs-merging", LVS);
    r.keep("lvconvert-merge-again", "lvconvert -y --merge vg0/prestage_1");
    r.world.node().reboot().expect("the node boots after a merge");
    r.keep("lvs-merged", LVS);
    r.keep("marker-is-gone", "cat /etc/marker");
    r.keep("vgs-merged", VGS);
    r.keep("lvconvert-no-such-volume", "lvconvert -y --merge vg0/prestage_1");
    r.keep(
        "systemctl-failed",
        "systemctl list-units --state=failed --output=json; systemctl is-system-running",
    );

    r.keep("lvcreate-after-merge", "lvcreate -y -s -kn -n prestage_4 vg0/root");
    // The pool fills up: another thin volume takes all of it.
    r.keep("lvcreate-filler", "lvcreate -y -V 8g -T vg0/pool -n filler");
    r.keep(
        "pool-fills-up",
        "timeout 100 dd if=/dev/zero of=/dev/vg0/filler bs=1M count=4600 oflag=direct status=none; true",
    );
    r.keep("lvs-pool-nearly-full", LVS);
    r.keep("lvcreate-pool-nearly-full", "lvcreate -y -s -kn -n prestage_2 vg0/root");
    r.keep("pool-is-full", "timeout 30 dd if=/dev/zero of=/dev/vg0/filler bs=1M seek=4600 count=3000 oflag=direct status=none; true");
    r.keep("lvs-pool-full", LVS);
    r.keep("lvcreate-pool-full", "lvcreate -y -s -kn -n prestage_3 vg0/root");
    r.keep("dmesg-pool-full", "dmesg | grep -i -E 'thin|EXT4' | tail -n 20");
    // The root is read-only now (errors=remount-ro), and LVM's archive of its metadata is on it.
    r.keep("root-is-read-only", "touch /etc/marker; findmnt -no OPTIONS /");
    r.keep("lvremove-on-read-only-root", "lvremove -y vg0/filler");
    r.keep("lvconvert-on-read-only-root", "lvconvert -y --merge vg0/prestage_4");
    r.keep("lvremove-without-archive", "lvremove -An -y vg0/filler");
    r.keep("lvs-pool-relieved", LVS);
}

/// What an operator sets up for restore points on the second disk.
pub const TIMESHIFT_SETUP: &str = r#"uuid=$(blkid -s UUID -o value /dev/disk/by-id/virtio-POINTS)
mkdir -p /etc/timeshift
cat >/etc/timeshift/timeshift.json <<SETTINGS
{
  "backup_device_uuid" : "$uuid",
  "parent_device_uuid" : "",
  "do_first_run" : "false",
  "btrfs_mode" : "false",
  "include_btrfs_home_for_backup" : "false",
  "include_btrfs_home_for_restore" : "false",
  "stop_cron_emails" : "true",
  "schedule_monthly" : "false",
  "schedule_weekly" : "false",
  "schedule_daily" : "false",
  "schedule_hourly" : "false",
  "schedule_boot" : "false",
  "count_monthly" : "2",
  "count_weekly" : "3",
  "count_daily" : "5",
  "count_hourly" : "6",
  "count_boot" : "5",
  "exclude" : ["/var/lib/prestage/**"],
  "exclude-apps" : []
}
SETTINGS"#;

fn record_timeshift(r: &mut Recorder<'_>) {
    r.keep("timeshift-version", "timeshift --version");
    r.keep("timeshift-not-set-up", "timeshift --list --scripted; ls /etc/timeshift");
    r.world.node().sh(TIMESHIFT_SETUP);
    r.keep("timeshift-list-none", "timeshift --list --scripted");
    r.keep("timeshift-list-devices", "timeshift --list-devices --scripted");
    r.keep_within(
        "timeshift-create",
        "timeshift --create --scripted --comments 'prestage 0123abcd'",
        Duration::from_secs(1800),
    );
    r.keep("timeshift-list-one", "timeshift --list --scripted");
    r.keep_within(
        "timeshift-create-second",
        "timeshift --create --scripted --comments 'prestage 4567ef89'",
        Duration::from_secs(1800),
    );
    r.keep("timeshift-list-two", "timeshift --list --scripted");
    r.keep("timeshift-info", "cat /run/timeshift/*/backup/timeshift/snapshots/*/info.json");
    r.keep(
        "timeshift-exclude-list",
        "cat /run/timeshift/*/backup/timeshift/snapshots/*/exclude.list | sort -u",
    );
    r.keep("timeshift-delete-no-such", "timeshift --delete --scripted --snapshot 2020-01-01_00-00-00");
    r.keep(
        "timeshift-delete",
        "timeshift --delete --scripted --snapshot \"$(timeshift --list --scripted | awk '/4567ef89/{print $3}')\"",
    );
    r.keep("timeshift-list-after-delete", "timeshift --list --scripted");
    r.keep("timeshift-no-disk", "umount /run/timeshift/*/backup; sed -i 's/\"backup_device_uuid\" : \"[^\"]*\"/\"backup_device_uuid\" : \"00000000-0000-0000-0000-000000000000\"/' /etc/timeshift/timeshift.json; timeshift --list --scripted; timeshift --create --scripted --comments x");
}
