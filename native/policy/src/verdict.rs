//! What the policy says to a call.

use serde::Serialize;

/// What may happen with a call, from the most permissive to the most restrictive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Allow,
    Redact,
    Approve,
    Deny,
}

impl Decision {
    /// The name that policies, the wire and the records use.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Allow => "allow",
            Decision::Redact => "redact",
            Decision::Approve => "approve",
            Decision::Deny => "deny",
        }
    }
}

/// A decision, with who took it and why in words that a model can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
    pub rule: Option<String>,
    pub policy: Option<String>,
    /// `rule`, `default` or `starter`; `policy_error` when the call cannot be judged.
    pub code: &'static str,
}
