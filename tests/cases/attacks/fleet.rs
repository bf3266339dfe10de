//! The centre's end of reports, in other hands: it hears how nodes are, and has no way to tell them anything. It may not
//! answer, and a node's report waits.

use std::time::Duration;

use lab::attack::{Attack, Ended, Stage};
use lab::node::User;
use lab::server::{Behaviour, Raw};
use serde_json::json;

/// The address to which reports go.
const PATH: &str = "/reports";

/// Why a report that is not taken is no matter of trust.
const WAITS: &str = "the report waits";

/// Sends the report of the fetch to a server that answers so.
fn answered(stage: &Stage, first: impl Into<Vec<u8>>, then: &[u8], pause: Duration) -> Ended {
    let raw = Raw { suffix: PATH.into(), first: first.into(), then: then.to_vec(), pause };
    stage.fleet.behave(Behaviour { raw: Some(raw), ..Behaviour::default() });
    reported(stage)
}

fn reported(stage: &Stage) -> Ended {
    let waiting =
        |s: &Stage| std::fs::read_dir(s.node().path("/var/lib/prestage/reports")).map_or(0, Iterator::count);
    let before = waiting(stage);
    let ended = stage.agent(User::Prestage, &["report"]);
    if before != 1 || (ended.code() != Some(0) && waiting(stage) != before) {
        stage.fault(format!("{before} reports waited, and now {} do", waiting(stage)));
    }
    if !stage.world.mirror.exchanges().is_empty() || !stage.elsewhere.exchanges().is_empty() {
        stage.fault("the agent asked somebody else for something");
    }
    ended
}

/// The shortest time-out.
fn impatient(stage: &Stage) {
    stage.configure("[fetch]\nstall-timeout-seconds = 1\n");
}

/// The head of an answer.
fn head(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect::<String>() + "\r\n"
}

pub fn attacks() -> Vec<Attack> {
    let waits = |name, how, says, act| Attack::new(name, how, 69, says, act).when_fetched().because(WAITS);
    vec![
        waits("fleet: redirect", "to another host", &["307"], |s| {
            let location = format!("Location: {}", s.elsewhere.url());
            let first = head(&["HTTP/1.1 307 Temporary Redirect", &location, "Content-Length: 0"]);
            answered(s, first, b"", Duration::ZERO)
        }),
        waits("fleet: endless answer", "a body that never ends, and an error", &["500"], |s| {
            let first = head(&["HTTP/1.1 500 Oops", "Content-Length: 9223372036854775807"]);
            answered(s, first, &[b'x'; 4096], Duration::ZERO)
        }),
        waits("fleet: endless headers", "header lines without end", &["header"], |s| {
            answered(s, "HTTP/1.1 200 OK\r\n", b"X-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", Duration::ZERO)
        }),
        waits("fleet: endless interim answers", "100 Continue, again and again", &["did not take"], |s| {
            answered(s, "", b"HTTP/1.1 100 Continue\r\n\r\n", Duration::ZERO)
        })
        .arranged(impatient),
        waits("fleet: slow loris", "a header byte every 0.4 s", &["no answer in time"], |s| {
            answered(s, "HTTP/1.1 200 OK\r\nX: ", b"x", Duration::from_millis(400))
        })
        .arranged(impatient),
        waits("fleet: no HTTP at all", "random bytes", &["did not take"], |s| {
            answered(s, lab::random::Random::new(8).bytes(5000), b"", Duration::ZERO)
        }),
        waits(
            "fleet: a header that is none",
            "a NUL in its value, and a line that is none",
            &["did not take"],
            |s| answered(s, head(&["HTTP/1.1 200 OK", "X: \0", "Broken"]), b"", Duration::ZERO),
        ),
        waits("fleet: come again in a thousand years", "503 and Retry-After", &["503"], |s| {
            let first = head(&["HTTP/1.1 503 Busy", "Retry-After: 31536000000", "Content-Length: 0"]);
            answered(s, first, b"", Duration::ZERO)
        }),
        Attack::new(
            "fleet: a command",
            "202, and what to install from where in head and body",
            0,
            &[],
            |s| {
                let body = json!({ "install": lab::world::VERSION, "mirror": s.elsewhere.url() }).to_string();
                let length = format!("Content-Length: {}", body.len());
                let first = head(&["HTTP/1.1 202 Accepted", "X-Prestage-Install: now", &length]);
                answered(s, first + &body, b"", Duration::ZERO)
            },
        )
        .when_fetched()
        .because("the report is taken; nothing but the status is read"),
    ]
}
