//! The fleet server hears of every outcome once: whoever dies, whatever is lost, however full the disk is.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use format::report::{Outcome, Report, Step};
use lab::fleet::{Fleet, Orders};
use lab::sandbox::{Running, run};
use lab::world::World;

const STATE: &str = "/var/lib/prestage";

const MIB: u64 = 1024 * 1024;

/// A node that reports to a fleet server which knows nothing of it yet.
struct Told {
    fleet: Fleet,
    world: World,
}

impl Told {
    fn new() -> Told {
        let told = Told { fleet: Fleet::start().expect("a port"), world: World::new() };
        told.configure("paced = false\n");
        told
    }

    /// `more`: of `[fleet]`.
    fn configure(&self, more: &str) {
        let text = format!("[fleet]\nurl = \"{}\"\n{more}", self.fleet.url());
        self.world.node.configure(&[&self.world.mirror.url()], &text);
    }

    fn agent<const N: usize>(&self, args: [&str; N]) -> lab::sandbox::Output {
        run(&mut self.world.node.prestage(args))
    }

    fn queue(&self) -> Vec<PathBuf> {
        self.files("json")
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.world.node.path(&format!("{STATE}/reports")));
        let paths = entries.into_iter().flatten().flatten().map(|e| e.path());
        let mut files: Vec<PathBuf> =
            paths.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
        files.sort();
        files
    }

    /// Puts reports into the queue as a step would have, a second apart and `seconds` ago at the earliest.
    fn queue_many(&self, count: usize, outcome: Outcome, changes: usize) {
        let node = &self.world.node;
        std::fs::create_dir_all(node.path(&format!("{STATE}/reports"))).expect("a folder");
        let begin = node.clock().plus(-100_000);
        for n in 0..count {
            let mut report: Report =
                serde_json::from_slice(include_bytes!("../../format/tests/data/report-v1.json"))
                    .expect("the golden report");
            report.node = "test-node".parse().expect("a node id");
            report.at = begin.plus(n as i64);
            report.message = format!("outcome {n}");
            (report.outcome, report.omitted) = (outcome, None);
            report.changes = vec![report.changes[0].clone(); changes];
            report.id = Report::make_id(
                &report.node,
                report.at,
                report.transaction.as_deref(),
                report.step,
                &report.message,
            );
            let name = format!("{STATE}/reports/{:015}-{}.json", report.at.0 * 1000, report.id.short());
            node.write(&name, serde_json::to_vec(&report).expect("a report"));
        }
    }
}

#[test]
fn an_outcome_is_told_signed_and_only_what_was_accepted_goes() {
    let told = Told::new();
    told.agent(["fetch"]).expect(0);
    assert_eq!(told.queue().len(), 1);
    told.agent(["report"]).expect(0);
    let heard = told.fleet.told();
    assert_eq!((heard.reports.len(), heard.arrivals, heard.statuses.len()), (1, 1, 1), "{heard:?}");
    assert_eq!(heard.wrong, Vec::<String>::new());
    let status = &heard.statuses[0];
    assert_eq!(status.status.metadata.name.as_str(), "test-node");
    assert!(status.inventory.is_some() && status.sent_at >= status.status.status.updated_at);
    assert_eq!(told.queue(), Vec::<PathBuf>::new());
    let standing = told.world.node.status().status.fleet.expect("a standing");
    assert!(standing.accepted_at.is_some() && standing.problem.is_none(), "{standing:?}");
    // A second one tells how the node is, and no outcome again.
    told.agent(["report"]).expect(0);
    let heard = told.fleet.told();
    assert_eq!((heard.arrivals, heard.statuses.len(), heard.enrollments), (1, 2, 1));
}

