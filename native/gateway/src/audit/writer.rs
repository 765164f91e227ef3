//! The one thread that owns log and index, and the handle that requests talk to it through.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, path::Path};

use aasm_wire::shapes::Head;
use tokio::sync::oneshot;

use super::entry::Entry;
use super::keeper::Keeper;
use super::log::Log;
use super::segment::Position;

/// Requests that wait for the writer; one more is told to come back.
const QUEUE: usize = 4096;

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    Written {
        seq: u64,
    },
    /// The log has it already; where its begin stands, if it has one.
    Duplicate {
        begin: Option<Position>,
    },
    /// It contradicts what the log has.
    Refused(&'static str),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log cannot be written: {message}")]
    Storage { full: bool, message: String },
    #[error("the audit log is behind; try again")]
    Busy,
    #[error("the audit index is being rebuilt; try again")]
    Rebuilding,
    #[error("the audit log is closed")]
    Closed,
}

impl AuditError {
    pub fn storage(error: &io::Error) -> Self {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        Self::Storage { full, message: error.to_string() }
    }
}

pub type Reply<T> = oneshot::Sender<T>;

/// Entries of one request; they are answered together.
pub struct Append {
    pub entries: Vec<Entry>,
    /// Answered only when the disk has it.
    pub durable: bool,
    pub reply: Reply<Result<Vec<Disposition>, AuditError>>,
}

pub enum Command {
    Append(Append),
    /// Bring the index up to what was acknowledged.
    Index(Reply<()>),
    Stop(Reply<()>),
}

/// What the writer lets others see.
pub struct Status {
    head: Mutex<Head>,
    trouble: Mutex<Option<String>>,
    pub indexed_through: AtomicU64,
    pub rebuilding: AtomicBool,
    pub closed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    /// Of a log that was just opened: its index is yet to come.
    pub fn new(head: Head) -> Self {
        Self {
            head: Mutex::new(head),
            trouble: Mutex::new(None),
            indexed_through: AtomicU64::new(0),
            rebuilding: AtomicBool::new(true),
            closed: AtomicBool::new(false),
        }
    }

    pub fn set_head(&self, seq: u64, hash: &str) {
        let mut head = lock(&self.head);
        head.seq = seq;
        hash.clone_into(&mut head.hash);
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    pub fn is_in_trouble(&self) -> bool {
        lock(&self.trouble).is_some()
    }
}

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct Audit {
    commands: SyncSender<Command>,
    status: Arc<Status>,
}

impl Audit {
    /// Opens the log and starts the thread. The notes say what a crash had left.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<String>, JoinHandle<()>)> {
        let (log, notes) = Log::open(directory)?;
        let (commands, receiver) = sync_channel(QUEUE);
        let status = Arc::new(Status::new(Head { seq: log.link().seq, hash: log.link().hash.clone() }));
        let shared = Arc::clone(&status);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || {
            let _closing = Closing(Arc::clone(&shared));
            run(Keeper::new(log, shared), &receiver);
        })?;
        Ok((Self { commands, status }, notes, thread))
    }

    /// Appends entries; each is written once per event and phase.
    pub async fn append(&self, entries: Vec<Entry>, durable: bool) -> Result<Vec<Disposition>, AuditError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Append(Append { entries, durable, reply }))?;
        answer.await.unwrap_or(Err(AuditError::Closed))
    }

    /// Waits until everything acknowledged before can be found; gives up after a second.
    pub async fn flush_index(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Command::Index(reply)).is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(1), answer).await;
        }
    }

    /// Writes what is queued, makes it durable and ends the thread.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        let mut command = Command::Stop(reply);
        while let Err(TrySendError::Full(back)) = self.commands.try_send(command) {
            command = back;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = answer.await;
    }

    pub fn head(&self) -> Head {
        lock(&self.status.head).clone()
    }

    pub fn indexed_through(&self) -> u64 {
        self.status.indexed_through.load(Ordering::Acquire)
    }

    pub fn is_rebuilding(&self) -> bool {
        self.status.rebuilding.load(Ordering::Acquire)
    }

    /// `ok`, or what is wrong.
    pub fn storage(&self) -> String {
        if self.status.closed.load(Ordering::Acquire) {
            return "the audit log is closed".to_owned();
        }
        lock(&self.status.trouble).clone().unwrap_or_else(|| "ok".to_owned())
    }

    fn send(&self, command: Command) -> Result<(), AuditError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => AuditError::Busy,
            TrySendError::Disconnected(_) => AuditError::Closed,
        })
    }
}

/// Says that the thread has ended, however it ended.
struct Closing(Arc<Status>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

/// Entries that are written together at most.
const BATCH: usize = 512;

fn run(mut keeper: Keeper, commands: &Receiver<Command>) {
    keeper.start();
    loop {
        let first = commands.recv_timeout(keeper.patience());
        let idle = match &first {
            Ok(_) => false,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => true,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return keeper.close(),
        };
        let (mut appends, mut waiting, mut stop, mut entries) = (Vec::new(), Vec::new(), None, 0);
        let mut next = first.ok();
        while let Some(command) = next.take() {
            match command {
                Command::Append(append) => {
                    entries += append.entries.len();
                    appends.push(append);
                }
                Command::Index(reply) => waiting.push(reply),
                Command::Stop(reply) => stop = Some(reply),
            }
            if entries < BATCH {
                next = commands.try_recv().ok();
            }
        }
        keeper.append(appends);
        keeper.tend(idle, !waiting.is_empty());
        for reply in waiting {
            let _ = reply.send(());
        }
        if let Some(reply) = stop {
            keeper.close();
            let _ = reply.send(());
            return;
        }
    }
}
