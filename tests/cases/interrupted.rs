//! The agent dies in the middle of an install: whatever it left half-done, the next run brings to its end.

use format::report::Outcome;
use format::status::State;
use lab::debs::Deb;
use lab::sandbox::{Running, run};
use lab::server::PATIENCE;
use lab::wait::until;
use lab::world::World;

/// A world whose update stops in its postinst until `/go` is there.
fn stopping() -> World {
    let wait = "touch /reached; while [ ! -e /go ]; do sleep 0.05; done";
    World::with(
        &[Deb::new("till-app", "1.0"), Deb::new("till-lib", "1.0")],
        &[Deb::new("till-app", "2.0").script("postinst", wait), Deb::new("till-lib", "2.0")],
    )
}

/// Programs whose root is this world's node: what the agent started and left behind.
fn left_behind(world: &World) -> Vec<i32> {
    let root = std::fs::canonicalize(world.node.root()).expect("the node's root");
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
    // The whole path, which holds the name of this case's own folder: others run at the same time.
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|at| at == root)).collect()
}

fn kill_in_the_middle(world: &World) {
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let agent = Running::start(&mut world.node.prestage(["install", "--now"]));
    until("the postinst to begin", PATIENCE, || world.node.path("/reached").exists());
    agent.kill();
    // Whatever was said before the kill, it is not that the node is patched.
    let status = world.node.status().status;
    assert_eq!(status.state, State::Installing);
    assert!(status.installed.is_none());
}

fn assert_went_on(world: &World) {
    run(&mut world.node.prestage(["install"])).expect(0);
    assert_eq!(
        (world.node.version("till-app").as_str(), world.node.version("till-lib").as_str()),
        ("2.0", "2.0")
    );
    let install = world.node.status().status.install.expect("the install step");
    assert_eq!((install.outcome, install.exit_code), (Outcome::Installed, 0));
    assert!(
        !world.node.path("/var/lib/prestage/private/journal.json").exists(),
        "nothing is left to recover"
    );
    run(&mut world.node.prestage(["run"])).expect(0);
}

#[test]
fn an_agent_killed_while_the_package_manager_works_lets_it_finish_and_goes_on() {
    let world = stopping();
    kill_in_the_middle(&world);
    // The package manager was not killed with it. While it is at work, nothing is decided about the install.
    assert!(!left_behind(&world).is_empty(), "the package manager died with the agent");
    world.configure("[install]\nlock-timeout-seconds = 1\n");
    run(&mut world.node.prestage(["install"])).expect(1).says(&["another package manager"]);
    assert!(world.node.path("/var/lib/prestage/private/journal.json").exists(), "the install was given up");
    // It ends by itself, and is waited for.
    world.configure("");
    world.node.write("/go", "");
    assert_went_on(&world);
}

#[test]
fn an_install_of_which_everything_was_killed_is_repaired_and_finished() {
    let world = stopping();
    kill_in_the_middle(&world);
    // As when the power goes: the package manager and its scripts too.
    let kill = |pid| {
        // It may have ended meanwhile.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    };
    until("everything to be dead", PATIENCE, || {
        let left = left_behind(&world);
        left.iter().copied().for_each(kill);
        left.is_empty()
    });
    assert!(
        world.node.version("till-app").starts_with("2.0 "),
        "half-configured: {}",
        world.node.version("till-app")
    );
    world.node.write("/go", "");
    assert_went_on(&world);
}