#[test]
fn the_key_is_made_once_and_only_the_report_step_can_read_it() {
    let told = Told::new();
    let group = 990;
    told.world.node.deploy();
    told.agent(["report"]).expect(0);
    let path = told.world.node.path("/etc/prestage/node.key");
    let meta = std::fs::metadata(&path).expect("a key");
    assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (0, group, 0o640));
    let key = std::fs::read(&path).expect("a key");
    // Somebody has opened it to all: root mends that, and the key stays.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    told.agent(["report"]).expect(0);
    assert_eq!(std::fs::metadata(&path).expect("a key").permissions().mode() & 0o7777, 0o640);
    assert_eq!(std::fs::read(&path).expect("a key"), key);
    assert_eq!(told.fleet.told().keys.len(), 1);
}

#[test]
fn an_answer_that_is_lost_is_an_outcome_that_counts_once() {
    let told = Told::new();
    told.agent(["report"]).expect(0);
    told.agent(["fetch"]).expect(0);
    told.fleet.orders(Orders { loses_answers: true, ..Orders::default() });
    told.agent(["report"]).expect(69);
    assert_eq!((told.fleet.told().reports.len(), told.queue().len()), (1, 1), "it cannot know");
    let problem = told.world.node.status().status.fleet.and_then(|fleet| fleet.problem);
    assert!(problem.is_some());
    told.fleet.orders(Orders::default());
    told.agent(["report"]).expect(0);
    let heard = told.fleet.told();
    assert_eq!((heard.reports.len(), heard.arrivals, told.queue().len()), (1, 2, 0));
}

#[test]
fn an_agent_that_is_killed_between_sending_and_removing_tells_it_again_and_it_counts_once() {
    let told = Told::new();
    told.agent(["report"]).expect(0);
    told.queue_many(300, Outcome::Installed, 20);
    let mut killed = 0;
    // At every moment of the conversation, from before the first byte to after the last.
    for _ in 0..40 {
        let before = told.fleet.told().arrivals;
        let mut agent = Running::start(&mut told.world.node.prestage(["report"]));
        while !agent.has_ended() && told.fleet.told().arrivals == before {
            std::thread::yield_now();
        }
        killed += u64::from(agent.kill().code.is_none());
        if told.queue().is_empty() {
            break;
        }
    }
    assert!(killed > 0, "none was killed in the middle");
    told.agent(["report"]).expect(0);
    let heard = told.fleet.told();
    assert_eq!((heard.reports.len(), told.queue().len()), (300, 0));
    assert!(heard.arrivals > 300, "nothing was told twice, so nothing was shown");
    assert_eq!(heard.wrong, Vec::<String>::new());
}

#[test]
fn what_the_server_refuses_is_kept_aside_with_the_reason_and_not_sent_again() {
    let told = Told::new();
    told.agent(["fetch"]).expect(0);
    told.fleet.orders(Orders { refuses: Some("no\u{1b}[2Jthing".into()), ..Orders::default() });
    told.agent(["report"]).expect(0);
    assert_eq!((told.queue().len(), told.files("refused").len()), (0, 1));
    let reason = std::fs::read_to_string(&told.files("reason")[0]).expect("a reason");
    assert!(reason.starts_with("no") && !reason.contains('\u{1b}'), "{reason:?}");
    assert_eq!(told.world.node.status().status.fleet.map(|fleet| fleet.refused), Some(1));
    told.fleet.orders(Orders::default());
    told.agent(["report"]).expect(0);
    assert_eq!(told.fleet.told().arrivals, 0);
}

#[test]
fn a_revoked_key_keeps_its_queue_and_says_so() {
    let told = Told::new();
    told.agent(["report"]).expect(0);
    told.agent(["fetch"]).expect(0);
    told.fleet.orders(Orders { has_revoked: true, ..Orders::default() });
    told.agent(["report"]).expect(69).says(&["revoked"]);
    assert_eq!(told.queue().len(), 1);
    told.agent(["doctor"]).expect(0).says(&["revoked"]);
    told.fleet.orders(Orders::default());
    told.agent(["report"]).expect(0);
    assert_eq!((told.fleet.told().reports.len(), told.queue().len()), (1, 0));
}

