//! What the writer's thread keeps: the log, the index, and what is in the one and not yet in the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aasm_wire::identifier::event_millis;

use super::chain::MAX_LINE;
use super::entry::{Columns, Entry, LineType};
use super::event::EventState;
use super::index::Pending;
use super::indexer::{Indexer, RETRY};
use super::log::{Batch, Log};
use super::writer::{Append, AuditError, Disposition, Status};
use crate::clock;

/// Lines taken into the index at once: few enough that a request hardly waits for it.
const CHUNK: usize = 256;

/// Lines taken in at once while the index catches up and nobody waits.
const LARGE_CHUNK: usize = 2048;

/// The index is brought up when nothing came for this long, and whatever comes after `LATEST`.
const QUIET: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_millis(500);

/// Events that may wait for an index that is behind, before requests are refused.
const MOST_PENDING: usize = 200_000;

/// Missing lines up to this many bytes are indexed before the first request is served.
const SMALL_GAP: u64 = 4 << 20;

fn millis(micros: i64) -> u64 {
    u64::try_from(micros / 1000).unwrap_or(0)
}

pub struct Keeper {
    log: Log,
    index: Indexer,
    status: Arc<Status>,
    /// In the log, not in the index.
    pending: Vec<Pending>,
    pending_since: Option<Instant>,
    /// The events among them, and those written while the index catches up.
    states: HashMap<String, EventState>,
    losses: HashSet<String>,
    /// No event of an earlier gateway is younger than this.
    earlier_millis: u64,
    refused: u64,
}

/// What a failed write must take back.
#[derive(Default)]
struct Staged {
    states: Vec<(String, Option<EventState>)>,
    losses: Vec<String>,
    pending: usize,
}

impl Keeper {
    pub fn new(log: Log, status: Arc<Status>) -> Self {
        Self {
            index: Indexer::new(log.directory(), Arc::clone(&status)),
            // The clock may have gone back since the log's last line.
            earlier_millis: millis(clock::now_micros().max(log.last_time().unwrap_or(0))),
            log,
            status,
            pending: Vec::new(),
            pending_since: None,
            states: HashMap::new(),
            losses: HashSet::new(),
            refused: 0,
        }
    }

    /// Opens the index; a small gap is closed here, a large one in the background.
    pub fn start(&mut self) {
        self.index.open(self.log.link());
        let end = self.log.end().unwrap_or((0, 0));
        if self.index.gap(end).is_some_and(|gap| gap <= SMALL_GAP) {
            while self.index.is_catching_up() {
                self.index.advance(end, LARGE_CHUNK);
            }
        }
    }

    /// How long the thread may wait for a request before it should tend to itself.
    pub fn patience(&self) -> Duration {
        if self.index.is_resting() || self.status.is_in_trouble() {
            RETRY
        } else if self.index.is_catching_up() {
            Duration::ZERO
        } else if !self.pending.is_empty() {
            QUIET
        } else if self.log.has_unsynced() || self.index.wants_checkpoint() {
            RETRY
        } else {
            Duration::from_secs(3600)
        }
    }

    /// Writes what is new in the requests' entries, all of it with one write, and answers each request.
    pub fn append(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let micros = clock::now_micros();
        let time = clock::rfc3339(micros);
        let mut batch = self.log.batch();
        let mut staged = Staged { pending: self.pending.len(), ..Staged::default() };
        let mut durable = false;
        let mut answers = Vec::with_capacity(appends.len());
        for append in &appends {
            let answer = self.stage_all(append, &mut batch, &mut staged, micros, &time);
            durable |= append.durable && answer.is_ok();
            answers.push(answer);
        }
        if let Err(error) = self.log.commit(batch, durable) {
            self.take_back(staged);
            self.refused += appends.len() as u64;
            tracing::error!("the audit log cannot be written: {error}");
            self.status.set_trouble(Some(format!("the audit log cannot be written: {error}")));
            for append in appends {
                let _ = append.reply.send(Err(AuditError::storage(&error)));
            }
            return;
        }
        self.written();
        for (append, answer) in appends.into_iter().zip(answers) {
            let _ = append.reply.send(answer);
        }
    }

    fn written(&mut self) {
        if let Err(error) = self.log.write_head() {
            tracing::warn!("audit/head cannot be written: {error}");
        }
        let link = self.log.link();
        self.status.set_head(link.seq, &link.hash);
        if self.index.is_catching_up() {
            // These lines reach the index by way of the log.
            self.pending.clear();
        } else if !self.pending.is_empty() && self.pending_since.is_none() {
            self.pending_since = Some(Instant::now());
        }
        if self.status.is_in_trouble() && !self.index.is_resting() {
            tracing::info!("the audit log can be written again; {} requests were refused", self.refused);
            self.refused = 0;
            self.status.set_trouble(None);
        }
    }

    fn take_back(&mut self, staged: Staged) {
        self.pending.truncate(staged.pending);
        for (event_id, before) in staged.states.into_iter().rev() {
            match before {
                Some(state) => self.states.insert(event_id, state),
                None => self.states.remove(&event_id),
            };
        }
        for event_id in staged.losses {
            self.losses.remove(&event_id);
        }
    }

    fn stage_all(
        &mut self,
        append: &Append,
        batch: &mut Batch,
        staged: &mut Staged,
        micros: i64,
        time: &str,
    ) -> Result<Vec<Disposition>, AuditError> {
        if self.states.len() > MOST_PENDING {
            return Err(AuditError::Busy);
        }
        if !self.index.is_exact() && append.entries.iter().any(|entry| !self.is_surely_new(entry)) {
            return Err(AuditError::Rebuilding);
        }
        append.entries.iter().map(|entry| self.stage(entry, batch, staged, micros, time)).collect()
    }

