//! What the thief of a key can make of a repository: any edit at all, signed with the keys that he names and with no
//! other, by openssl. Nothing here is shared with the programs that it is held against but the canonical form.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use format::digest::{Sha256, hex};
use format::json;
use serde_json::{Value, json};

use crate::repository::{Centre, Part};
use crate::sandbox::command;

/// Bytes of a tar header, and the unit of a tar file.
pub const RECORD: usize = 512;

/// The gzip header of every member of a bundle.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Bytes behind the blocks of a gzip member.
const TRAILER: usize = 8;

/// Where in a tar header its checksum stands.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// A repository in the hands of a thief.
pub struct Forge<'c> {
    centre: &'c Centre,
    folder: PathBuf,
}

impl<'c> Forge<'c> {
    /// Of the centre's own repository and keys.
    pub fn new(centre: &'c Centre) -> Self {
        Forge { centre, folder: centre.repository() }
    }

    /// The file of a role: the newest, by its version.
    pub fn file(&self, role: &str) -> PathBuf {
        match role {
            "timestamp" => self.folder.join("metadata/timestamp.json"),
            _ => self.centre.newest("metadata", &format!(".{role}.json")),
        }
    }

    /// What a role's newest file says, signatures included.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read(&self, role: &str) -> Value {
        serde_json::from_slice(&fs::read(self.file(role)).expect("a role")).expect("a role is JSON")
    }

    /// A file in which `by`, names of keys, sign `signed`.
    ///
    /// # Panics
    /// If it has no canonical form.
    pub fn signed(&self, signed: &Value, by: &[&str]) -> Value {
        let message = json::canonical(signed).expect("a canonical form");
        let sign =
            |key: &&str| json!({ "keyid": self.centre.key_object(key).0, "sig": self.sign(key, &message) });
        json!({ "signatures": by.iter().map(sign).collect::<Vec<_>>(), "signed": signed })
    }

    /// Writes a role's file, under the version that it says.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, role: &str, file: &Value) -> PathBuf {
        let path = match role {
            "timestamp" => self.file(role),
            _ => self.folder.join(format!("metadata/{}.{role}.json", file["signed"]["version"])),
        };
        fs::write(&path, json::canonical(file).expect("a canonical form")).expect("a role");
        path
    }

    /// Changes what a role says, signed by `by`; the version stays, unless `edit` changes it.
    pub fn edit(&self, role: &str, by: &[&str], edit: impl FnOnce(&mut Value)) {
        let mut signed = self.read(role)["signed"].take();
        edit(&mut signed);
        self.write(role, &self.signed(&signed, by));
    }

    /// The same as the next version.
    pub fn next(&self, role: &str, by: &[&str], edit: impl FnOnce(&mut Value)) {
        self.edit(role, by, |signed| {
            raise(signed);
            edit(signed);
        });
    }

    /// A snapshot of what there is now, changed, and a timestamp of that snapshot: what their two keys can do.
    pub fn publish_with(&self, edit: impl FnOnce(&mut Value)) {
        self.next("snapshot", &["snapshot"], |snapshot| {
            for role in ["targets", "bundles", "policies"] {
                snapshot["meta"][format!("{role}.json")] = self.describe(role);
            }
            edit(snapshot);
        });
        self.next("timestamp", &["timestamp"], |timestamp| {
            timestamp["meta"]["snapshot.json"] = self.describe("snapshot");
        });
    }

    /// The same of what there is.
    pub fn publish(&self) {
        self.publish_with(|_| {});
    }

    /// A role's newest file as its referrer describes it.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn describe(&self, role: &str) -> Value {
        let bytes = fs::read(self.file(role)).expect("a role");
        let version = &self.read(role)["signed"]["version"];
        json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": Sha256::of(&bytes) } })
    }

    /// The newest bundle's index and file become these bytes, signed by all whose signature it needs: the machine that
    /// builds bundles is the attacker's, and nobody looked at what he signed.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn release(&self, index: &[u8], bundle: &[u8]) {
        let put = |part: Part, bytes: &[u8]| -> (String, Value) {
            let old = self.centre.file(part);
            let name = old.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (_, name) = name.split_once('.').expect("a digest before the name");
            let digest = Sha256::of(bytes);
            let path = old.with_file_name(format!("{digest}.{name}"));
            fs::remove_file(&old).expect("a target");
            fs::write(&path, bytes).expect("a target");
            let target = path.with_file_name(name);
            let target = target.strip_prefix(self.folder.join("targets")).expect("below targets");
            let file = json!({ "length": bytes.len(), "hashes": { "sha256": digest } });
            (target.to_string_lossy().into_owned(), file)
        };
        let targets = [put(Part::Index, index), put(Part::BundleData, bundle)];
        let keys = self.centre.keys("bundles");
        self.next("bundles", &keys.iter().map(String::as_str).collect::<Vec<_>>(), |bundles| {
            for (path, file) in targets {
                for (field, value) in file.as_object().expect("an object") {
                    bundles["targets"][&path][field] = value.clone();
                }
            }
        });
        self.publish();
    }

    /// The policies become this one and no other, under the name that it gives itself, signed by `by`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn policy(&self, by: &[&str], policy: &Value) {
        let bytes = json::canonical(policy).expect("a canonical form");
        let digest = Sha256::of(&bytes);
        let name = |field: &str| policy["metadata"][field].as_str().unwrap_or("nameless").to_owned();
        let folder = format!("policies/{}/{}", name("namespace"), name("name"));
        fs::create_dir_all(self.folder.join("targets").join(&folder)).expect("a folder");
        fs::write(self.folder.join(format!("targets/{folder}/{digest}.policy.json")), &bytes)
            .expect("a policy");
        let file = json!({ "length": bytes.len(), "hashes": { "sha256": digest } });
        self.next("policies", by, |policies| {
            policies["targets"] = json!({ (format!("{folder}/policy.json")): file });
        });
        self.publish();
    }

    /// The role `policies` lists one more target, of these bytes, signed by `by`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn policies_list(&self, by: &[&str], path: &str, bytes: &[u8]) {
        let digest = Sha256::of(bytes);
        let (folder, name) = path.rsplit_once('/').expect("a path");
        let folder = self.folder.join("targets").join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("{digest}.{name}")), bytes).expect("a target");
        let file = json!({ "length": bytes.len(), "hashes": { "sha256": digest } });
        self.next("policies", by, |policies| policies["targets"][path] = file);
        self.publish();
    }

    /// Releases the newest bundle with another index, whatever its bytes are.
    ///
    /// # Panics
    /// If there is none.
    pub fn index_bytes(&self, edit: impl FnOnce(String) -> Vec<u8>) {
        let index = fs::read_to_string(self.centre.file(Part::Index)).expect("an index");
        let bundle = fs::read(self.centre.file(Part::BundleData)).expect("a bundle");
        self.release(&edit(index), &bundle);
    }

    /// Releases the newest bundle with an index that says something else.
    pub fn index(&self, edit: impl FnOnce(&mut Value)) {
        self.index_bytes(|text| {
            let mut index = serde_json::from_str(&text).expect("an index is JSON");
            edit(&mut index);
            json::canonical(&index).expect("a canonical form")
        });
    }

    /// Releases the newest bundle with another member in it, in the place of the one whose path begins with `path`:
    /// `edit` gets its tar entry and makes the bytes that stand in the bundle file; and its entry in the index, in which
    /// offsets, lengths and digests follow by themselves where it leaves them alone.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn member(&self, path: &str, edit: impl FnOnce(Vec<u8>, &mut Value) -> Vec<u8>) {
        let mut index: Value =
            serde_json::from_slice(&fs::read(self.centre.file(Part::Index)).expect("an index"))
                .expect("an index is JSON");
        let old = fs::read(self.centre.file(Part::BundleData)).expect("a bundle");
        let (mut new, mut end, mut edit) = (Vec::new(), 0, Some(edit));
        for member in index["members"].as_array_mut().expect("members") {
            let at = |field: &str| member["sources"][0][field].as_u64().expect("a number") as usize;
            let bytes = &old[at("offset")..at("offset") + at("length")];
            end = at("offset") + at("length");
            let is_it = member["path"].as_str().is_some_and(|p| p.starts_with(path));
            let bytes = match edit.take_if(|_| is_it) {
                Some(edit) => edit(gunzip(bytes), member),
                None => bytes.to_vec(),
            };
            member["sources"][0]["offset"] = new.len().into();
            member["sources"][0]["length"] = bytes.len().into();
            new.extend(bytes);
        }
        assert!(edit.is_none(), "the bundle has no member {path}");
        new.extend(&old[end..]);
        index["bundle"]["length"] = new.len().into();
        index["bundle"]["sha256"] = json!(Sha256::of(&new));
        self.release(&json::canonical(&index).expect("a canonical form"), &new);
    }

    fn sign(&self, key: &str, message: &[u8]) -> String {
        let file = self.centre.key(key).with_extension("message");
        fs::write(&file, message).expect("a message");
        let mut openssl = command("openssl");
        openssl
            .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
            .arg(self.centre.key(key))
            .arg("-in")
            .arg(&file);
        let output = openssl.output().expect("openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        hex(&output.stdout)
    }
}

