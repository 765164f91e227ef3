//! Appending to the log: whole batches, or nothing of them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::chain::Link;
use super::head::HeadFile;
use super::segment::{self, Position, ROLL_AT};
use super::tail::{self, Tail};

/// The log, open at its end.
pub struct Log {
    directory: PathBuf,
    head: HeadFile,
    link: Link,
    last_time: Option<i64>,
    open: Option<Open>,
    roll_at: u64,
}

struct Open {
    file: File,
    first: u64,
    length: u64,
    /// Lines that are written but may not be on the disk yet.
    unsynced: bool,
    /// A failed write may have left bytes after `length`.
    dirty: bool,
}

/// Lines that were sealed but not written.
pub struct Batch {
    link: Link,
    first: u64,
    start: u64,
    fresh: bool,
    bytes: Vec<u8>,
}

impl Batch {
    /// Seals one more line; says its sequence number and where it will stand.
    pub fn push(&mut self, time: &str, kind: &str, members: &[u8]) -> (u64, Position) {
        let before = self.bytes.len() as u64;
        self.link.seal(&mut self.bytes, time, kind, members);
        let length = self.bytes.len() as u64 - before - 1;
        (self.link.seq, Position { segment: self.first, offset: self.start + before, length })
    }

    /// The hash of the line pushed last.
    pub fn hash(&self) -> &str {
        &self.link.hash
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Log {
    /// Opens the log at its end and mends what a crash left there; the notes say what was found.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<String>)> {
        Self::open_rolling_at(directory, ROLL_AT)
    }

    pub fn open_rolling_at(directory: &Path, roll_at: u64) -> io::Result<(Self, Vec<String>)> {
        // Nothing is mended before it is certain that nobody else writes.
        let head_file = HeadFile::open(directory)?;
        let Tail { link, time, segment, length, mut notes } = tail::recover(directory)?;
        match super::head::read(directory) {
            Ok(Some(head)) if head.seq > link.seq => notes.push(format!(
                "the head names line {} but the log ends at line {}: {} lines are missing at its end",
                head.seq,
                link.seq,
                head.seq - link.seq
            )),
            Ok(Some(head)) if head.seq == link.seq && head.hash != link.hash => {
                notes.push(format!("line {} is not the one that the head names", link.seq));
            }
            Err(error) => notes.push(format!("the head cannot be read: {error}")),
            Ok(_) => {}
        }
        let open = match segment {
            Some(first) => {
                let file = OpenOptions::new().append(true).open(segment::path(directory, first))?;
                Some(Open { file, first, length, unsynced: true, dirty: false })
            }
            None => None,
        };
        Ok((Self { directory: directory.to_owned(), head: head_file, link, last_time: time, open, roll_at }, notes))
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The time of the line that was last when the log was opened, in microseconds.
    pub fn last_time(&self) -> Option<i64> {
        self.last_time
    }

    /// Where the next line goes.
    pub fn end(&self) -> Option<(u64, u64)> {
        self.open.as_ref().map(|open| (open.first, open.length))
    }

    pub fn has_unsynced(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.unsynced)
    }

    /// Begins a batch; it goes into one segment.
    pub fn batch(&self) -> Batch {
        let current = self.open.as_ref().filter(|open| open.length < self.roll_at);
        let (first, start) = current.map_or((self.link.seq + 1, 0), |open| (open.first, open.length));
        Batch { link: self.link.clone(), first, start, fresh: current.is_none(), bytes: Vec::with_capacity(4096) }
    }

    /// Writes a batch with one `write(2)`, and syncs it when it is to be durable. On an error nothing of it remains.
    pub fn commit(&mut self, batch: Batch, durable: bool) -> io::Result<()> {
        if batch.is_empty() {
            return if durable { self.sync() } else { Ok(()) };
        }
        if batch.fresh {
            self.roll(batch.first)?;
        }
        let Some(open) = &mut self.open else { return Err(io::Error::other("no segment is open")) };
        if open.dirty {
            open.file.set_len(open.length)?;
            open.dirty = false;
        }
        let written =
            open.file.write_all(&batch.bytes).and_then(|()| if durable { open.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            open.dirty = open.file.set_len(open.length).is_err();
            return Err(error);
        }
        open.length += batch.bytes.len() as u64;
        open.unsynced = !durable;
        self.link = batch.link;
        Ok(())
    }

    /// Writes the head. It may lag, so its failure loses nothing.
    pub fn write_head(&self) -> io::Result<()> {
        self.head.write(&self.link)
    }

    /// Makes everything written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.as_mut().filter(|open| open.unsynced) {
            open.file.sync_data()?;
            open.unsynced = false;
        }
        Ok(())
    }

    /// Makes log and head durable.
    pub fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        self.write_head()?;
        self.head.sync()
    }

    fn roll(&mut self, first: u64) -> io::Result<()> {
        self.sync()?;
        let path = segment::path(&self.directory, first);
        let mut options = OpenOptions::new();
        // An earlier attempt that failed for lack of room may have left the file, empty.
        options.append(true).create(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path)?;
        file.set_len(0)?;
        File::open(&self.directory)?.sync_all()?;
        self.open = Some(Open { file, first, length: 0, unsynced: false, dirty: false });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verify;

    fn append(log: &mut Log, lines: usize) {
        let mut batch = log.batch();
        for _ in 0..lines {
            batch.push("2026-01-01T00:00:00.000000Z", "gateway", br#""event":"test""#);
        }
        log.commit(batch, false).unwrap();
        log.write_head().unwrap();
    }

    /// The chain goes on over segments and over a restart.
    #[test]
    fn rolls_and_reopens() {
        let home = tempfile::tempdir().unwrap();
        for round in 1..=3 {
            let (mut log, notes) = Log::open_rolling_at(home.path(), 500).unwrap();
            assert_eq!(notes, Vec::<String>::new());
            for _ in 0..5 {
                append(&mut log, 2);
            }
            assert_eq!(log.link().seq, round * 10);
        }
        assert!(segment::list(home.path()).unwrap().len() > 3);
        assert!(verify::verify(home.path()).unwrap().is_intact());
    }

    /// A log whose end was cut off opens, and says what is missing.
    #[test]
    fn a_cut_tail_is_noted() {
        let home = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(home.path()).unwrap();
        append(&mut log, 4);
        drop(log);
        let path = segment::path(home.path(), 1);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.lines().take(2).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let (_, notes) = Log::open(home.path()).unwrap();
        assert_eq!(notes, ["the head names line 4 but the log ends at line 2: 2 lines are missing at its end"]);
    }
}
