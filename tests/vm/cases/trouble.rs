//! What is wrong with the node before the install, or goes wrong in it: each has its outcome, its exit code and its words,
//! and the node is as it was.

use format::report::Outcome;

use super::THIN;
use crate::log::Log;
use crate::machine::{Disks, SOON};
use crate::packages::{Till, good, kernel, till};
use crate::ready::Ready;
use crate::world::World;

const BUNDLE: &str = "20261123-1";

/// What the agent said of the last install, and that the node is as it was.
#[track_caller]
fn expect(world: &mut World, exit: i32, code: i32, outcome: Outcome, words: &[&str]) -> Vec<String> {
    assert_eq!(exit, code, "the exit code");
    world.assert_has("1.0");
    let status = world.status().status;
    let install = status.install.expect("an install step");
    assert_eq!(install.outcome, outcome, "{}", install.message);
    assert_eq!(i32::from(install.exit_code), code, "{}", install.message);
    for word in words {
        assert!(install.message.to_lowercase().contains(word), "no {word:?} in: {}", install.message);
    }
    vec![format!("exit {code}"), install.message]
}

/// Fills the file system of a folder but for so many MiB; `blocks`: of stat(1), `%a` those that anybody may write, `%f` all.
fn fill(world: &mut World, folder: &str, blocks: &str, left: u32) {
    // ext4 keeps some for itself and says no to the last of them, which is as full as it gets.
    world.node().sh(&format!(
        "sync; used=$(stat -c '%b * %B' {folder}/filler 2>/dev/null || echo 0)
        fallocate -l $(( used + $(stat -f -c '{blocks} * %S' {folder}) - ({left} << 20) )) {folder}/filler || true
        sync; df {folder}"
    ));
}

pub fn full_disk(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.release(BUNDLE, &good("2.0"));
    assert_eq!(world.step("fetch"), Ok(0));
    let before = world.stamps("before");
    // As a log fills it that anybody writes.
    fill(&mut world, "/var/log", "%a", 2);
    let exit = world.step("install").expect("the node stays on");
    let facts = expect(&mut world, exit, 1, Outcome::Deferred, &["free some space"]);
    // And to the last block: then there is no room for a status either, and the journal has the words.
    fill(&mut world, "/var/log", "%f", 0);
    assert_eq!(world.step("install"), Ok(1));
    let words = world.said("install").to_lowercase();
    assert!(words.contains("no space left on device") || words.contains("free some space"), "{words}");
    world.assert_has("1.0");
    world.node().sh("rm /var/log/filler");
    world.assert_stamps(&before, "after");
    // Where there is room again it goes through by itself.
    assert_eq!(world.step("install"), Ok(0));
    world.assert_has("2.0");
    facts
}

pub fn read_only(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.release(BUNDLE, &good("2.0"));
    assert_eq!(world.step("fetch"), Ok(0));
    let before = world.stamps("before");
    // As after an error on the disk (errors=remount-ro), whoever has files open for writing.
    world.node().sh("sync; echo u >/proc/sysrq-trigger; sleep 1; ! touch /etc/marker");
    let exit = world.step("install").expect("the node stays on");
    assert!([1, 74].contains(&exit), "exit code {exit}");
    let words = world.node().sh("systemctl start prestage-install 2>&1 || true; dmesg | tail -n 3; prestage install --now 2>&1 || true");
    assert!(words.to_lowercase().contains("read-only"), "{words}");
    // What a person does about it.
    world.cut_power();
    world.boot().expect("the node boots");
    world.assert_has("1.0");
    world.assert_stamps(&before, "after");
    assert_eq!(world.step("install"), Ok(0));
    world.assert_has("2.0");
    let line = words.lines().find(|line| line.to_lowercase().contains("read-only")).unwrap_or_default();
    vec![format!("exit {exit}"), line.to_owned()]
}

