//! Keys that another program holds: a real ssh-agent, openssl, and programs that misbehave.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its world fails")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{World, files, tool};

/// One of the programs in packaging/signers.
fn shipped(name: &str) -> String {
    let signers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/signers");
    signers.canonicalize().unwrap().join(name).to_str().unwrap().to_owned()
}

const ROLES: [&str; 6] = ["root", "targets", "bundles", "policies", "snapshot", "timestamp"];

/// `root init` of `repo` with a signer file for each role.
fn init(world: &World, signer: impl Fn(&str) -> String) -> common::Run {
    let options: Vec<[String; 2]> =
        ROLES.iter().map(|role| [format!("--{role}-key"), signer(role)]).collect();
    let options: Vec<&str> = options.iter().flatten().map(String::as_str).collect();
    world.run(&[&["root", "init", "repo"], &options[..]].concat())
}

/// An ssh-agent of the test's own, which goes with it.
struct Agent {
    socket: PathBuf,
    process: std::process::Child,
}

impl Agent {
    fn new(world: &World) -> Self {
        let socket = world.path("agent.sock");
        let process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("ssh-agent (openssh-client)");
        let mut agent = Agent { socket, process };
        // It says where it listens once it does.
        let said = agent.process.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut String::new()).unwrap();
        agent
    }

    /// A new key in the agent alone; its public half in hexadecimal.
    fn key(&self, world: &World, name: &str) -> String {
        tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name], &world.path(""));
        self.run("ssh-add", &["-q", name], world);
        fs::remove_file(world.path(name)).unwrap();
        let listed = self.run(&shipped("ssh-agent"), &["--list"], world);
        let line = listed.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{listed}"));
        line.split(' ').next().unwrap().to_owned()
    }

    /// Runs a program that knows the agent and expects success.
    fn run(&self, program: &str, args: &[&str], world: &World) -> String {
        let mut command = Command::new(program);
        command.args(args).current_dir(world.path("")).env("SSH_AUTH_SOCK", &self.socket);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{program} {args:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_role_is_signed_by_a_real_ssh_agent_and_a_node_accepts_the_result() {
    let world = World::new();
    let agent = Agent::new(&world);
    let prestage = |args: &[&str]| agent.run(env!("CARGO_BIN_EXE_prestage-build"), args, &world);
    for role in ROLES {
        let (file, public) = (format!("{role}.signer"), agent.key(&world, role));
        prestage(&["key", "signer", &file, "--public", &public, "--", &shipped("ssh-agent")]);
        let shown = prestage(&["key", "show", &file]);
        assert!(shown.contains(&public) && shown.contains("signers/ssh-agent"), "{shown}");
    }
    let mut init = vec!["root", "init", "repo"];
    let options: Vec<[String; 2]> =
        ROLES.iter().map(|role| [format!("--{role}-key"), format!("{role}.signer")]).collect();
    init.extend(options.iter().flatten().map(String::as_str));
    prestage(&init);
    world.bundle("out", "1");
    prestage(&["sign", "repo", "out", "--key", "bundles.signer"]);
    let online = ["--snapshot-key", "snapshot.signer", "--timestamp-key", "timestamp.signer"];
    prestage(&[&["publish", "repo", "out"][..], &online].concat());
    prestage(&[&["refresh-timestamp", "repo"][..], &online, &["--snapshot-days", "60"]].concat());
    assert_eq!(world.node(1).unwrap().targets("bundles").unwrap().targets.len(), 2);

    // A key goes to another holder: from the agent to a file.
    world.keys(&["root2"]);
    prestage(&["root", "rotate", "repo", "--role", "root", "--old", "root.signer", "--new", "keys/root2"]);
    prestage(&["root", "sign", "repo", "--key", "root.signer", "--key", "keys/root2"]);
    prestage(&[&["publish", "repo"][..], &online].concat());
    assert_eq!(world.node(1).unwrap().root().header.version, 2);
    world.ok(&["check", "repo", "--full"]);

    // The agent without its keys, and no agent at all.
    agent.run("ssh-add", &["-q", "-D"], &world);
    let mut refresh = Command::new(env!("CARGO_BIN_EXE_prestage-build"));
    refresh
        .args(["refresh-timestamp", "repo", "--timestamp-key", "timestamp.signer"])
        .current_dir(world.path(""));
    for (socket, words) in
        [(agent.socket.as_path(), "does not sign with SHA256:"), (Path::new("/nowhere"), "cannot be reached")]
    {
        let output = refresh.env("SSH_AUTH_SOCK", socket).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(69) && said.contains(words), "{said}");
    }
}

#[test]
fn openssl_signs_for_every_role_and_a_node_accepts_the_result() {
    let world = World::new();
    let folder = world.path("tokens");
    fs::create_dir(&folder).unwrap();
    for role in ROLES {
        tool("openssl", &["genpkey", "-algorithm", "ed25519", "-out", role], &folder);
        tool("openssl", &["pkey", "-in", role, "-pubout", "-out", &format!("{role}.public")], &folder);
        let (file, public) = (format!("tokens/{role}.signer"), format!("tokens/{role}.public"));
        // The key's path is relative: the program runs beside the signer file, wherever it is called from.
        world.ok(&["key", "signer", &file, "--public", &public, "--", &shipped("openssl"), role]);
        assert_eq!(
            world.ok(&["--json", "key", "show", &file]).json()["keyid"],
            world.ok(&["--json", "key", "show", &public]).json()["keyid"]
        );
    }
    let run = init(&world, |role| format!("tokens/{role}.signer"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    world.bundle("out", "1");
    world.ok(&["sign", "repo", "out", "--key", "tokens/bundles.signer"]);
    let online = ["--snapshot-key", "tokens/snapshot.signer", "--timestamp-key", "tokens/timestamp.signer"];
    world.ok(&[&["publish", "repo", "out"][..], &online].concat());
    world.ok(&[&["refresh-timestamp", "repo"][..], &online].concat());
    world.node(1).unwrap();
    // Nothing was signed in vain: the same key in a file gives the same signature, as Ed25519 is deterministic.
    world.ok(&["root", "renew", "repo", "--role", "targets"]);
    world.ok(&["root", "sign", "repo", "--key", "tokens/targets.signer"]);
    let pending = fs::read(world.path("repo.pending/targets.json")).unwrap();
    world.ok(&["root", "sign", "repo", "--key", "tokens/targets"]);
    assert_eq!(fs::read(world.path("repo.pending/targets.json")).unwrap(), pending);
}

/// A signer file whose program is this shell script.
fn script(world: &World, name: &str, script: &str, public: &str) {
    let program = world.path(&format!("{name}.sh"));
    fs::write(&program, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let command = format!("./{name}.sh");
    world.ok(&["key", "signer", name, "--public", public, "--timeout-seconds", "1", "--", &command]);
}

#[test]
fn a_program_that_misbehaves_signs_nothing_and_is_named_with_the_reason() {
    let world = World::new();
    world.repository();
    world.release("1");
    let before = files(&world.path("repo"));
    let timestamp = fs::read(world.path("repo/metadata/timestamp.json")).unwrap();
    let zeros = "0".repeat(128);
    for (name, code, words, text) in [
        ("all-zero", 65, "is wrong: the pinned key", format!("echo '{{\"signature\":\"{zeros}\"}}'")),
        ("short", 65, "128 hexadecimal digits", "echo '{\"signature\":\"00\"}'".to_owned()),
        ("garbage", 65, "is no answer", "echo hello".into()),
        ("nothing", 65, "is no answer", "true".into()),
        ("both", 65, "exactly one", format!("echo '{{\"signature\":\"{zeros}\",\"error\":\"x\"}}'")),
        ("neither", 65, "exactly one", "echo '{}'".into()),
        ("more", 65, "is no answer", format!("echo '{{\"signature\":\"{zeros}\",\"x\":1}}'")),
        (
            "two-answers",
            65,
            "is no answer",
            format!("for i in 1 2; do echo '{{\"signature\":\"{zeros}\"}}'; done"),
        ),
        ("endless", 65, "more than 65536 bytes", "exec yes".into()),
        ("endless-blanks", 65, "more than 65536 bytes", "yes '' | tr -d x".into()),
        ("hangs", 69, "after 1 s and was killed", "sleep 1000".into()),
        ("hangs-closed", 69, "after 1 s and was killed", "exec sleep 1000 >&- 2>&- <&-".into()),
        ("exit-1", 69, "exit status: 1", "echo the token is not there >&2; exit 1".into()),
        ("crash", 69, "signal: 9", "kill -9 $$".into()),
        ("error", 69, "says: PIN is locked", "printf '{\"error\":\"PIN is\\\\nlocked\"}'".into()),
    ] {
        script(&world, name, &text, "keys/timestamp.pub");
        let begun = Instant::now();
        let said = world.fails(code, &["refresh-timestamp", "repo", "--timestamp-key", name]);
        assert!(
            said.contains(words) && said.contains("timestamp.json version 3 was not signed"),
            "{name}: {said}"
        );
        assert!(said.contains(name) && !said.contains('\x1b'), "{name}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{name}");
        assert_eq!(files(&world.path("repo")), before, "{name}");
    }
    let said = world.fails(69, &["refresh-timestamp", "repo", "--timestamp-key", "exit-1"]);
    assert!(said.starts_with("the token is not there\n"), "its own words are passed on: {said}");
    // Another key signs: openssl does, but not with the key that is pinned.
    world.ok(&[
        "key",
        "signer",
        "other",
        "--public",
        "keys/timestamp.pub",
        "--",
        &shipped("openssl"),
        "keys/root",
    ]);
    let said = world.fails(65, &["refresh-timestamp", "repo", "--timestamp-key", "other"]);
    assert!(said.contains("is wrong: the pinned key"), "{said}");
    world.ok(&["key", "signer", "gone", "--public", "keys/timestamp.pub", "--", "./gone.sh"]);
    let said = world.fails(69, &["refresh-timestamp", "repo", "--timestamp-key", "gone"]);
    assert!(said.contains("could not be started") && said.contains("./gone.sh"), "{said}");
    assert_eq!(fs::read(world.path("repo/metadata/timestamp.json")).unwrap(), timestamp);
    world.node(1).unwrap();
}

#[test]
fn a_root_init_whose_signer_fails_can_be_run_again() {
    let world = World::new();
    world.keys(&ROLES);
    let public = "keys/targets.pub";
    world.ok(&["key", "signer", "targets", "--public", public, "--", "./absent"]);
    let key = |role: &str| if role == "targets" { role.to_owned() } else { format!("keys/{role}") };
    let run = init(&world, key);
    assert!(run.code == 69 && run.stderr.contains("targets.json version 1 was not signed"), "{}", run.stderr);
    assert!(!world.path("repo").exists());
    std::os::unix::fs::symlink(shipped("openssl"), world.path("absent")).unwrap();
    fs::remove_file(world.path("targets")).unwrap();
    world.ok(&["key", "signer", "targets", "--public", public, "--", "./absent", "keys/targets"]);
    let run = init(&world, key);
    assert_eq!(run.code, 0, "{}", run.stderr);
    world.node(1).unwrap();
}

#[test]
fn a_signer_file_that_breaks_a_rule_is_refused() {
    let world = World::new();
    world.keys(&["k"]);
    world.ok(&[
        "key",
        "signer",
        "good",
        "--public",
        "keys/k",
        "--",
        "/bin/true",
        "a \"quoted\" \\ word",
        "ü",
    ]);
    let good = fs::read_to_string(world.path("good")).unwrap();
    let shown = world.ok(&["--json", "key", "show", "good"]).json();
    assert_eq!(shown["command"][1], "a \"quoted\" \\ word");
    assert_eq!(shown["keyid"], world.ok(&["--json", "key", "show", "keys/k"]).json()["keyid"]);
    world.fails(64, &["key", "signer", "good", "--public", "keys/k", "--", "/bin/true"]);
    for (words, from, to) in [
        ("version 1", "signer = 1", "signer = 2"),
        ("does not say signer", "signer = 1\n", ""),
        ("unknown field", "timeout-seconds", "timeout"),
        ("64 hexadecimal digits", "public-key = \"", "public-key = \"0"),
        ("missing field", "public-key", "#"),
        ("timeout-seconds", "= 60", "= 0"),
        ("timeout-seconds", "= 60", "= 3601"),
        ("is a name", "/bin/true", "true"),
        ("command is empty", "command = [", "command = [] #"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        fs::write(world.path("bad"), bad).unwrap();
        let said = world.fails(78, &["key", "show", "bad"]);
        assert!(said.contains(words), "{from} → {to}: {said}");
    }
    for mode in [0o664, 0o646] {
        fs::set_permissions(world.path("good"), fs::Permissions::from_mode(mode)).unwrap();
        let said = world.fails(78, &["key", "show", "good"]);
        assert!(said.contains("others may write it"), "{said}");
    }
    world.fails(64, &["key", "signer", "name", "--public", "keys/k", "--", "true"]);
    world.fails(64, &["key", "signer", "none", "--public", "keys/k"]);
    assert!(!world.path("name").exists());
}

#[test]
fn what_the_program_is_asked_says_what_it_signs() {
    let world = World::new();
    world.repository();
    let text = format!("tee question | {} keys/timestamp", shipped("openssl"));
    let public = world.ok(&["--json", "key", "show", "keys/timestamp.pub"]).json();
    script(&world, "asked", &text, "keys/timestamp.pub");
    world.ok(&["refresh-timestamp", "repo", "--timestamp-key", "asked"]);
    let text = fs::read_to_string(world.path("question")).unwrap();
    let question: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (member, value) in [
        ("signer", serde_json::json!(1)),
        ("role", "timestamp".into()),
        ("file", "timestamp.json version 2".into()),
        ("scheme", "ed25519".into()),
        ("publicKey", public["public"].clone()),
        ("keyid", public["keyid"].clone()),
    ] {
        assert_eq!(question[member], value, "{text}");
    }
    // The message is the canonical JSON that stands in the published file.
    let mut decode =
        Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    decode.stdin.take().unwrap().write_all(question["message"].as_str().unwrap().as_bytes()).unwrap();
    let message = String::from_utf8(decode.wait_with_output().unwrap().stdout).unwrap();
    let published = fs::read_to_string(world.path("repo/metadata/timestamp.json")).unwrap();
    assert!(message.starts_with("{\"_type\":\"timestamp\"") && published.contains(&message), "{message}");
}

#[test]
fn a_program_may_ask_for_a_pin_on_the_operators_terminal() {
    let world = World::new();
    world.repository();
    let text =
        format!("read -r pin </dev/tty; [ \"$pin\" = 1234 ] && exec {} keys/timestamp", shipped("openssl"));
    script(&world, "pin", &text, "keys/timestamp.pub");
    let program = env!("CARGO_BIN_EXE_prestage-build");
    // script(1) gives its child a terminal of its own, with this test as the operator.
    for (pin, code) in [("1234\n", 0), ("4321\n", 69)] {
        let mut child = Command::new("script")
            .args(["-qec", &format!("{program} refresh-timestamp repo --timestamp-key pin"), "/dev/null"])
            .current_dir(world.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(pin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stdout));
    }
    world.node(1).unwrap();
}
