//! What the log holds of one event, and what may still be written of it.

use aasm_wire::terms::UNKNOWN;

use super::entry::{CHECK, Columns, Entry, LineType};
use super::segment::Position;
use super::writer::Disposition;

/// The phase that an event's end is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndState {
    Open,
    /// Its process died; the real outcome may still come.
    Unknown,
    Known,
}

/// An event's first begin: where it stands, and what a later one is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    pub position: Position,
    pub decision: Option<String>,
    pub code: Option<String>,
    /// Of the call's digest; `None` when the begin names none.
    pub digest: Option<i64>,
}

impl Begun {
    /// Whether a begin tells of the same verdict on the same call, as far as it says.
    fn agrees(&self, other: &Columns) -> bool {
        let digest = other.digest.as_deref().and_then(digest_prefix);
        self.decision == other.decision
            && self.code == other.code
            && (self.digest.is_none() || digest.is_none() || self.digest == digest)
    }
}

/// The first 64 bits of a digest: enough to tell two calls apart, and an eighth of its text.
pub fn digest_prefix(digest: &str) -> Option<i64> {
    let digits = digest.strip_prefix("sha256:")?.get(..16)?;
    u64::from_str_radix(digits, 16).ok().map(u64::cast_signed)
}

/// What the log holds of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventState {
    pub instance_id: Option<String>,
    pub begin: Option<Begun>,
    /// The agent has reported another verdict than the first begin's.
    pub contested: bool,
    pub end: EndState,
}

impl EventState {
    /// Why a further line of the event is not written, if so.
    ///
    /// A begin that tells of another verdict than the first is written too, once: the agent may have denied what the
    /// gateway allowed, because no answer came in time or because the arguments had changed.
    pub fn contradiction(&self, entry: &Entry) -> Option<Disposition> {
        let columns = &entry.columns;
        if self.instance_id != columns.instance_id {
            return Some(Disposition::Refused("the event belongs to another instance"));
        }
        let unknown = columns.outcome.as_deref() == Some(UNKNOWN);
        let known = match (entry.line_type, self.end) {
            (LineType::Begin, _) => self
                .begin
                .as_ref()
                .is_some_and(|begun| self.contested || columns.via.as_deref() == Some(CHECK) || begun.agrees(columns)),
            (_, EndState::Open) => false,
            (_, EndState::Unknown) => unknown,
            (_, EndState::Known) => true,
        };
        known.then_some(Disposition::Duplicate { begin: self.begin.as_ref().map(|begun| begun.position) })
    }

    /// What the log holds when the line is written, at its position.
    pub fn after(before: Option<Self>, entry: &Entry, position: Position) -> Self {
        let columns = &entry.columns;
        let fresh =
            || Self { instance_id: columns.instance_id.clone(), begin: None, contested: false, end: EndState::Open };
        let mut state = before.unwrap_or_else(fresh);
        match (entry.line_type, columns.outcome.as_deref()) {
            (LineType::Begin, _) if state.begin.is_some() => state.contested = true,
            (LineType::Begin, _) => {
                let digest = columns.digest.as_deref().and_then(digest_prefix);
                let (decision, code) = (columns.decision.clone(), columns.code.clone());
                state.begin = Some(Begun { position, decision, code, digest });
            }
            (_, Some(UNKNOWN)) => state.end = EndState::Unknown,
            _ => state.end = EndState::Known,
        }
        state
    }
}
