//! The fetcher against mirrors that fail on order, to the byte. The same over real sockets is in `tests/`.

use std::cell::RefCell;
use std::io::{self, Read};
use std::time::Duration;

use format::API_VERSION;
use format::container::{Encoding, Entry, write_deflated, write_end, write_stored};
use format::index::{BLOCK, BundleFile, Family, KIND, MemberKind, Package, Source};
use format::time::UnixTime;

use super::writer::digest_of;
use super::*;
use std::path::{Path, PathBuf};

/// Time passes only in sleep.
struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> UnixTime {
        UnixTime(0)
    }
    fn instant(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) {}
}

/// A file in memory, served until `cut` bytes have gone out in all.
struct Mirror {
    name: &'static str,
    file: Vec<u8>,
    cut: RefCell<Option<u64>>,
    asked: RefCell<Vec<(u64, u64)>>,
    sent: RefCell<u64>,
}

impl Mirror {
    fn new(name: &'static str, file: &[u8]) -> Self {
        Mirror {
            name,
            file: file.to_vec(),
            cut: RefCell::new(None),
            asked: RefCell::default(),
            sent: RefCell::default(),
        }
    }
}

impl Transport for &Mirror {
    fn name(&self) -> &str {
        self.name
    }

    fn get(&self, _: &str, range: Option<Range>) -> std::result::Result<Box<dyn Read + '_>, TransportError> {
        let range = range.unwrap_or(Range { from: 0, to: self.file.len() as u64 });
        self.asked.borrow_mut().push((range.from, range.to));
        Ok(Box::new(Reader { mirror: self, position: range.from, end: range.to.min(self.file.len() as u64) }))
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn is_remote(&self) -> bool {
        true
    }
}

struct Reader<'m> {
    mirror: &'m Mirror,
    position: u64,
    end: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = (buffer.len() as u64).min(self.end - self.position).min(10_000);
        if let Some(left) = self.mirror.cut.borrow_mut().as_mut() {
            if *left == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            n = n.min(*left);
            *left -= n;
        }
        let from = self.position as usize;
        buffer[..n as usize].copy_from_slice(&self.mirror.file[from..from + n as usize]);
        self.position += n;
        *self.mirror.sent.borrow_mut() += n;
        Ok(n as usize)
    }
}

fn content(seed: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|i| (i.wrapping_mul(seed * 2 + 1) >> 3) as u8).collect()
}

/// A metadata member, three packages of which the second is larger than two blocks, and the bundle's bytes.
fn bundle() -> (Index, Vec<u8>) {
    let created = UnixTime(1_700_000_000);
    let mut file = Vec::new();
    let mut members = Vec::new();
    for (path, kind, data) in [
        ("Packages", MemberKind::Metadata, vec![b'x'; 50_000]),
        ("pool/a_1_all.deb", MemberKind::Package, content(1, 70_000)),
        ("pool/b_1_all.deb", MemberKind::Package, content(2, 2 * BLOCK as usize + 5_000)),
        ("pool/c_1_all.deb", MemberKind::Package, content(3, 300)),
    ] {
        let path: format::name::MemberPath = path.parse().unwrap();
        let entry = Entry::new(&path, data.len() as u64, created);
        let offset = file.len() as u64;
        let (encoding, (length, sha256)) = match kind {
            MemberKind::Metadata => (Encoding::Deflate, write_deflated(&entry, &data, &mut file).unwrap()),
            MemberKind::Package => {
                (Encoding::Stored, write_stored(&entry, &mut &data[..], &mut file).unwrap())
            }
        };
        let blocks = if data.len() as u64 > BLOCK {
            data.chunks(BLOCK as usize).map(Sha256::of).collect()
        } else {
            vec![]
        };
        let package = (kind == MemberKind::Package).then(|| Package {
            name: path.as_str().into(),
            epoch: 0,
            version: "1".into(),
            release: String::new(),
            arch: "all".into(),
            source: String::new(),
            origin: String::new(),
        });
        let sources = vec![Source::Whole { offset, length, encoding }];
        members.push(Member {
            path,
            kind,
            size: data.len() as u64,
            sha256,
            blocks,
            package,
            sources,
            plain: None,
        });
    }
    write_end(&mut file).unwrap();
    let index = Index {
        api_version: API_VERSION.into(),
        kind: KIND.into(),
        variant: "v".parse().unwrap(),
        version: "1".parse().unwrap(),
        cycle: "c".parse().unwrap(),
        family: Family::Apt,
        created,
        bundle: BundleFile {
            path: "bundles/v/1/bundle.tar.gz".parse().unwrap(),
            length: file.len() as u64,
            sha256: Sha256::of(&file),
        },
        members,
        advisories: Default::default(),
    };
    index.validate().unwrap();
    (index, file)
}

