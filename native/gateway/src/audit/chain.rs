//! One line of the log: `SHA256-HEX SPACE JSON NEWLINE`, each naming the hash of the one before.

use aasm_wire::identifier::{hex, is_hex};
use sha2::{Digest, Sha256};

/// `prev` of the first line.
pub const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A longer line was not written by us.
pub const MAX_LINE: usize = 4 << 20;

const HASH: usize = 64;

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Where the chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub seq: u64,
    pub hash: String,
}

impl Link {
    pub fn origin() -> Self {
        Self { seq: 0, hash: ORIGIN.to_owned() }
    }

    /// Appends the next line to `buffer`; `members` are the JSON members after `type`, without braces.
    pub fn seal(&mut self, buffer: &mut Vec<u8>, time: &str, kind: &str, members: &[u8]) {
        let seq = self.seq + 1;
        let mut json = format!(r#"{{"seq":{seq},"prev":"{}","time":"{time}","type":"{kind}""#, self.hash).into_bytes();
        if !members.is_empty() {
            json.push(b',');
            json.extend_from_slice(members);
        }
        json.push(b'}');
        let hash = sha256_hex(&json);
        buffer.extend_from_slice(hash.as_bytes());
        buffer.push(b' ');
        buffer.extend_from_slice(&json);
        buffer.push(b'\n');
        *self = Self { seq, hash };
    }
}

/// One line as it stands in a segment, without its newline.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// What it says its hash is.
    pub hash: &'a str,
    pub json: &'a [u8],
    pub seq: u64,
    pub prev: &'a str,
}

impl<'a> Line<'a> {
    /// Splits a line; `None` when it does not have the form. Whether the hash fits is another question.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let hash = std::str::from_utf8(bytes.get(..HASH)?).ok().filter(|text| is_hex(text))?;
        let json = bytes.get(HASH..)?.strip_prefix(b" ")?;
        let rest = json.strip_prefix(br#"{"seq":"#)?;
        let comma = rest.iter().take(21).position(|byte| *byte == b',')?;
        let seq = std::str::from_utf8(rest.get(..comma)?).ok()?.parse().ok()?;
        let prev = rest.get(comma..)?.strip_prefix(br#","prev":""#)?.get(..HASH)?;
        let prev = std::str::from_utf8(prev).ok().filter(|text| is_hex(text))?;
        Some(Self { hash, json, seq, prev })
    }

    /// The time and the type that follow the link.
    pub fn stamp(&self) -> Option<(&'a str, &'a str)> {
        let at = memchr::memmem::find(self.json, br#","time":""#)?;
        let rest = self.json.get(at + 9..)?;
        let (time, rest) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
        let rest = rest.strip_prefix(br#"","type":""#)?;
        let line_type = rest.get(..memchr::memchr(b'"', rest)?)?;
        Some((std::str::from_utf8(time).ok()?, std::str::from_utf8(line_type).ok()?))
    }

    /// Whether the hash is that of the stored bytes.
    pub fn is_intact(&self) -> bool {
        sha256_hex(self.json) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A sealed line parses, is intact, and names the line before it.
    #[test]
    fn sealed_lines_are_linked() {
        let (mut link, mut buffer) = (Link::origin(), Vec::new());
        link.seal(&mut buffer, "t", "run", br#""a":1"#);
        link.seal(&mut buffer, "t", "gateway", b"");
        let lines: Vec<_> =
            buffer.split(|byte| *byte == b'\n').take(2).map(|line| Line::parse(line).unwrap()).collect();
        assert!(lines.iter().all(Line::is_intact));
        assert_eq!((lines[0].seq, lines[0].prev), (1, ORIGIN));
        assert_eq!((lines[1].seq, lines[1].prev), (2, lines[0].hash));
        let json: serde_json::Value = serde_json::from_slice(lines[0].json).unwrap();
        assert_eq!((&json["type"], &json["a"]), (&"run".into(), &1.into()));
        assert_eq!(link, Link { seq: 2, hash: lines[1].hash.to_owned() });
    }

    proptest! {
        /// No bytes make the parser panic.
        #[test]
        fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Line::parse(&bytes).map(|line| line.is_intact());
        }
    }
}