#[test]
fn a_server_that_has_forgotten_the_node_is_asked_to_enrol_it_again() {
    let told = Told::new();
    told.agent(["report"]).expect(0);
    told.agent(["fetch"]).expect(0);
    told.fleet.forget();
    told.agent(["report"]).expect(69).says(&["does not know"]);
    told.agent(["report"]).expect(0);
    assert_eq!((told.fleet.told().reports.len(), told.queue().len()), (1, 0));
}

#[test]
fn a_token_is_asked_for_and_the_way_to_get_one_is_said() {
    let told = Told::new();
    told.fleet.orders(Orders { token: Some("once-1".into()), ..Orders::default() });
    told.agent(["report"]).expect(78).says(&["the token is wrong", "--key-only"]);
    let file = told.world.sandbox.path().join("token");
    std::fs::write(&file, "once-2\n").expect("a token");
    let enroll =
        |url: &str| told.agent(["enroll", "--fleet", url, "--token-file", file.to_str().expect("a path")]);
    told.configure("paced = false\n");
    enroll(&told.fleet.url()).expect(78).says(&["the token is wrong"]);
    std::fs::write(&file, "once-1\n").expect("a token");
    enroll(&told.fleet.url()).expect(0).says(&["key"]);
    assert!(!told.world.node.path("/etc/prestage/fleet.token").exists(), "it has been used");
    // Done twice it does no harm.
    enroll(&told.fleet.url()).expect(0);
    told.agent(["report"]).expect(0);
    assert_eq!(told.fleet.told().keys.len(), 1);
    std::fs::write(&file, "two words\n").expect("a token");
    enroll(&told.fleet.url()).expect(78).says(&["token"]);
    let shown = told.agent(["enroll", "--key-only"]).expect(0).stdout;
    let known = told.fleet.told().keys.values().next().expect("a key").id();
    assert!(shown.contains(&known.to_string()) && shown.contains("test-node"), "{shown}");
}

#[test]
fn retry_after_is_obeyed_and_the_wait_is_not_that_of_another_node() {
    let told = Told::new();
    told.configure("report-every = \"15min\"\n");
    told.fleet.orders(Orders { down: Some((503, Some("7200".into()))), ..Orders::default() });
    told.agent(["report"]).expect(69).says(&["503", "not now"]);
    let standing = told.world.node.status().status.fleet.expect("a standing");
    let wait = standing.next.expect("a time").since(told.world.node.clock());
    assert!((7190..7200 + 7200).contains(&wait), "{wait}");
    told.fleet.orders(Orders::default());
    // Nobody asks before that, whatever there is to tell; a person does.
    told.agent(["fetch"]).expect(0);
    told.agent(["report"]).expect(0);
    assert_eq!(told.fleet.told().statuses.len(), 0);
    told.agent(["report", "--now"]).expect(0);
    assert_eq!((told.fleet.told().statuses.len(), told.queue().len()), (1, 0));
    // And then it is quiet again for a while.
    told.agent(["report"]).expect(0);
    assert_eq!(told.fleet.told().statuses.len(), 1);
}

#[test]
fn an_outcome_reaches_the_server_from_a_disk_that_is_full_to_the_last_byte() {
    let told = Told::new();
    let node = &told.world.node;
    node.small_disk(STATE, 64 * MIB);
    told.agent(["fetch"]).expect(0);
    let filler = node.path(&format!("{STATE}/filler"));
    let _ = std::fs::write(&filler, vec![1; 64 * MIB as usize]);
    // The next fetch ends with what the disk is like, which cannot be written down but where room was kept.
    told.world.mirror.behave(Default::default());
    told.agent(["fetch"]).expect(1).says(&["space"]);
    assert_eq!(told.queue().len(), 2, "the outcome has a file");
    told.agent(["report"]);
    let heard = told.fleet.told();
    let outcomes: Vec<Outcome> = heard.reports.values().map(|report| report.outcome).collect();
    assert!(outcomes.contains(&Outcome::Deferred) && outcomes.contains(&Outcome::Staged), "{outcomes:?}");
    assert_eq!(told.queue(), Vec::<PathBuf>::new());
    std::fs::remove_file(&filler).expect("the filler");
    told.agent(["report"]).expect(0);
    assert_eq!(told.fleet.told().arrivals, 2);
}