fn store(name: &str) -> (Store, PathBuf) {
    let folder = std::env::temp_dir().join(format!("prestage-fetch-{name}-{}", std::process::id()));
    host::file::remove(&folder).unwrap();
    (Store::open(folder.clone()).unwrap(), folder)
}

/// Fetches the members of these paths.
fn fetch(store: &Store, index: &Index, paths: &[&str], mirrors: &[&Mirror]) -> Result<()> {
    let mirrors: Vec<Box<dyn Transport + '_>> =
        mirrors.iter().map(|m| Box::new(*m) as Box<dyn Transport + '_>).collect();
    let throttle = Throttle::none(&NoClock);
    let members: Vec<&Member> = index.members.iter().filter(|m| paths.contains(&m.path.as_str())).collect();
    Fetcher {
        mirrors: &mirrors,
        store,
        throttle: &throttle,
        clock: &NoClock,
        progress: &Progress::none(),
        aside: None,
    }
    .members("bundle", index, &members)
}

fn assert_has(store: &Store, index: &Index, paths: &[&str]) {
    for member in index.members.iter().filter(|m| paths.contains(&m.path.as_str())) {
        assert_eq!(digest_of(&store.path(&member.sha256)).unwrap(), member.sha256, "{}", member.path);
    }
}

const ALL: [&str; 4] = ["Packages", "pool/a_1_all.deb", "pool/b_1_all.deb", "pool/c_1_all.deb"];

#[test]
fn neighbours_are_one_request_and_what_is_not_needed_is_not_asked_for() {
    let (index, file) = bundle();
    let (all, folder) = store("neighbours");
    let mirror = Mirror::new("m", &file);
    fetch(&all, &index, &ALL, &[&mirror]).unwrap();
    assert_has(&all, &index, &ALL);
    assert_eq!(mirror.asked.borrow().len(), 1);
    host::file::remove(&folder).unwrap();
    let (some, folder) = store("selected");
    let mirror = Mirror::new("m", &file);
    let needed = ["pool/a_1_all.deb", "pool/c_1_all.deb"];
    fetch(&some, &index, &needed, &[&mirror]).unwrap();
    assert_has(&some, &index, &needed);
    let lengths: u64 = [1, 3].iter().map(|i| index.members[*i].whole().unwrap().length).sum();
    assert_eq!((mirror.asked.borrow().len(), *mirror.sent.borrow()), (2, lengths));
    host::file::remove(&folder).unwrap();
}

#[test]
fn cut_at_any_byte_a_fetch_goes_on_without_fetching_a_byte_twice() {
    let (index, file) = bundle();
    let whole: u64 = index.members.iter().map(|m| m.whole().unwrap().length).sum();
    for cut in [1, 9, 100, 300, 60_000, 65_900, 71_000, 1_200_000, whole - 700, whole - 3] {
        let (store, folder) = store("cut");
        let mirror = Mirror::new("m", &file);
        *mirror.cut.borrow_mut() = Some(cut);
        assert_eq!(fetch(&store, &index, &ALL, &[&mirror]).unwrap_err().exit, Exit::Unavailable);
        *mirror.cut.borrow_mut() = None;
        fetch(&store, &index, &ALL, &[&mirror]).unwrap();
        assert_has(&store, &index, &ALL);
        let twice = *mirror.sent.borrow() - whole;
        // What comes before or behind a member's content is not kept: its headers, and its padding and checksum.
        assert!(twice <= 1100, "cut at {cut}: {twice} bytes twice");
        host::file::remove(&folder).unwrap();
    }
}

#[test]
fn a_torn_block_costs_a_block_and_no_mirror_is_blamed() {
    let (index, file) = bundle();
    let (store, folder) = store("torn");
    let big = &index.members[2];
    // A power cut left the second block in place but with other bytes in it.
    let mut torn = content(2, 2 * BLOCK as usize);
    torn[BLOCK as usize + 77] ^= 1;
    std::fs::write(store.partial(&big.sha256), &torn).unwrap();
    let mirror = Mirror::new("m", &file);
    fetch(&store, &index, &["pool/b_1_all.deb"], &[&mirror]).unwrap();
    assert_has(&store, &index, &["pool/b_1_all.deb"]);
    assert!(*mirror.sent.borrow() <= BLOCK + 5_000 + 2_000, "{}", mirror.sent.borrow());
    // A torn tail, in the block that was being written.
    host::file::remove(&store.path(&big.sha256)).unwrap();
    let mut torn = content(2, BLOCK as usize + 5_000);
    torn[BLOCK as usize + 100] ^= 1;
    std::fs::write(store.partial(&big.sha256), &torn).unwrap();
    fetch(&store, &index, &["pool/b_1_all.deb"], &[&mirror]).unwrap();
    assert_has(&store, &index, &["pool/b_1_all.deb"]);
    host::file::remove(&folder).unwrap();
}

#[test]
fn a_mirror_that_serves_wrong_bytes_is_left_for_the_next_one() {
    let (index, file) = bundle();
    for at in [3, 15_000, 400_000] {
        let mut damaged = file.clone();
        // Somewhere in the framing of Packages, in a, in b.
        let at = if at == 3 { at } else { index.members[1].whole().unwrap().offset as usize + at };
        damaged[at] ^= 0x10;
        let (bad, good) = (Mirror::new("bad", &damaged), Mirror::new("good", &file));
        let (store, folder) = store("liar");
        fetch(&store, &index, &ALL, &[&bad, &good]).unwrap();
        assert_has(&store, &index, &ALL);
        host::file::remove(&folder).unwrap();
    }
}

#[test]
fn a_damaged_block_is_seen_at_its_end_and_costs_a_block() {
    let (index, file) = bundle();
    let mut damaged = file.clone();
    damaged[index.members[2].whole().unwrap().offset as usize + 50_000] ^= 1; // in the first of three blocks
    let (bad, good) = (Mirror::new("bad", &damaged), Mirror::new("good", &file));
    let (store, folder) = store("block");
    fetch(&store, &index, &["pool/b_1_all.deb"], &[&bad, &good]).unwrap();
    assert_has(&store, &index, &["pool/b_1_all.deb"]);
    // The block, and what was on its way when its end was seen: in the pipe, and waiting for its check.
    let most = BLOCK + ((super::pipe::BUFFERS + super::check::WAITING + 1) * 10_000) as u64;
    assert!(*bad.sent.borrow() <= most, "{}", bad.sent.borrow());
    host::file::remove(&folder).unwrap();
}

#[test]
fn wrong_bytes_everywhere_are_exit_2_name_the_member_and_give_nothing_a_name() {
    let (index, file) = bundle();
    let mut damaged = file.clone();
    let at = index.members[1].whole().unwrap().offset as usize + 40_000;
    damaged[at] ^= 1;
    let (store, folder) = store("exit2");
    let mirror = Mirror::new("m", &damaged);
    let error = fetch(&store, &index, &["pool/a_1_all.deb"], &[&mirror]).unwrap_err();
    assert_eq!(error.exit, Exit::Integrity);
    assert!(error.to_string().contains("pool/a_1_all.deb"), "{error}");
    assert!(!store.has(&index.members[1].sha256, index.members[1].size));
    // And it recovers by itself when the bytes are right again.
    let mirror = Mirror::new("m", &file);
    fetch(&store, &index, &["pool/a_1_all.deb"], &[&mirror]).unwrap();
    assert_has(&store, &index, &["pool/a_1_all.deb"]);
    host::file::remove(&folder).unwrap();
}

#[test]
fn what_is_here_is_not_fetched_and_an_overlong_partial_is_begun_anew() {
    let (index, file) = bundle();
    let (store, folder) = store("here");
    let mirror = Mirror::new("m", &file);
    fetch(&store, &index, &ALL, &[&mirror]).unwrap();
    mirror.asked.borrow_mut().clear();
    fetch(&store, &index, &ALL, &[&mirror]).unwrap();
    assert!(mirror.asked.borrow().is_empty());
    let member = &index.members[3];
    host::file::remove(&store.path(&member.sha256)).unwrap();
    std::fs::write(store.partial(&member.sha256), vec![0; 5000]).unwrap();
    fetch(&store, &index, &ALL, &[&mirror]).unwrap();
    assert_has(&store, &index, &ALL);
    assert!(!Path::new(&store.partial(&member.sha256)).exists());
    host::file::remove(&folder).unwrap();
}
