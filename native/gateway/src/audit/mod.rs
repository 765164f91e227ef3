//! The audit log: append-only segments whose lines are chained by hash, and an index over them that can be rebuilt.

pub mod catch_up;
pub mod chain;
pub mod entry;
mod event;
pub mod head;
pub mod index;
mod indexer;
mod keeper;
pub mod log;
pub mod query;
pub mod segment;
pub mod tail;
pub mod verify;
pub mod writer;

pub use entry::{Begin, End, Entry};
pub use writer::{Audit, AuditError, Disposition};