pub fn full_boot(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.configure(THIN);
    let mut debs = good("2.0");
    debs.push(kernel("2.0"));
    world.release(BUNDLE, &debs);
    assert_eq!(world.step("fetch"), Ok(0));
    fill(&mut world, "/boot", "%f", 4);
    let before = world.files("before");
    let exit = back_by_boot(&mut world);
    let facts = expect(&mut world, exit, 4, Outcome::InstallFailed, &["space"]);
    world.assert_files(&before, "after");
    facts
}

pub fn small_pool(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.configure(THIN);
    world.release(BUNDLE, &good("2.0"));
    assert_eq!(world.step("fetch"), Ok(0));
    // Somebody else's volume takes most of the pool.
    // Of each of the pool's chunks a page is written, which takes all of it.
    world.node().sh_within(
        "lvcreate -y -V 8g -T vg0/pool -n other >/dev/null 2>&1
        read -r size chunk percent <<<\"$(lvs --noheadings --units b --nosuffix -o lv_size,chunk_size,data_percent vg0/pool)\"
        perl -e 'my ($size, $chunk, $percent) = @ARGV;
            open(my $f, \"+<\", \"/dev/vg0/other\") or die $!;
            for my $i (0 .. (93 - $percent) / 100 * $size / $chunk) {
                sysseek($f, $i * $chunk, 0) or die $!;
                syswrite($f, \"x\" x 4096) == 4096 or die $!;
            }
            close $f or die $!' $size $chunk $percent
        sync; lvs vg0",
        crate::world::STEP,
    );
    let before = world.stamps("before");
    let exit = world.step("install").expect("the node stays on");
    let facts = expect(&mut world, exit, 1, Outcome::Deferred, &["pool"]);
    world.assert_stamps(&before, "after");
    let volumes = world.node().sh("lvs --noheadings -o lv_name vg0");
    assert!(!volumes.contains("prestage"), "a restore point was left: {volumes}");
    world.node().sh("lvremove -y vg0/other");
    assert_eq!(world.step("install"), Ok(0));
    world.assert_has("2.0");
    facts
}

pub fn no_restore_point(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.configure(THIN);
    world.release(BUNDLE, &good("2.0"));
    assert_eq!(world.step("fetch"), Ok(0));
    // The real lvcreate, in a volume group that may have no more volumes than it has.
    world.node().sh("vgchange -l \"$(lvs --noheadings -o lv_name vg0 | wc -l)\" vg0");
    let before = world.stamps("before");
    let exit = world.step("install").expect("the node stays on");
    let facts = expect(&mut world, exit, 1, Outcome::Deferred, &["restore point"]);
    world.assert_stamps(&before, "after");
    world.node().sh("vgchange -l 0 vg0");
    assert_eq!(world.step("install"), Ok(0));
    world.assert_has("2.0");
    facts
}

pub fn silent_health(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.configure(THIN);
    world.release(BUNDLE, &[till("2.0", Till::Silent), crate::packages::goods("2.0", 40)]);
    assert_eq!(world.step("fetch"), Ok(0));
    let before = world.files("before");
    let exit = back_by_boot(&mut world);
    let facts = expect(&mut world, exit, 5, Outcome::RolledBack, &["health"]);
    world.step("report").expect("the node stays on");
    world.assert_files(&before, "after");
    assert!(world.has_report(BUNDLE, &[Outcome::RolledBack]));
    let left = world.node().shell("pgrep -a prestage", SOON).map(|said| said.text).unwrap_or_default();
    assert_eq!(left.trim(), "", "the agent has ended");
    facts
}

/// Installs what goes wrong, lets the node boot, and returns the exit code of the run at that boot, which tells how it ended.
fn back_by_boot(world: &mut World) -> i32 {
    let installed = world.step("install");
    let booted = world.node().wait_for_boot();
    booted.unwrap_or_else(|silence| panic!("after {installed:?} it does not boot: {silence}"));
    let code = world.node().sh("cat /run/lab-exit-prestage-recover");
    code.trim().parse().expect("an exit code")
}