#[test]
fn a_queue_that_is_full_drops_detail_first_then_waiting_and_says_what_it_dropped() {
    let told = Told::new();
    told.queue_many(200, Outcome::Installed, 150);
    let with_changes = |reports: &[PathBuf]| {
        let read = |path: &PathBuf| Report::parse(&std::fs::read(path).expect("a report")).expect("a report");
        reports.iter().map(read).filter(|report| !report.changes.is_empty()).count()
    };
    assert_eq!(with_changes(&told.queue()), 200);
    let bytes = |told: &Told| -> u64 {
        told.queue().iter().map(|path| std::fs::metadata(path).expect("a file").len()).sum()
    };
    // As large as may be, and then one more.
    while bytes(&told) < 4 * MIB {
        let n = told.queue().len();
        told.queue_many(n + 50, Outcome::Installed, 150);
    }
    let count = told.queue().len();
    told.agent(["fetch"]).expect(0);
    let queue = told.queue();
    assert!(bytes(&told) < 4 * MIB, "{}", bytes(&told));
    assert!(queue.len() <= count + 1 && with_changes(&queue) < count, "{} of {count}", with_changes(&queue));
    told.agent(["report"]).expect(0);
    let heard = told.fleet.told();
    assert_eq!(heard.wrong, Vec::<String>::new());
    let said: u64 = heard.reports.values().filter_map(|r| r.omitted).map(|omitted| omitted.changes).sum();
    assert!(said > 0, "that details were dropped is said");
    let dropped: u64 = heard.reports.values().filter_map(|r| r.omitted).map(|omitted| omitted.reports).sum();
    assert_eq!(heard.reports.len() as u64 + dropped, count as u64 + 1, "every outcome is told or counted");
}

#[test]
fn what_only_waits_is_dropped_before_an_outcome() {
    let told = Told::new();
    told.queue_many(450, Outcome::Installed, 0);
    let first = told.queue()[0].clone();
    // Newer than all outcomes, and of less worth.
    let path = told.queue()[449].clone();
    let mut report = Report::parse(&std::fs::read(&path).expect("a report")).expect("a report");
    report.outcome = Outcome::Deferred;
    std::fs::write(&path, serde_json::to_vec(&report).expect("a report")).expect("a report");
    told.agent(["fetch"]).expect(0);
    assert!(first.exists(), "the oldest outcome is still there");
    assert!(!path.exists(), "and what only waited is not");
    let last = Report::parse(&std::fs::read(told.queue().last().expect("one")).expect("a report"));
    assert_eq!(last.expect("a report").omitted.map(|omitted| omitted.reports), Some(1));
}

#[test]
fn reports_go_and_come_back_on_a_stick() {
    let told = Told::new();
    told.agent(["report"]).expect(0);
    told.agent(["fetch"]).expect(0);
    told.agent(["install", "--now"]).expect(0);
    assert_eq!(told.queue().len(), 2);
    let (out, back) =
        (told.world.sandbox.path().join("out.json"), told.world.sandbox.path().join("back.json"));
    told.agent(["report", "--export", out.to_str().expect("a path")]).expect(0).says(&["2 reports"]);
    assert_eq!(told.queue().len(), 2, "they stay until somebody has them");
    let receipt = told.fleet.import(&std::fs::read(&out).expect("an export"));
    assert_eq!(told.fleet.told().wrong, Vec::<String>::new());
    // More has happened meanwhile: that is in no receipt.
    told.queue_many(1, Outcome::Installed, 0);
    std::fs::write(&back, &receipt).expect("a receipt");
    told.agent(["report", "--import", back.to_str().expect("a path")])
        .expect(0)
        .says(&["2 reports", "1 wait"]);
    assert_eq!((told.fleet.told().reports.len(), told.queue().len()), (2, 1));
    // Again, and on the wrong node, it does no harm; and what is no receipt is none.
    told.agent(["report", "--import", back.to_str().expect("a path")]).expect(0).says(&["0 reports"]);
    std::fs::write(&back, b"{\"accepted\":1}").expect("no receipt");
    told.agent(["report", "--import", back.to_str().expect("a path")]).expect(64).says(&["no receipt"]);
    assert_eq!(told.queue().len(), 1);
}

