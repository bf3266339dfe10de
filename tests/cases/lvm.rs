//! Restore points by LVM that fail, or that are all that is left: lvm(8) is faked here, in the words that it was recorded
//! with (`tests/data/recordings`), because the real one fails so only with a full pool below the root. The real one is at
//! work in virtual machines (`make test-vm`).

use format::report::Outcome;
use format::status::State;
use lab::world::World;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::safety::{agent, answer, server};

/// Programs of a node that fail in place of the real ones.
fn fake(world: &World, program: &str, body: &str) {
    world.node.script(&format!("/usr/local/bin/{program}"), &format!("#!/bin/sh\n{body}\n"));
}

/// What `lvs` says of a thin root whose pool is so full, in percent.
fn lvs(data: &str) -> String {
    let volume = |name: &str, attr: &str, pool: &str, data: &str| {
        format!(
            r#"{{"vg_name":"vg0","lv_name":"{name}","lv_attr":"{attr}","lv_size":"1073741824","origin":"","pool_lv":"{pool}","data_percent":"{data}","metadata_percent":"10.00","lv_merging":"","lv_tags":"","vg_free":"0","lv_time":"2026-11-23 03:10:11 +0000"}}"#
        )
    };
    let root = volume("root", "Vwi-aotz--", "pool", "30.00");
    let pool = volume("pool", "twi-aotz--", "", data);
    // The root alone where it is asked for alone.
    format!(
        "case \"$*\" in *vg0/root*) echo '{{\"report\":[{{\"lv\":[{root}]}}]}}';; \
         *) echo '{{\"report\":[{{\"lv\":[{root},{pool}]}}]}}';; esac"
    )
}

#[test]
fn a_restore_point_that_cannot_be_made_puts_the_install_off_and_nothing_is_touched() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    let install = |says: &[&str]| {
        let before = world.node.image();
        agent(&world, &["install", "--now"]).expect(1).says(says);
        world.node.assert_is(&before);
        let status = world.node.status().status;
        assert!(status.installed.is_none() && status.quarantine.is_empty(), "{status:?}");
    };
    world.configure("[restore]\nkind = \"lvm-thin\"\nvolume = \"vg0/root\"\n");
    install(&["no restore point can be made", "there is no lvs"]);
    fake(&world, "lvs", "echo 'Volume group \"vg0\" not found' >&2; exit 5");
    install(&["not found"]);
    fake(&world, "lvs", &lvs("80.10"));
    install(&["data of the thin pool vg0/pool", "pool-limit-percent is 80"]);
    agent(&world, &["doctor"]).expect(0).says(&["vg0/root is a thin volume"]);
    fake(&world, "lvs", &lvs("20.00"));
    fake(
        &world,
        "lvcreate",
        "echo 'Cannot create new thin volume, free space in thin pool vg0/pool reached threshold' >&2; exit 5",
    );
    install(&["reached threshold"]);
    // Says that all is well, and has made nothing.
    fake(&world, "lvcreate", "exit 0");
    install(&["lvcreate made no vg0/prestage_"]);
    world.configure("[restore]\nkind = \"timeshift\"\nvolume = \"/dev/vda1\"\n");
    fake(&world, "timeshift", "echo 'E: Backup device not found' >&2; exit 1");
    install(&["timeshift.json"]);
    world.node.write(
        "/etc/timeshift/timeshift.json",
        r#"{"backup_device_uuid":"0d3e","exclude":["/var/lib/prestage/**"]}"#,
    );
    install(&["Backup device not found"]);
    // And a node without any is told that it has none.
    world.configure("[restore]\nrequired = true\n");
    install(&["no restore point can be made"]);
    world.configure("");
    agent(&world, &["install", "--now"]).expect(0);
    world.assert_patched();
}

/// An lvm(8) that keeps its volumes in a file, and as LVM does refuses to change them where it cannot keep a copy of its
/// metadata, unless it is told not to. What would go back with the root goes into the folder `before`.
const LVM: &str = r#"
state=/var/lib/fake-lvm
echo "${0##*/} $*" >>$state/log
[ -s $state/volumes ] || printf 'root - pool -\npool - - -\n' >$state/volumes
for last; do :; done
case "$*" in
    *'backup = 0 archive = 0'*) ;;
    *) if [ "${0##*/}" != lvs ] && ! touch /var/lib/prestage/private/archive; then
        echo "  Couldn't create temporary archive name." >&2
        exit 5
    fi ;;