/// Counts a version up by one.
pub fn raise(signed: &mut Value) {
    signed["version"] = (signed["version"].as_u64().unwrap_or_default() + 1).into();
}

/// A gzip member of bytes as they are: stored blocks (RFC 1951 section 3.2.4).
pub fn stored(plain: &[u8]) -> Vec<u8> {
    let mut out = GZIP_HEADER.to_vec();
    let mut blocks = plain.chunks(65_535).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16; // at most 65,535
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    // CRC-32 and length (RFC 1952), which gzip works out for whatever it packs.
    let packed = filter("gzip", &["-1", "-n"], plain);
    out.extend(&packed[packed.len() - TRAILER..]);
    out
}

/// A gzip member of the same bytes, as small as gzip makes it.
///
/// # Panics
/// If gzip fails.
pub fn deflated(plain: &[u8]) -> Vec<u8> {
    let packed = filter("gzip", &["-9", "-n"], plain);
    // The same but for its header, which is as long as ours, for there is no name in it.
    [&GZIP_HEADER[..], &packed[GZIP_HEADER.len()..]].concat()
}

fn gunzip(member: &[u8]) -> Vec<u8> {
    filter("gzip", &["-d", "-c"], member)
}

fn filter(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = command(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    });
    let output = output.expect("it ends");
    assert!(output.status.success(), "{program} failed");
    output.stdout
}

