//! `gateway.pid`: which process is the gateway of this home. The lock on it decides; its text only says more.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::{clock, home};

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub pid: u32,
    /// 0 while the gateway starts.
    pub port: u16,
    pub version: String,
    pub started: i64,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let mut record = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "pid" => record.pid = value.parse().ok()?,
                "port" => record.port = value.parse().ok()?,
                "version" => value.clone_into(&mut record.version),
                "started" => record.started = value.parse().ok()?,
                _ => {}
            }
        }
        (record.pid > 0).then_some(record)
    }
}

/// The file, locked by us; it is removed when the gateway ends.
pub struct PidFile {
    path: PathBuf,
    file: File,
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path).map_err(|error| named(path, error))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}; {}", path.display(), home::remedy(&error)))
}

impl PidFile {
    /// Takes the lock; `None` when another gateway has it.
    pub fn acquire(path: &Path) -> io::Result<Option<Self>> {
        let mut patience = 5;
        loop {
            let file = open(path, true)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if patience > 0 => {
                    // Who only looks whether a gateway runs holds the lock for an instant.
                    patience -= 1;
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // A gateway that ended meanwhile has removed the file that we locked.
            let ours = file.metadata()?;
            if path.symlink_metadata().is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                let mut acquired = Self { path: path.to_owned(), file };
                acquired.write(0).map_err(|error| named(path, error))?;
                return Ok(Some(acquired));
            }
        }
    }

    /// Says which port it is.
    pub fn write(&mut self, port: u16) -> io::Result<()> {
        let (pid, version, started) = (std::process::id(), crate::app::VERSION, clock::now_secs());
        let text = format!("pid={pid}\nport={port}\nversion={version}\nstarted={started}\n");
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }

    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The gateway that holds the lock, if one does.
pub fn running(path: &Path) -> io::Result<Option<Record>> {
    let file = match open(path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            file.take(4096).read_to_string(&mut text)?;
            Ok(Some(Record::parse(&text).unwrap_or_default()))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One at a time; who holds it can be read; after it there is nothing.
    #[test]
    fn one_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("gateway.pid");
        assert_eq!(running(&path).unwrap(), None);
        let mut first = PidFile::acquire(&path).unwrap().unwrap();
        assert!(PidFile::acquire(&path).unwrap().is_none());
        first.write(4711).unwrap();
        let record = running(&path).unwrap().unwrap();
        assert_eq!((record.pid, record.port), (std::process::id(), 4711));
        first.remove();
        assert_eq!(running(&path).unwrap(), None);
        assert!(PidFile::acquire(&path).unwrap().is_some());
    }
}
