//! A mirror that speaks HTTP as nobody should: it wants the node to wait for ever, to fill its memory, or to take one
//! thing for another.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use lab::attack::{Attack, Ended, Stage};
use lab::random::Random;
use lab::sandbox::{command, succeed};
use lab::server::{Behaviour, Cut, CutKind, Raw};

const BUNDLE: &str = ".bundle.tar.gz";

/// An answer that begins well and never ends.
pub fn endless(suffix: &str) -> Raw {
    Raw {
        suffix: suffix.to_owned(),
        first: b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{\"signed\":\"".to_vec(),
        then: vec![b'x'; 4096],
        pause: Duration::ZERO,
    }
}

/// Answers every request for a path that ends so with these bytes.
fn raw(stage: &Stage, suffix: &str, first: impl Into<Vec<u8>>, then: &[u8], pause: Duration) {
    let raw = Raw { suffix: suffix.to_owned(), first: first.into(), then: then.to_vec(), pause };
    stage.mirror(Behaviour { raw: Some(raw), ..Behaviour::default() });
}

/// The shortest stall timeout that there is, so that these attacks take no longer than they must.
fn impatient(stage: &Stage) {
    stage.configure("[fetch]\nstall-timeout-seconds = 1\n");
}

/// Between two bytes of a slow loris: no single pause is as long as a stall.
const DRIBBLE: Duration = Duration::from_millis(400);

pub fn attacks() -> Vec<Attack> {
    let denial = |attack: Attack| attack.because(super::DENIAL);
    vec![
        denial(Attack::new(
            "redirect to another host",
            "302 to the same file elsewhere",
            69,
            &["redirected"],
            |s| {
                s.mirror(Behaviour { redirect_to: Some(s.elsewhere.url()), ..Behaviour::default() });
                not_elsewhere(s, |s| s.fetch())
            },
        )),
        denial(Attack::new(
            "redirect from https to http",
            "302 to the same file without TLS",
            69,
            &["redirected"],
            |s| {
                let there = format!("Location: {}metadata/2.root.json", s.elsewhere.url());
                let mirror = Tls::start(
                    s,
                    "mirror",
                    &format!("HTTP/1.1 302 Found\r\n{there}\r\nContent-Length: 0\r\n\r\n"),
                );
                not_elsewhere(s, |s| mirror.fetch(s))
            },
        )),
        denial(Attack::new(
            "another's certificate",
            "TLS by somebody whom the node's authorities do not know",
            69,
            &["certificate"],
            |s| Tls::start(s, "somebody", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").fetch(s),
        )),
        denial(
            Attack::new(
                "slow loris: the head",
                "a header byte every 0.4 s",
                69,
                &["no answer in time"],
                |s| {
                    raw(s, "2.root.json", "HTTP/1.1 200 OK\r\nX: ", b"x", DRIBBLE);
                    s.fetch()
                },
            )
            .arranged(impatient),
        ),
        denial(
            Attack::new(
                "slow loris: metadata",
                "a byte of timestamp.json every 0.4 s",
                69,
                &["too slow"],
                |s| {
                    raw(
                        s,
                        "timestamp.json",
                        "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
                        b"x",
                        DRIBBLE,
                    );
                    s.fetch()
                },
            )
            .arranged(impatient),
        ),
        denial(
            Attack::new("slow loris: a bundle", "a byte of it every 0.4 s", 69, &["too slow"], |s| {
                s.mirror(Behaviour { dribble: Some((BUNDLE.into(), DRIBBLE)), ..Behaviour::default() });
                s.fetch()
            })
            .arranged(impatient),
        ),
        denial(Attack::new(
            "slow loris: one byte for each connection",
            "closed after each byte",
            69,
            &["bundle.tar.gz", "disconnected"],
            |s| {
                let cut = Cut { suffix: BUNDLE.into(), after: 1, how: CutKind::Close };
                s.mirror(Behaviour {
                    cuts: std::iter::repeat_n(cut, 1000).collect(),
                    ..Behaviour::default()
                });
                s.fetch()
            },
        )),
        denial(
            Attack::new(
                "stall",
                "silence after every 1,000 bytes of the bundle",
                69,
                &["bundle.tar.gz", "timeout"],
                |s| {
                    let cut = Cut { suffix: BUNDLE.into(), after: 1000, how: CutKind::Stall };
                    s.mirror(Behaviour {
                        cuts: std::iter::repeat_n(cut, 1000).collect(),
                        ..Behaviour::default()
                    });
                    s.fetch()
                },
            )
            .arranged(impatient),
        ),
        denial(Attack::new("endless headers", "header lines without end", 69, &["2.root.json"], |s| {
            raw(
                s,
                "2.root.json",
                "HTTP/1.1 200 OK\r\n",
                b"X-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
                Duration::ZERO,
            );
            s.fetch()
        })),
        denial(
            Attack::new(
                "endless interim answers",
                "100 Continue, again and again",
                69,
                &["2.root.json"],
                |s| {
                    raw(s, "2.root.json", "", b"HTTP/1.1 100 Continue\r\n\r\n", Duration::ZERO);
                    s.fetch()
                },
            )
            .arranged(impatient),
        ),
        denial(Attack::new("impossible chunks", "a chunk of 2^64-1 bytes", 69, &["timestamp.json"], |s| {
            raw(
                s,
                "timestamp.json",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx",
                b"",
                Duration::ZERO,
            );
            s.fetch()
        })),
        denial(Attack::new("a length that is none", "Content-Length: -1", 69, &["timestamp.json"], |s| {
            raw(s, "timestamp.json", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"", Duration::ZERO);
            s.fetch()
        })),
        denial(Attack::new("no HTTP at all", "random bytes on the connection", 69, &["2.root.json"], |s| {
            raw(s, "2.root.json", Random::new(9).bytes(5000), b"", Duration::ZERO);
            s.fetch()
        })),
        denial(Attack::new(
            "compressed on the way",
            "Content-Encoding: gzip, and a gzip bomb in it",
            69,
            &["content encoding"],
            |s| {
                let bomb = lab::forge::deflated(&vec![0; 1 << 24]);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                    bomb.len()
                );
                raw(s, "timestamp.json", [head.into_bytes(), bomb].concat(), b"", Duration::ZERO);
                s.fetch()
            },
        )),
        denial(Attack::new(
            "a part that nobody asked for",
            "206 for timestamp.json",
            69,
            &["timestamp.json", "206"],
            |s| {
                raw(
                    s,
                    "timestamp.json",
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 2\r\n\r\n{}",
                    b"",
                    Duration::ZERO,
                );
                s.fetch()
            },
        )),
        denial(Attack::new(
            "not changed, says the mirror",
            "304 to whoever asked for no condition",
            69,
            &["timestamp.json", "304"],
            |s| {
                raw(s, "timestamp.json", "HTTP/1.1 304 Not Modified\r\n\r\n", b"", Duration::ZERO);
                s.fetch()
            },
        )),
        denial(Attack::new(
            "another range",
            "bytes 7 later than asked for, and it says so",
            69,
            &["another range"],
            |s| {
                s.mirror(Behaviour { shift_range: 7, ..Behaviour::default() });
                s.fetch()
            },
        )),
        Attack::new(
            "another range, and a lie",
            "other bytes under the range that was asked for",
            2,
            &["damaged"],
            |s| {
                let index = s.centre().index();
                let asked = index.metadata().filter_map(|m| m.whole()).map(|e| e.offset + e.length).max();
                let asked = asked.expect("metadata, which is asked for first");
                let range = format!("Content-Range: bytes 0-{}/{}", asked - 1, index.bundle.length);
                let head =
                    format!("HTTP/1.1 206 Partial Content\r\n{range}\r\nContent-Length: {asked}\r\n\r\n");
                let body = Random::new(5).bytes(asked as usize);
                raw(s, BUNDLE, [head.into_bytes(), body].concat(), b"", Duration::ZERO);
                s.fetch()
            },
        ),
        denial(Attack::new(
            "a range without end",
            "bytes 0-18446744073709551615/*, for ever",
            69,
            &["another range"],
            |s| {
                let range = "Content-Range: bytes 0-18446744073709551615/*";
                let head = format!("HTTP/1.1 206 Partial Content\r\n{range}\r\n\r\n");
                raw(s, BUNDLE, head, &[0; 4096], Duration::ZERO);
                s.fetch()
            },
        )),
        denial(Attack::new(
            "more than was asked for",
            "1,000 bytes behind each range",
            69,
            &["another range"],
            |s| {
                s.mirror(Behaviour { extra: 1000, ..Behaviour::default() });
                s.fetch()
            },
        )),
        Attack::new(
            "more than it said",
            "garbage behind the body, as if it were another answer",
            0,
            &["staged"],
            |s| {
                s.mirror(Behaviour { trailing_garbage: true, ..Behaviour::default() });
                s.fetch()
            },
        )
        .stages_what_is_right("what was asked for is right; the rest is not read"),
        Attack::new(
            "all instead of a part",
            "200 and the whole bundle for every range",
            0,
            &["staged"],
            |s| {
                s.mirror(Behaviour { ignore_range: true, ..Behaviour::default() });
                s.fetch()
            },
        )
        .stages_what_is_right("what was asked for is in it, and right"),
    ]
}

/// The other host must not be asked for anything.
fn not_elsewhere(stage: &Stage, act: impl Fn(&Stage) -> Ended) -> Ended {
    let ended = act(stage);
    let asked = stage.elsewhere.exchanges();
    if !asked.is_empty() {
        stage.fault(format!("the agent went where it was sent: {asked:?}"));
    }
    ended
}

/// A mirror that speaks TLS, by openssl. It ends with the value.
struct Tls {
    child: Child,
    port: String,
    /// Open, because openssl goes on to say what it does.
    _said: BufReader<ChildStdout>,
}

impl Tls {
    /// Serves, with the certificate of `who`, this answer for the first file that a node asks for. The authority that
    /// knows `mirror` is known to the node; the one that knows `somebody` is not.
    fn start(stage: &Stage, who: &str, answer: &str) -> Tls {
        let folder = stage.world.sandbox.path().join("tls");
        fs::create_dir_all(folder.join("metadata")).expect("a folder");
        fs::write(folder.join("metadata/2.root.json"), answer).expect("an answer");
        let certify = |of: &str, more: &[&str]| {
            let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
            let (key_file, file, subject) = (format!("{of}.key"), format!("{of}.pem"), format!("/CN={of}"));
            let mut openssl = command("openssl");
            openssl.args(["req", "-x509", "-subj", &subject, "-keyout", &key_file, "-out", &file]).args(key);
            succeed(openssl.args(more).current_dir(&folder));
        };
        certify("mirror-authority", &[]);
        certify("somebody-authority", &[]);
        let authority = |suffix: &str| format!("{who}-authority.{suffix}");
        let server =
            ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
        certify(who, &[&["-CA", &authority("pem"), "-CAkey", &authority("key")][..], &server].concat());
        let known = fs::read(folder.join("mirror-authority.pem")).expect("a certificate");
        stage.node().write("/run/prestage/ca.pem", known);

        let mut openssl = command("openssl");
        openssl.args(["s_server", "-accept", "127.0.0.1:0", "-HTTP"]);
        openssl.args(["-cert", &format!("{who}.pem"), "-key", &format!("{who}.key")]);
        let mut child = openssl
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let port = said.by_ref().lines().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.strip_prefix("ACCEPT ")?.rsplit_once(':')?;
            Some(port.to_owned())
        });
        Tls { child, port: port.expect("openssl listens"), _said: said }
    }

    /// Fetches from there.
    fn fetch(&self, stage: &Stage) -> Ended {
        let config = stage.world.sandbox.path().join("tls.toml");
        let repository =
            format!("mirrors = [\"https://127.0.0.1:{}/\"]\nca-file = \"/run/prestage/ca.pem\"", self.port);
        fs::write(&config, format!("[node]\nid = \"test-node\"\n[repository]\n{repository}\n"))
            .expect("a file");
        stage.outside(&["--config", &config.to_string_lossy(), "fetch"])
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
