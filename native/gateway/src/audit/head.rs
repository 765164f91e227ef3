//! `audit/head`: sequence number and hash of the last line, kept apart from it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use aasm_wire::shapes::Head;

use super::chain::Link;

/// Written in place with one write of a fixed length, so that a reader never sees half of it.
const LENGTH: usize = 128;

pub struct HeadFile {
    file: File,
}

impl HeadFile {
    /// Opens the head for the one who writes the log. The lock holds two gateways apart that do not see each other's pid
    /// file, because somebody removed it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(directory.join("head"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(Errno::WOULDBLOCK) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another gateway writes it, whose gateway.pid was removed",
            )),
            Err(error) => Err(error.into()),
        }
    }

    pub fn write(&self, link: &Link) -> io::Result<()> {
        let mut text = format!(r#"{{"seq":{},"hash":"{}"}}"#, link.seq, link.hash);
        while text.len() < LENGTH - 1 {
            text.push(' ');
        }
        text.push('\n');
        self.file.write_all_at(text.as_bytes(), 0)
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What the head says; `None` when there is none, an error when it cannot be understood.
pub fn read(directory: &Path) -> io::Result<Option<Link>> {
    let text = match std::fs::read_to_string(directory.join("head")) {
        Ok(text) if text.trim().is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let head: Head = serde_json::from_str(&text)?;
    Ok(Some(Link { seq: head.seq, hash: head.hash }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One log has one writer.
    #[test]
    fn one_writer() {
        let home = tempfile::tempdir().unwrap();
        let first = HeadFile::open(home.path()).unwrap();
        assert!(HeadFile::open(home.path()).is_err());
        drop(first);
        assert!(HeadFile::open(home.path()).is_ok());
    }

    /// The head reads back as it was last written, whatever its length was before.
    #[test]
    fn reads_back() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(read(home.path()).unwrap(), None);
        let file = HeadFile::open(home.path()).unwrap();
        assert_eq!(read(home.path()).unwrap(), None);
        for seq in [u64::MAX, 3] {
            let link = Link { seq, hash: "ab".repeat(32) };
            file.write(&link).unwrap();
            assert_eq!(read(home.path()).unwrap(), Some(link));
        }
    }
}
