//! An export: one plain tar file that holds a repository, as `prestage-build export` writes it and the agent reads it.
//!
//! Only its listing is here. A stick is an untrusted mirror: that a file is listed says where it is to be read, and
//! nothing about what is in it.

use std::collections::BTreeMap;
use std::io;

/// Size of a tar header and of the unit that tar pads to (POSIX.1-2017, pax, "ustar Interchange Format").
const RECORD: u64 = 512;

/// Where the checksum stands in a header; it counts as spaces in itself.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// The most files that an export may hold, so that a hostile one cannot cost memory: a bundle's export holds about a
/// dozen, and every root version.
const MAX_FILES: usize = 10_000;

/// Where a file's content stands in the tar file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Reads exactly as many bytes as fit, from a position on.
pub type ReadAt<'r> = &'r mut dyn FnMut(&mut [u8], u64) -> io::Result<()>;

/// Walks the headers of a tar file of `length` bytes: path → place. Of two files of one path the later counts, as it
/// does when tar unpacks them. By hand over the tar crate's header type, because its iterator reads long names without
/// a bound.
///
/// # Errors
/// If it cannot be read, is cut, or holds anything but regular files and folders.
pub fn list(length: u64, read_at: ReadAt<'_>) -> Result<BTreeMap<String, Place>, String> {
    let too_early = || "the tar file ends too early".to_owned();
    let mut files = BTreeMap::new();
    let mut at = 0u64;
    let mut header = tar::Header::new_old();
    loop {
        let offset = at.checked_add(RECORD).filter(|end| *end <= length).ok_or_else(too_early)?;
        read_at(header.as_mut_bytes(), at).map_err(|e| format!("the header at byte {at}: {e}"))?;
        if header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(files);
        }
        let bytes = header.as_bytes().iter().enumerate();
        let sum: u32 = bytes.map(|(i, b)| u32::from(if CHECKSUM.contains(&i) { b' ' } else { *b })).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(format!("there is no tar header at byte {at}"));
        }
        let size = header.entry_size().map_err(|e| e.to_string())?;
        at = size
            .checked_next_multiple_of(RECORD)
            .and_then(|padded| offset.checked_add(padded))
            .filter(|end| *end <= length)
            .ok_or_else(too_early)?;
        let name = String::from_utf8_lossy(&header.path_bytes()).trim_start_matches("./").to_owned();
        match header.entry_type() {
            tar::EntryType::Regular => {
                files.insert(name, Place { offset, length: size });
            }
            tar::EntryType::Directory => {}
            other => return Err(format!("{name:?} is a {other:?}; an export holds regular files only")),
        }
        if files.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Place>, String> {
        list(bytes.len() as u64, &mut |buffer, at| {
            buffer.copy_from_slice(&bytes[at as usize..at as usize + buffer.len()]);
            Ok(())
        })
    }

    /// A header of `kind` that says `size`, with its checksum right.
    fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn entry(name: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
        let mut out = header(name, kind, content.len() as u64).as_bytes().to_vec();
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn end() -> Vec<u8> {
        vec![0; 1024]
    }

    #[test]
    fn every_file_is_found_where_it_is() {
        let bytes = [
            entry("metadata/", tar::EntryType::Directory, b""),
            entry("metadata/1.root.json", tar::EntryType::Regular, b"{}"),
            entry("./targets/x", tar::EntryType::Regular, &[7; 600]),
            end(),
        ]
        .concat();
        let files = list_bytes(&bytes).unwrap();
        assert_eq!(files["metadata/1.root.json"], Place { offset: 1024, length: 2 });
        assert_eq!(files["targets/x"], Place { offset: 2048, length: 600 });
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn links_devices_sparse_files_and_long_names_are_refused() {
        use tar::EntryType as Kind;
        for kind in [
            Kind::Link,
            Kind::Symlink,
            Kind::Char,
            Kind::Block,
            Kind::Fifo,
            Kind::Continuous,
            Kind::GNUSparse,
            Kind::GNULongName,
            Kind::GNULongLink,
            Kind::XHeader,
            Kind::XGlobalHeader,
            Kind::new(b'?'),
        ] {
            let bytes = [entry("metadata/1.root.json", kind, b""), end()].concat();
            assert!(list_bytes(&bytes).unwrap_err().contains("regular files only"), "{kind:?}");
        }
    }

    #[test]
    fn sizes_that_lie_overflow_or_leave_the_file_are_refused() {
        let whole = [entry("a", tar::EntryType::Regular, b"x"), end()].concat();
        for size in [513 * 512, 1 << 40, u64::MAX / 2, u64::MAX - 511, u64::MAX] {
            let mut bytes = whole.clone();
            bytes[..512].copy_from_slice(header("a", tar::EntryType::Regular, size).as_bytes());
            assert!(list_bytes(&bytes).is_err(), "{size}");
        }
        // Cut anywhere before the end mark.
        for length in 0..1536 {
            assert!(list_bytes(&whole[..length]).is_err(), "{length}");
        }
        assert!(list_bytes(&whole[..1536]).is_ok());
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let whole = [entry("a", tar::EntryType::Regular, b"x"), end()].concat();
        for bit in 0..512 * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A checksum field that says the same number in other words is none the less right.
            assert!(list_bytes(&bytes).is_err() || CHECKSUM.contains(&(bit / 8)), "bit {bit}");
        }
    }

    #[test]
    fn more_files_than_a_repository_has_are_refused() {
        let mut bytes = Vec::new();
        for n in 0..=MAX_FILES {
            bytes.extend(entry(&n.to_string(), tar::EntryType::Regular, b""));
        }
        bytes.extend(end());
        assert!(list_bytes(&bytes).unwrap_err().contains("more than"));
    }

    #[test]
    fn a_name_is_only_looked_up_and_never_opened() {
        let bytes = [entry("x", tar::EntryType::Regular, b""), end()].concat();
        for name in ["../../etc/passwd", "/etc/passwd", "a\0b"] {
            let mut bytes = bytes.clone();
            let mut evil = header("x", tar::EntryType::Regular, 0);
            evil.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            evil.set_cksum();
            bytes[..512].copy_from_slice(evil.as_bytes());
            assert_eq!(list_bytes(&bytes).unwrap().len(), 1);
        }
    }
}
