//! What the log holds of one event, and what may still be written of it.

use aasm_wire::terms::UNKNOWN;

use super::entry::{Entry, LineType};
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

/// What the log holds of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventState {
    pub instance_id: Option<String>,
    pub begin: Option<Position>,
    pub end: EndState,
}

impl EventState {
    /// Why a further line of the event is not written, if so.
    pub fn contradiction(&self, entry: &Entry) -> Option<Disposition> {
        if self.instance_id != entry.columns.instance_id {
            return Some(Disposition::Refused("the event belongs to another instance"));
        }
        let unknown = entry.columns.outcome.as_deref() == Some(UNKNOWN);
        let known = match (entry.line_type, self.end) {
            (LineType::Begin, _) => self.begin.is_some(),
            (_, EndState::Open) => false,
            (_, EndState::Unknown) => unknown,
            (_, EndState::Known) => true,
        };
        known.then_some(Disposition::Duplicate { begin: self.begin })
    }

    /// What the log holds when the line is written, at its position.
    pub fn after(before: Option<Self>, entry: &Entry, position: Position) -> Self {
        let fresh = || Self { instance_id: entry.columns.instance_id.clone(), begin: None, end: EndState::Open };
        let mut state = before.unwrap_or_else(fresh);
        match (entry.line_type, entry.columns.outcome.as_deref()) {
            (LineType::Begin, _) => state.begin = Some(position),
            (_, Some(UNKNOWN)) => state.end = EndState::Unknown,
            _ => state.end = EndState::Known,
        }
        state
    }
}
