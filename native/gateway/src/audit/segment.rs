//! Segment files: their names, and reading their lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain::MAX_LINE;

/// A new segment begins when the last one has reached this length.
pub const ROLL_AT: u64 = 64 << 20;

/// `<20 digits of the first sequence number>.log`.
pub fn file_name(first: u64) -> String {
    format!("{first:020}.log")
}

pub fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(file_name(first))
}

/// The first sequence numbers of all segments, ascending.
pub fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".log"));
        if let Some(first) = digits.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok()) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The segment, by its first sequence number.
    pub segment: u64,
    pub offset: u64,
    /// Without the newline.
    pub length: u64,
}

/// What reading a line found.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole line is in the buffer, without its newline.
    Line { offset: u64 },
    /// The file ended after a newline.
    End,
    /// The file ended in a line.
    Torn { offset: u64 },
    /// A line that is longer than any that we write; it was passed over.
    Overlong { offset: u64 },
}

/// Reads the lines of one segment from an offset.
pub struct LineReader {
    source: BufReader<File>,
    offset: u64,
}

impl LineReader {
    pub fn open(directory: &Path, first: u64, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path(directory, first))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { source: BufReader::with_capacity(128 << 10, file), offset })
    }

    pub fn read(&mut self, line: &mut Vec<u8>) -> io::Result<Next> {
        line.clear();
        let offset = self.offset;
        let read = self.source.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line)?;
        if read == 0 {
            return Ok(Next::End);
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            let rest = if read > MAX_LINE { self.source.skip_until(b'\n')? } else { 0 };
            if rest == 0 {
                return Ok(Next::Torn { offset });
            }
            self.offset += (read + rest) as u64;
            line.clear();
            return Ok(Next::Overlong { offset });
        }
        self.offset += read as u64;
        Ok(Next::Line { offset })
    }

    /// Where the next line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}
