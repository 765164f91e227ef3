//! The policy engine: one meaning of a policy, inside the agent and inside the gateway.
//!
//! [`load`] parses, checks and compiles documents, all or nothing; [`evaluate`] gives a verdict. No I/O, no clock, no
//! panics: every input has an answer, and every answer takes bounded time.
//!
//! What the checker decides where the document leaves it open:
//!
//! - A policy may be without `rules`, or have none, only when it has a `default`; the shortest policy is one that says
//!   `default: deny`.
//! - Everything that would be ignored is refused: a field or value that is known but not supported yet, a rule that can
//!   never decide (an allow of which all is denied; a rule of which earlier ones with the same effect have all), a YAML
//!   directive. A deny of everything may stand below other denies, which then give their own reasons; above them it
//!   makes them dead.
//! - Whether one pattern covers another is seen for names and for patterns with one `*` at an end; of two others only
//!   when they are equal.
//! - Names, ids and reasons have bounds, are not empty, and names and ids are one line without white space at the ends.
//!   Line breaks in a reason become spaces.
//! - Policy names are unique within what is loaded together; two sets, as the operator's and a run's, may share one.
#![forbid(unsafe_code)]

mod call;
mod check;
mod compile;
mod diagnostic;
mod document;
mod evaluate;
mod keys;
mod names;
mod pattern;
mod read;
mod scalar;
mod set;
mod source;
mod starter;
mod suggest;
mod verdict;
mod yaml;

pub use call::{Call, Kind};
pub use compile::MAX_PATTERNS;
pub use diagnostic::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS};
pub use evaluate::{MAX_TOOL, evaluate};
pub use pattern::MAX_PATTERN;
pub use read::{MAX_NAME, MAX_REASON};
pub use set::{PolicySet, load};
pub use source::{MAX_SOURCE_BYTES, Source};
pub use verdict::{Decision, Verdict};
pub use yaml::MAX_DEPTH;
