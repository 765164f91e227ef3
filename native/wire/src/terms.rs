//! The closed sets of the contract.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How hard a verdict bites; ordered from lax to strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnforcementMode {
    Disabled,
    Observe,
    Enforce,
}

impl EnforcementMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Disabled, Self::Observe, Self::Enforce].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What happens to child processes that may not be governed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Children {
    Inherit,
    Strict,
    Off,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    Tool,
}

/// The values that a verdict's `decision` may have.
pub const DECISIONS: [&str; 4] = ["allow", "deny", "redact", "approve"];

/// The values that a call's `outcome` may have.
pub const OUTCOMES: [&str; 6] = ["returned", "raised", "refused", "cancelled", "suspended", UNKNOWN];

/// The outcome of a call whose process ended before it could say.
pub const UNKNOWN: &str = "unknown";

/// The values that a verdict's `code` may have.
pub const CODES: [&str; 15] = [
    "rule",
    "default",
    "starter",
    "arguments_too_large",
    "arguments_changed",
    "arguments_opaque",
    "gateway_unreachable",
    "gateway_timeout",
    "gateway_error",
    "not_registered",
    "spool_full",
    "unknown_run",
    "policy_error",
    "unevaluated",
    "not_armed",
];

/// Who may have given a verdict.
pub const DECIDERS: [&str; 2] = ["gateway", "agent"];
