//! Interruptions of every kind, at random: hardly a byte comes twice, nothing is lost, and what is staged in the end is
//! right.

use lab::random::Random;
use lab::sandbox::{Output, Running, command, run};
use lab::server::{Behaviour, Cut, CutKind, PATIENCE};
use lab::wait::until;
use lab::world::World;

/// What may be fetched twice for each interruption.
const TWICE: u64 = 64 * 1024;

const BUNDLE: &str = ".bundle.tar.gz";

/// A run of the agent that is killed when it enters the `n`th system call of this kind.
fn killed_at(world: &World, call: &str, n: u64) -> Output {
    let agent = world.node.prestage(["fetch"]);
    let mut strace = command("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
    strace.arg("-e").arg(format!("inject={call}:signal=KILL:when={n}"));
    strace.arg(agent.get_program()).args(agent.get_args());
    run(&mut strace)
}

/// One interruption; whether there was one.
fn interrupt(world: &mut World, random: &mut Random, step: u64) -> bool {
    let after = 1 + random.below(step);
    let cut =
        |how| Behaviour { cuts: [Cut { suffix: BUNDLE.into(), after, how }].into(), ..Behaviour::default() };
    match random.below(5) {
        // The line.
        0 | 1 => {
            let how = if random.below(2) == 0 { CutKind::Reset } else { CutKind::Close };
            world.mirror.behave(cut(how));
            // It goes on by itself; so it is stopped a little later, which is the next interruption.
            let cut = Cut { suffix: BUNDLE.into(), after: 1, how: CutKind::Stall };
            let mut behaviour = Behaviour::default();
            behaviour.cuts.push_back(Cut { suffix: BUNDLE.into(), after, how });
            behaviour.cuts.push_back(cut);
            world.mirror.behave(behaviour);
            kill_when_stalled(world)
        }
        // kill -9 in the middle of the transfer, the mirror restarted with it.
        2 => {
            world.mirror.behave(cut(CutKind::Stall));
            let killed = kill_when_stalled(world);
            world.mirror.restart().expect("the same port");
            killed
        }
        // kill -9 between a write and the sync after it, or before a name is given.
        3 => {
            world.mirror.behave(Behaviour::default());
            let call = ["fdatasync", "fsync", "rename"][random.below(3) as usize];
            killed_at(world, call, 1 + random.below(6)).signal.is_some()
        }
        // kill -9 between two writes.
        _ => {
            world.mirror.behave(Behaviour::default());
            killed_at(world, "write", 20 + random.below(40)).signal.is_some()
        }
    }
}

fn kill_when_stalled(world: &World) -> bool {
    let mut agent = Running::start(&mut world.node.prestage(["fetch"]));
    until("stalled or ended", PATIENCE, || world.mirror.is_stalled() || agent.has_ended());
    let ended = agent.kill();
    world.mirror.release();
    ended.signal.is_some()
}

fn interrupted(times: u64) {
    let mut world = World::new();
    let mut random = Random::from_environment("interrupted");
    let needed = world.bytes_needed();
    let (mut interruptions, mut whole, mut twice, mut worst) = (0, 0, 0, 0);
    while interruptions < times {
        // From nothing to all, with interruptions every now and then; and again.
        let _ = std::fs::remove_dir_all(world.node.path("/var/lib/prestage"));
        world.mirror.forget();
        let mut here = 0;
        while interruptions + here < times && interrupt(&mut world, &mut random, needed / 12) {
            here += 1;
        }
        world.mirror.behave(Behaviour::default());
        run(&mut world.node.prestage(["fetch"])).expect(0);
        world.assert_staged_is_right();
        let sent = world.bundle_bytes_sent();
        assert!(sent >= needed, "{sent} of {needed} bytes");
        let cost = sent - needed;
        assert!(cost <= TWICE * here.max(1), "{cost} bytes twice in {here} interruptions");
        worst = worst.max(cost / here.max(1));
        (interruptions, whole, twice) = (interruptions + here, whole + 1, twice + cost);
    }
    let each = twice / interruptions;
    eprintln!(
        "{interruptions} interruptions of {whole} fetches: {each} bytes twice for each, {worst} in the worst fetch"
    );
}

#[test]
fn random_interruptions_cost_at_most_64_kib_each() {
    interrupted(12);
}

#[test]
#[ignore = "minutes: make test-long"]
fn a_hundred_random_interruptions_cost_at_most_64_kib_each() {
    interrupted(100);
}

#[test]
fn what_a_power_cut_tears_costs_a_block() {
    let world = World::new();
    world.mirror.behave(Behaviour {
        cuts: [Cut { suffix: BUNDLE.into(), after: 2_600_000, how: CutKind::Stall }].into(),
        ..Behaviour::default()
    });
    assert!(kill_when_stalled(&world));
    let before = world.bundle_bytes_sent();
    // The file's length was on the disk, its last pages were not.
    let digest = world.centre.member("till-data").sha256;
    let partial = world.node.path(&format!("/var/lib/prestage/fetch/store/{digest}.partial"));
    let length = std::fs::metadata(&partial).expect("a partial file").len();
    let file = std::fs::File::options().write(true).open(&partial).expect("a partial file");
    file.set_len(length - 300_000).and_then(|()| file.set_len(length)).expect("a torn file");
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let twice = world.bundle_bytes_sent() - world.bytes_needed();
    eprintln!("{before} bytes before the cut, {twice} bytes twice");
    assert!(twice <= 2 * format::index::BLOCK + TWICE, "{twice} bytes twice");
    assert!(world.node.status().status.mirrors_aside.is_empty(), "no mirror is to blame");
}
