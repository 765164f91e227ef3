//! The index in the writer's hands: opened, brought up to the log, tried again when it failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::catch_up::CatchUp;
use super::chain::Link;
use super::event::EventState;
use super::index::{Index, Pending};
use super::writer::{AuditError, Status};

/// How long until what failed is tried again.
pub const RETRY: Duration = Duration::from_secs(1);

/// Rows between two checkpoints under load.
const CHECKPOINT: usize = 20_000;

pub struct Indexer {
    directory: PathBuf,
    status: Arc<Status>,
    index: Option<Index>,
    catch_up: Option<CatchUp>,
    retry_at: Option<Instant>,
    since_checkpoint: usize,
}

impl Indexer {
    pub fn new(directory: &Path, status: Arc<Status>) -> Self {
        let directory = directory.to_owned();
        Self { directory, status, index: None, catch_up: None, retry_at: None, since_checkpoint: 0 }
    }

    /// Opens the index, or begins a new one; what it lacks of the log is read from there.
    pub fn open(&mut self, tail: &Link) {
        let opened = Index::open(&self.directory, tail).map_err(io::Error::other).and_then(|index| {
            let from = index.resume_at(&self.directory)?.filter(|_| index.through() < tail.seq);
            let catch_up = from.map(|(first, offset)| CatchUp::begin(&self.directory, first, offset));
            Ok((catch_up.transpose()?, index))
        });
        match opened {
            Ok((catch_up, index)) => {
                self.status.indexed_through.store(index.through(), Ordering::Release);
                self.status.rebuilding.store(catch_up.is_some(), Ordering::Release);
                self.catch_up = catch_up;
                self.index = Some(index);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Whether every event of the log can be found, but for those that were not given to the index yet.
    pub fn is_exact(&self) -> bool {
        self.index.is_some() && self.catch_up.is_none()
    }

    pub fn is_catching_up(&self) -> bool {
        self.catch_up.is_some()
    }

    /// Whether it failed and is to be left alone for now.
    pub fn is_resting(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Ends the rest when it is over.
    pub fn retry(&mut self, tail: &Link) {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            if self.index.is_none() {
                self.open(tail);
            }
        }
    }

    /// Begins a new index when somebody removed the file: what is written to the old one is seen by nobody.
    pub fn replace_if_lost(&mut self, tail: &Link) {
        if self.index.as_ref().is_some_and(|index| !index.is_in_place()) {
            tracing::warn!("the audit index was removed; it is rebuilt");
            self.index = None;
            self.open(tail);
        }
    }

    /// Bytes of the log that the index lacks, when they are all in the last segment.
    pub fn gap(&self, end: (u64, u64)) -> Option<u64> {
        let (segment, offset) = self.index.as_ref()?.resume_at(&self.directory).ok()??;
        (segment == end.0).then(|| end.1.saturating_sub(offset))
    }

    /// Takes up to `most` more lines from the log; true when it has come up to the log's end.
    pub fn advance(&mut self, end: (u64, u64), most: usize) -> bool {
        let (Some(catch_up), Some(index)) = (&mut self.catch_up, &mut self.index) else { return false };
        let taken = catch_up.read(end, most).and_then(|lines| {
            index.take(&lines).map_err(io::Error::other)?;
            Ok(lines.len())
        });
        match taken {
            Ok(0) => {
                self.catch_up = None;
                self.status.rebuilding.store(false, Ordering::Release);
                tracing::info!("the audit index holds the log through line {}", index.through());
                true
            }
            Ok(count) => {
                self.since_checkpoint += count;
                self.status.indexed_through.store(index.through(), Ordering::Release);
                false
            }
            Err(error) => {
                // The chunk was read but not taken: begin again from where the index stands.
                self.index = None;
                self.catch_up = None;
                self.failed(&error);
                false
            }
        }
    }

    /// Takes lines in; false when that failed.
    pub fn take(&mut self, lines: &[Pending]) -> bool {
        let Some(index) = self.index.as_mut() else { return false };
        match index.take(lines) {
            Ok(()) => {
                self.since_checkpoint += lines.len();
                self.status.indexed_through.store(index.through(), Ordering::Release);
                true
            }
            Err(error) => {
                self.failed(&io::Error::other(error));
                false
            }
        }
    }

    pub fn event(&self, event_id: &str) -> Result<Option<EventState>, AuditError> {
        self.ask(|index| index.event(event_id)).map(Option::flatten)
    }

    pub fn has_loss(&self, event_id: &str) -> Result<bool, AuditError> {
        self.ask(|index| index.has_loss(event_id)).map(|known| known.unwrap_or(false))
    }

    fn ask<T>(&self, question: impl FnOnce(&Index) -> rusqlite::Result<T>) -> Result<Option<T>, AuditError> {
        let answer = self.index.as_ref().map(question).transpose();
        answer.map_err(|error| AuditError::Storage { full: false, message: format!("the audit index fails: {error}") })
    }

    pub fn wants_checkpoint(&self) -> bool {
        self.since_checkpoint > 0
    }

    /// Moves what SQLite keeps beside the index into it: when nobody waits, or when it is much.
    pub fn checkpoint(&mut self, settled: bool) {
        if self.since_checkpoint >= CHECKPOINT || (settled && self.since_checkpoint > 0) {
            self.since_checkpoint = 0;
            if let Some(Err(error)) = self.index.as_ref().map(Index::checkpoint) {
                tracing::warn!("the audit index cannot be checkpointed: {error}");
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        tracing::error!("the audit index cannot be written: {error}");
        self.status.set_trouble(Some(format!("the audit index cannot be written: {error}")));
        self.status.rebuilding.store(!self.is_exact(), Ordering::Release);
        self.retry_at = Some(Instant::now() + RETRY);
    }
}