esac
case "${0##*/}" in
lvs)
    while read -r name origin pool merging; do
        [ "$last" != vg0/root ] || [ "$name" = root ] || continue
        printf '%s{"vg_name":"vg0","lv_name":"%s","lv_attr":"Vwi-aotz--","lv_size":"1073741824","origin":"%s","pool_lv":"%s","data_percent":"30.00","metadata_percent":"10.00","lv_merging":"%s","lv_tags":"%s","vg_free":"0","lv_time":"2026-11-23 03:10:11 +0000"}' \
            "$comma" "$name" "${origin#-}" "${pool#-}" "${merging#-}" "$(cat $state/tags.$name 2>/dev/null)"
        comma=,
    done <$state/volumes | sed 's/^/{"report":[{"lv":[/; s/$/]}]}/'
    echo ;;
lvcreate)
    while [ "$1" != -n ]; do shift; done
    echo "$2 root pool -" >>$state/volumes
    mkdir $state/before
    cp -a /var/lib/dpkg /var/lib/prestage $state/before/ ;;
lvchange)
    volume=${last#vg0/}
    while [ $# -gt 1 ]; do
        if [ "$1" = --addtag ]; then printf '%s,' "$2" >>$state/tags.$volume; fi
        if [ "$1" = --deltag ]; then rm -f $state/tags.$volume; fi
        shift
    done ;;
lvconvert)
    sed -i "s/^${last#vg0/} .*/${last#vg0/} root pool merging/" $state/volumes ;;
lvremove)
    sed -i "/^${last#vg0/} /d" $state/volumes ;;
esac"#;

/// The next boot: the merge happens, and what was in the root is what was there when the restore point was made.
fn boot_merged(world: &World) {
    let state = world.node.path("/var/lib/fake-lvm");
    for name in ["dpkg", "prestage"] {
        let folder = world.node.path("/var/lib").join(name);
        std::fs::remove_dir_all(&folder).expect("the new one goes");
        std::fs::rename(state.join("before").join(name), folder).expect("the old one comes");
    }
    let volumes = world.node.read("/var/lib/fake-lvm/volumes");
    let left: String = volumes.lines().filter(|l| !l.contains("merging")).map(|l| format!("{l}\n")).collect();
    world.node.write("/var/lib/fake-lvm/volumes", left);
    world.node.boot();
}

#[test]
fn a_node_whose_root_has_become_read_only_goes_back_by_what_lies_outside_of_it() {
    let world = World::new();
    world.node.write("/var/lib/fake-lvm/log", "");
    for program in ["lvs", "lvcreate", "lvchange", "lvconvert", "lvremove"] {
        fake(&world, program, LVM);
    }
    agent(&world, &["fetch"]).expect(0);
    // In place of the whole root, what root itself writes is on a file system that becomes read-only, as ext4 does, at the
    // moment when the till is asked for the second time.
    let private = world.node.path("/var/lib/prestage/private");
    std::fs::create_dir_all(&private).expect("a folder");
    mount(Some("none"), &private, Some("tmpfs"), MsFlags::empty(), Some("mode=700")).expect("a file system");
    let dies = private.clone();
    let (url, _) = server(move |number, _| match number {
        0 => answer("200 OK", ""),
        _ => {
            let _ = mount(
                None::<&str>,
                &dies,
                None::<&str>,
                MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
                None::<&str>,
            );
            answer("500 Internal Server Error", "")
        }
    });
    world.configure(&format!(
        "[restore]\nkind = \"lvm-thin\"\nvolume = \"vg0/root\"\n[reboot]\npolicy = \"if-needed\"\n\
         [health]\nurl = \"{url}/\"\ntimeout-seconds = 1\n"
    ));
    agent(&world, &["install", "--now"]).expect(1).says(&["goes back from bundle", "500", "next boot"]);
    assert!(world.node.is_to_boot());
    let log = world.node.read("/var/lib/fake-lvm/log");
    assert!(log.contains("archive = 0 } -y --merge vg0/prestage_"), "{log}");
    // The next timer before that boot changes nothing about it.
    agent(&world, &["install"]).expect(1).says(&["next boot"]);
    assert!(world.node.read("/var/lib/fake-lvm/volumes").contains("merging"));

    umount2(&private, MntFlags::MNT_DETACH).expect("the file system goes");
    boot_merged(&world);
    // Its own journal is that of a node that makes a restore point.
    assert!(world.node.read("/var/lib/prestage/private/journal.json").contains("snapshotting"));
    agent(&world, &["recover"]).expect(5).says(&["rolled back", "500"]);
    let status = world.node.status().status;
    assert_eq!((status.state, status.quarantine.len()), (State::Failed, 1), "{}", status.summary);
    agent(&world, &["install"]).expect(1).says(&["refused"]);
    agent(&world, &["report"]).expect(0);
    assert!(world.receiver.accepted().iter().any(|report| report.outcome == Outcome::RolledBack));
    assert!(!world.node.read("/var/lib/fake-lvm/tags.root").contains("keepsake"));
}