/// Changes a tar header, and makes its checksum right again (POSIX.1-2017, pax, "ustar Interchange Format").
pub fn header(entry: &mut [u8], edit: impl FnOnce(&mut [u8])) {
    let header = &mut entry[..RECORD];
    edit(header);
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:07o}\0").as_bytes());
}

/// Puts a text into a field of a tar header, with NULs behind it.
pub fn field(header: &mut [u8], at: std::ops::Range<usize>, text: &str) {
    header[at.clone()].fill(0);
    header[at.start..at.start + text.len()].copy_from_slice(text.as_bytes());
}

/// A tar entry of its own: `kind` is the type flag, `content` what follows, padded.
pub fn entry(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; RECORD];
    header(&mut out, |h| {
        field(h, 0..100, name);
        field(h, 100..108, "0000644");
        field(h, 108..116, "0000000");
        field(h, 116..124, "0000000");
        field(h, 124..136, &format!("{:011o}", content.len()));
        field(h, 136..148, "00000000000");
        h[156] = kind;
        field(h, 257..263, "ustar");
        field(h, 263..265, "00");
    });
    out.extend(content);
    out.resize(out.len().next_multiple_of(RECORD), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::succeed;

    #[test]
    fn what_is_packed_here_is_what_gzip_reads() {
        let plain = crate::random::Random::new(7).bytes(200_000);
        assert_eq!(gunzip(&stored(&plain)), plain);
        assert_eq!(gunzip(&deflated(&plain)), plain);
    }

    #[test]
    fn a_tar_entry_of_our_making_is_what_tar_lists() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        let tar = [entry(b'0', "a/b", b"content"), entry(b'2', "link", b""), vec![0; 2 * RECORD]].concat();
        fs::write(&path, tar).unwrap();
        assert_eq!(succeed(command("tar").arg("-tf").arg(&path)), "a/b\nlink\n");
    }
}