    /// Whether an event cannot be in the part of the log that the index has not seen: it is younger than what an earlier
    /// gateway can have written, or this one wrote it.
    fn is_surely_new(&self, entry: &Entry) -> bool {
        match (&entry.line_type, &entry.columns.event_id) {
            (LineType::Begin, Some(id)) => {
                self.states.contains_key(id) || event_millis(id).is_some_and(|millis| millis >= self.earlier_millis)
            }
            (_, Some(_)) => false,
            (_, None) => true,
        }
    }

    fn stage(
        &mut self,
        entry: &Entry,
        batch: &mut Batch,
        staged: &mut Staged,
        micros: i64,
        time: &str,
    ) -> Result<Disposition, AuditError> {
        if entry.members.len() > MAX_LINE - 1024 {
            return Ok(Disposition::Refused("the record is too long"));
        }
        let mut before = None;
        if let Some(event_id) = entry.columns.event_id.as_deref() {
            if entry.line_type == LineType::Loss {
                if self.losses.contains(event_id) || self.index.has_loss(event_id)? {
                    return Ok(Disposition::Duplicate { begin: None });
                }
            } else {
                before = match self.states.get(event_id) {
                    Some(state) => Some(state.clone()),
                    None => self.index.event(event_id)?,
                };
                if let Some(disposition) = before.as_ref().and_then(|state| state.contradiction(entry)) {
                    return Ok(disposition);
                }
            }
        }
        let (seq, position) = batch.push(time, entry.line_type.as_str(), &entry.members);
        if let Some(event_id) = &entry.columns.event_id {
            if entry.line_type == LineType::Loss {
                self.losses.insert(event_id.clone());
                staged.losses.push(event_id.clone());
            } else {
                let state = EventState::after(before, entry, position);
                staged.states.push((event_id.clone(), self.states.insert(event_id.clone(), state)));
            }
        }
        let columns = if entry.line_type.is_indexed() { entry.columns.clone() } else { Columns::default() };
        let hash = batch.hash().to_owned();
        self.pending.push(Pending { seq, hash, time: micros, line_type: entry.line_type, columns, position });
        Ok(Disposition::Written { seq })
    }

    /// What is done between requests: index, catch up, sync, see whether what failed works again.
    pub fn tend(&mut self, idle: bool, asked: bool) {
        let settled = idle && self.pending.is_empty();
        self.index.retry(self.log.link());
        if !self.index.is_resting() {
            if self.index.is_catching_up() {
                let end = self.log.end().unwrap_or((0, 0));
                if self.index.advance(end, if idle { LARGE_CHUNK } else { CHUNK }) {
                    self.forget_pending();
                }
            } else {
                if asked || idle {
                    self.index.replace_if_lost(self.log.link());
                }
                let due = self.pending_since.is_some_and(|since| since.elapsed() >= LATEST);
                if asked || idle || due || self.pending.len() >= CHUNK {
                    self.index_pending();
                }
            }
        }
        if settled {
            if self.status.is_in_trouble() {
                self.try_writing();
            }
            if let Err(error) = self.log.sync() {
                self.status.set_trouble(Some(format!("the audit log cannot be synced: {error}")));
            }
        }
        self.index.checkpoint(settled);
    }

    fn index_pending(&mut self) {
        if !self.index.is_catching_up() && !self.pending.is_empty() && self.index.take(&self.pending) {
            self.forget_pending();
        }
    }

    fn forget_pending(&mut self) {
        self.pending.clear();
        self.pending_since = None;
        self.states.clear();
        self.losses.clear();
    }

    /// Storage failed earlier and nobody writes: a line of our own shows whether it works again.
    fn try_writing(&mut self) {
        let mut batch = self.log.batch();
        let micros = clock::now_micros();
        let members = format!(r#""event":"storage_recovered","refused":{}"#, self.refused);
        let (seq, position) = batch.push(&clock::rfc3339(micros), LineType::Gateway.as_str(), members.as_bytes());
        let hash = batch.hash().to_owned();
        if self.log.commit(batch, true).is_ok() {
            let columns = Columns::default();
            self.pending.push(Pending { seq, hash, time: micros, line_type: LineType::Gateway, columns, position });
            self.written();
        }
    }

    /// Everything durable, the index up to the end.
    pub fn close(&mut self) {
        if let Err(error) = self.log.close() {
            tracing::error!("the audit log cannot be synced: {error}");
        }
        if !self.index.is_catching_up() {
            self.index_pending();
        }
        self.index.checkpoint(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Begin;
    use crate::audit::chain::Link;

    /// While the index is behind, an event is new only when no earlier gateway can have written it, also when the clock
    /// has gone back since.
    #[test]
    fn a_clock_that_went_back() {
        let home = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(home.path()).unwrap();
        let surely_new = |log: Log, millis: u64| {
            let Link { seq, hash } = log.link().clone();
            let keeper = Keeper::new(log, Arc::new(Status::new(aasm_wire::shapes::Head { seq, hash })));
            let event_id = format!("{millis:012x}{}", "0".repeat(20));
            keeper.is_surely_new(&Entry::begin(&Begin { event_id, ..Begin::default() }))
        };
        let hence = millis(clock::now_micros()) + 3_600_000;
        let mut batch = log.batch();
        batch.push(&clock::rfc3339(i64::try_from(hence * 1000).unwrap()), "gateway", br#""event":"test""#);
        log.commit(batch, false).unwrap();
        drop(log);
        let reopened = || Log::open(home.path()).unwrap().0;
        assert!(!surely_new(reopened(), hence - 1000));
        assert!(surely_new(reopened(), hence + 1000));
    }
}
