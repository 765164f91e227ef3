//! Bringing the index up to the log: after a crash a few lines, after its loss all of them.

use std::io;
use std::path::{Path, PathBuf};

use super::chain::{Line, MAX_LINE};
use super::entry::{Columns, LineType};
use super::index::Pending;
use super::segment::{self, LineReader, Next, Position};

/// Reads the lines that the index lacks, in chunks.
pub struct CatchUp {
    directory: PathBuf,
    segment: u64,
    reader: LineReader,
    buffer: Vec<u8>,
}

impl CatchUp {
    pub fn begin(directory: &Path, segment: u64, offset: u64) -> io::Result<Self> {
        let reader = LineReader::open(directory, segment, offset)?;
        Ok(Self { directory: directory.to_owned(), segment, reader, buffer: Vec::new() })
    }

    /// Up to `most` lines before `end` (segment and offset); fewer when the end is reached.
    pub fn read(&mut self, end: (u64, u64), most: usize) -> io::Result<Vec<Pending>> {
        let mut lines = Vec::with_capacity(most);
        while lines.len() < most && (self.segment, self.reader.offset()) < end {
            match self.reader.read(&mut self.buffer)? {
                Next::Line { offset } => match pending(&self.buffer, self.segment, offset) {
                    Some(line) => lines.push(line),
                    None => tracing::warn!(
                        "{} has a line at byte {offset} that is not ours; `aasm audit verify` says more",
                        segment::file_name(self.segment)
                    ),
                },
                Next::Overlong { .. } => tracing::warn!(
                    "{} has a line of more than {MAX_LINE} bytes; `aasm audit verify` says more",
                    segment::file_name(self.segment)
                ),
                Next::End | Next::Torn { .. } => {
                    let following = segment::list(&self.directory)?.into_iter().find(|first| *first > self.segment);
                    let Some(following) = following else { break };
                    self.segment = following;
                    self.reader = LineReader::open(&self.directory, following, 0)?;
                }
            }
        }
        Ok(lines)
    }
}

fn pending(bytes: &[u8], segment: u64, offset: u64) -> Option<Pending> {
    let line = Line::parse(bytes)?;
    let (time, line_type) = line.stamp()?;
    let line_type = LineType::parse(line_type)?;
    let columns =
        if line_type.is_indexed() { serde_json::from_slice::<Columns>(line.json).ok()? } else { Columns::default() };
    Some(Pending {
        seq: line.seq,
        hash: line.hash.to_owned(),
        time: crate::clock::parse(time)?,
        line_type,
        columns,
        position: Position { segment, offset, length: bytes.len() as u64 },
    })
}