#[test]
fn a_clock_that_is_wrong_keeps_nothing_from_being_told() {
    let told = Told::new();
    told.agent(["report"]).expect(0);
    told.agent(["fetch"]).expect(0);
    // A report of the year 2037, of a clock that has been put right since.
    told.queue_many(1, Outcome::Installed, 0);
    let path = told.queue()[0].clone();
    let mut report = Report::parse(&std::fs::read(&path).expect("a report")).expect("a report");
    report.at = format::time::UnixTime(2_114_380_800);
    report.id = Report::make_id(
        &report.node,
        report.at,
        report.transaction.as_deref(),
        Step::Install,
        &report.message,
    );
    std::fs::remove_file(&path).expect("the file");
    let name = format!("{STATE}/reports/{:015}-{}.json", report.at.0 * 1000, report.id.short());
    told.world.node.write(&name, serde_json::to_vec(&report).expect("a report"));
    told.agent(["install", "--now"]).expect(0);
    assert_eq!(
        told.queue().last().map(|last| last.ends_with(name.rsplit('/').next().expect("a name"))),
        Some(false)
    );
    told.agent(["report"]).expect(0);
    assert_eq!((told.fleet.told().reports.len(), told.queue().len()), (3, 0));
}

#[test]
fn the_inventory_that_the_server_asks_for_is_what_is_installed() {
    let told = Told::new();
    told.fleet.orders(Orders { wants_inventories: true, ..Orders::default() });
    told.agent(["report"]).expect(0);
    let heard = told.fleet.told();
    let (digest, inventory) = heard.inventories.iter().next().expect("an inventory");
    assert_eq!(heard.statuses[0].inventory, Some(*digest));
    let names: Vec<String> = inventory.packages.iter().map(|package| package.name.clone()).collect();
    assert!(names.contains(&"till-app".to_owned()), "{names:?}");
    // What somebody installs by hand is seen.
    told.world.node.install(&[lab::debs::Deb::new("by-hand", "1.0")]);
    told.agent(["report"]).expect(0);
    assert_eq!(told.fleet.told().inventories.len(), 2);
}

#[test]
fn two_places_for_reports_are_refused() {
    let told = Told::new();
    told.world.configure(&format!("[fleet]\nurl = \"{}\"\n", told.fleet.url()));
    told.agent(["report"]).expect(78).says(&["[report] url", "[fleet] url"]);
}

#[test]
fn what_the_fetch_user_puts_into_the_queue_is_neither_read_for_him_nor_written_through() {
    let told = Told::new();
    told.agent(["report"]).expect(0);
    told.world.node.write("/etc/secret", "root only\n");
    let queue = told.world.node.path(&format!("{STATE}/reports"));
    std::os::unix::fs::symlink(told.world.node.path("/etc/secret"), queue.join("000000000000001-aa.json"))
        .expect("a link");
    std::fs::create_dir(queue.join("000000000000002-bb.json")).expect("a folder");
    std::fs::write(queue.join("000000000000003-cc.json"), vec![b' '; 2 * MIB as usize])
        .expect("a large file");
    told.agent(["report"]).expect(0);
    assert_eq!((told.queue().len(), told.fleet.told().arrivals), (0, 0));
    assert_eq!(told.world.node.read("/etc/secret"), "root only\n");
    assert_eq!(told.fleet.told().wrong, Vec::<String>::new());
}
