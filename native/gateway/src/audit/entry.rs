//! What is written: the members of each type of line.

use serde::{Deserialize, Serialize};

/// `via` of a begin that the gateway wrote when it gave the verdict.
pub const CHECK: &str = "check";

/// `via` of a begin that the agent reported.
pub const EVENTS: &str = "events";

/// `begin`: the call and its verdict, before the body may run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    pub event_id: String,
    pub agent_id: String,
    pub instance_id: String,
    pub run_id: Option<String>,
    pub call_id: String,
    pub attempt: u32,
    pub kind: String,
    pub tool: String,
    pub framework: Option<String>,
    pub server: Option<String>,
    pub agent_name: Option<String>,
    pub parent_event_id: Option<String>,
    pub digest: Option<String>,
    pub arguments_bytes: u64,
    pub cwd: Option<String>,
    pub decision: String,
    pub reason: String,
    pub rule: Option<String>,
    pub policy: Option<String>,
    pub revision: Option<String>,
    pub code: String,
    pub decided_by: String,
    pub enforcement_mode: String,
    pub evaluated: bool,
    /// `CHECK` or `EVENTS`.
    pub via: String,
    pub adopted: bool,
    /// By the agent's clock.
    pub agent_time: Option<String>,
}

/// `end`: what then happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub event_id: String,
    pub agent_id: String,
    pub instance_id: String,
    pub run_id: Option<String>,
    pub outcome: String,
    pub error_type: Option<String>,
    pub duration_nanos: Option<u64>,
    pub result_digest: Option<String>,
    pub adopted: bool,
    pub agent_time: Option<String>,
}

/// `loss`: what could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Makes a loss that is reported twice one loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    pub agent_id: Option<String>,
    pub instance_id: Option<String>,
    pub run_id: Option<String>,
    /// How many records; null when that cannot be known.
    pub lost: Option<u64>,
    /// What was lost and where.
    pub detail: String,
}

/// The members that the index needs, of any type of line.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Columns {
    pub event_id: Option<String>,
    pub agent_id: Option<String>,
    pub instance_id: Option<String>,
    pub run_id: Option<String>,
    pub tool: Option<String>,
    pub decision: Option<String>,
    pub code: Option<String>,
    pub digest: Option<String>,
    pub via: Option<String>,
    pub outcome: Option<String>,
}

/// A type of line; events are indexed and written once per event and phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineType {
    Begin,
    End,
    Run,
    Agent,
    Leave,
    Policy,
    Loss,
    Gateway,
}

impl LineType {
    const ALL: [Self; 8] =
        [Self::Begin, Self::End, Self::Run, Self::Agent, Self::Leave, Self::Policy, Self::Loss, Self::Gateway];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|line_type| line_type.as_str() == text)
    }

    /// Whether the index keeps lines of this type.
    pub const fn is_indexed(self) -> bool {
        matches!(self, Self::Begin | Self::End | Self::Loss)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::End => "end",
            Self::Run => "run",
            Self::Agent => "agent",
            Self::Leave => "leave",
            Self::Policy => "policy",
            Self::Loss => "loss",
            Self::Gateway => "gateway",
        }
    }
}

/// A line that waits for its place in the chain.
#[derive(Debug, Clone)]
pub struct Entry {
    pub line_type: LineType,
    /// JSON members without braces.
    pub members: Vec<u8>,
    pub columns: Columns,
}

impl Entry {
    pub fn begin(begin: &Begin) -> Self {
        let columns = Columns {
            event_id: Some(begin.event_id.clone()),
            agent_id: Some(begin.agent_id.clone()),
            instance_id: Some(begin.instance_id.clone()),
            run_id: begin.run_id.clone(),
            tool: Some(begin.tool.clone()),
            decision: Some(begin.decision.clone()),
            code: Some(begin.code.clone()),
            digest: begin.digest.clone(),
            via: Some(begin.via.clone()),
            outcome: None,
        };
        Self { line_type: LineType::Begin, members: members(begin), columns }
    }

    pub fn end(end: &End) -> Self {
        let columns = Columns {
            event_id: Some(end.event_id.clone()),
            agent_id: Some(end.agent_id.clone()),
            instance_id: Some(end.instance_id.clone()),
            run_id: end.run_id.clone(),
            outcome: Some(end.outcome.clone()),
            ..Columns::default()
        };
        Self { line_type: LineType::End, members: members(end), columns }
    }

    pub fn loss(loss: &Loss) -> Self {
        let columns = Columns { event_id: loss.event_id.clone(), ..Columns::default() };
        Self { line_type: LineType::Loss, members: members(loss), columns }
    }

    /// A line that the index does not keep.
    pub fn other(line_type: LineType, content: &impl Serialize) -> Self {
        Self { line_type, members: members(content), columns: Columns::default() }
    }
}

/// The members of an object, without its braces. Our contents are plain structures, which always serialise.
fn members(content: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(content).unwrap_or_default();
    json.pop();
    if !json.is_empty() {
        json.remove(0);
    }
    json
}
