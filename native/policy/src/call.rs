//! What a verdict is asked about.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What an agent is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Tool,
    Llm,
    Network,
    Exec,
    File,
    Spawn,
}

/// One action of an agent, as the policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub kind: Kind,
    pub tool: &'a str,
    pub framework: Option<&'a str>,
    pub server: Option<&'a str>,
    /// The arguments in canonical form.
    pub args: &'a RawValue,
}
