//! `log/gateway.log`, rotated.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const ROTATE_AT: u64 = 10 << 20;

/// `.1` to `.5`.
const KEPT: u32 = 5;

struct Rotating {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    rotate_at: u64,
}

impl Rotating {
    fn open(path: &Path, rotate_at: u64) -> Self {
        let mut log = Self { path: path.to_owned(), file: None, length: 0, rotate_at };
        log.reopen();
        log
    }

    fn reopen(&mut self) {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        self.file = options.open(&self.path).ok();
        self.length = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    fn rotate(&mut self) {
        for number in (1..KEPT).rev() {
            let _ = std::fs::rename(self.numbered(number), self.numbered(number + 1));
        }
        let _ = std::fs::rename(&self.path, self.numbered(1));
        self.reopen();
    }

    /// A log that cannot be written must not stop the gateway.
    fn append(&mut self, bytes: &[u8]) {
        if self.length > 0 && self.length + bytes.len() as u64 > self.rotate_at {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(bytes) {
                Ok(()) => self.length += bytes.len() as u64,
                Err(_) => self.file = None,
            }
        }
    }
}

/// The log as tracing writes to it.
#[derive(Clone)]
struct LogFile(Arc<Mutex<Rotating>>);

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Logs to the file from now on, and to standard error when somebody looks at it.
pub fn start(path: &Path) {
    let file = LogFile(Arc::new(Mutex::new(Rotating::open(path, ROTATE_AT))));
    let to_file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .with_writer(file);
    // A terminal that has gone away is no reason to complain there, which would be a panic.
    let to_terminal = io::stderr().is_terminal().then(|| {
        tracing_subscriber::fmt::layer().with_target(false).log_internal_errors(false).with_writer(io::stderr)
    });
    let subscriber = tracing_subscriber::registry()
        .with(to_file.with_filter(LevelFilter::INFO))
        .with(to_terminal.with_filter(LevelFilter::INFO));
    let _ = subscriber.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log never grows beyond its bound, and five older ones are kept.
    #[test]
    fn rotates() {
        let home = tempfile::tempdir().unwrap();
        let mut log = Rotating::open(&home.path().join("gateway.log"), 100);
        for number in 0..100 {
            log.append(format!("{number:>29}\n").as_bytes());
        }
        let mut names: Vec<_> = std::fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected: Vec<_> = ["", ".1", ".2", ".3", ".4", ".5"].map(|suffix| format!("gateway.log{suffix}")).into();
        assert_eq!(names, expected);
        assert!(std::fs::read_to_string(home.path().join("gateway.log")).unwrap().ends_with("99\n"));
    }
}
