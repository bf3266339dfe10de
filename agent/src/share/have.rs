//! What a node says of its content, in answer to `/have/HASH,…`: one line for itself, then one for each hash that was
//! asked, in that order. Text, so that a person with curl can read it.
//!
//! ```text
//! prestage-site 1 0123456789abcdef
//! whole
//! coming 65536
//! wanted
//! none
//! ```

use std::fmt::Write as _;

use format::digest::Sha256;
use format::name::NodeId;

/// The longest answer, in bytes: for the most hashes that may be asked at once.
pub const MAX_ANSWER: usize = 64 + super::request::MAX_ASKED * 32;

/// What the first line begins with; the number is the format's version.
const FIRST: &str = "prestage-site 1 ";

/// Who a node is to its site: made of its id and tells nothing about it. Orders the nodes, proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// The token of a node.
    pub fn of(id: &NodeId) -> Token {
        let Sha256([a, b, c, d, e, f, g, h, ..]) =
            Sha256::of(&[b"prestage site\n", id.as_str().as_bytes()].concat());
        Token(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// How much of a content a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// All, verified.
    Whole,
    /// It is fetching it from a mirror now, and has so many bytes.
    Coming(u64),
    /// It needs it, and a fetch is running.
    Wanted,
    /// Neither has nor needs it, as far as it knows.
    Nothing,
}

/// The answer.
pub fn write(token: Token, holdings: &[Holding]) -> String {
    let mut out = format!("{FIRST}{:016x}\n", token.0);
    for holding in holdings {
        // Writing to a String cannot fail.
        let _ = match holding {
            Holding::Whole => writeln!(out, "whole"),
            Holding::Coming(bytes) => writeln!(out, "coming {bytes}"),
            Holding::Wanted => writeln!(out, "wanted"),
            Holding::Nothing => writeln!(out, "none"),
        };
    }
    out
}

/// Reads an answer to a question for `asked` hashes. None, if it is none.
pub fn parse(bytes: &[u8], asked: usize) -> Option<(Token, Vec<Holding>)> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_ANSWER)?;
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let token = lines.next()?.strip_prefix(FIRST)?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let token = Some(token).filter(|t| t.len() == 16 && t.bytes().all(is_hex))?;
    let token = Token(u64::from_str_radix(token, 16).ok()?);
    let holding = |line: &str| match line {
        "whole" => Some(Holding::Whole),
        "wanted" => Some(Holding::Wanted),
        "none" => Some(Holding::Nothing),
        other => {
            let bytes = other.strip_prefix("coming ")?;
            bytes.bytes().all(|b| b.is_ascii_digit()).then(|| bytes.parse().ok())?.map(Holding::Coming)
        }
    };
    let holdings: Vec<Holding> = lines.map(holding).collect::<Option<_>>()?;
    (holdings.len() == asked).then_some((token, holdings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let all = [Holding::Whole, Holding::Coming(u64::MAX), Holding::Wanted, Holding::Nothing];
        let text = write(Token(0x0123_4567_89ab_cdef), &all);
        assert_eq!(
            text,
            "prestage-site 1 0123456789abcdef\nwhole\ncoming 18446744073709551615\nwanted\nnone\n"
        );
        assert_eq!(parse(text.as_bytes(), 4), Some((Token(0x0123_4567_89ab_cdef), all.to_vec())));
        let longest = write(Token(1), &[Holding::Coming(u64::MAX); super::super::request::MAX_ASKED]);
        assert!(longest.len() <= MAX_ANSWER);
    }

    #[test]
    fn anything_else_is_no_answer() {
        for bad in [
            "",
            "whole\n",
            "prestage-site 2 0123456789abcdef\nwhole\n",
            "prestage-site 1 0123456789ABCDEF\nwhole\n",
            "prestage-site 1 0123456789abcdef\nwhole",
            "prestage-site 1 0123456789abcdef\n",
            "prestage-site 1 0123456789abcdef\nwhole\nwhole\n",
            "prestage-site 1 0123456789abcdef\ncoming -1\n",
            "prestage-site 1 0123456789abcdef\ncoming 99999999999999999999\n",
            "prestage-site 1 123\nwhole\n",
            "prestage-site 1 0123456789abcdef\nmaybe\n",
        ] {
            assert_eq!(parse(bad.as_bytes(), 1), None, "{bad}");
        }
    }
}
