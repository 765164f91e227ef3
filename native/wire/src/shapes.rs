//! Requests and answers, as JSON.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::terms::{CallKind, Children, EnforcementMode};

/// `GET /healthz`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    pub mode: String,
    pub version: String,
    /// `ok`, or what is wrong with it.
    pub storage: String,
    pub uptime_secs: u64,
    pub policy_revision: String,
    /// `starter` or `files`.
    pub policy_source: String,
    /// What agents are held to at least; earlier versions do not say it.
    pub min_enforcement: Option<EnforcementMode>,
    /// Over the challenge and the port; absent without a challenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

/// A policy for one run, in addition to the operator's.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunPolicy {
    /// What messages show as the file.
    pub name: String,
    pub text: String,
}

/// `POST /v1/runs`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunRequest {
    pub run_id: String,
    pub command: Vec<String>,
    pub host: String,
    pub pid: u32,
    pub cwd: String,
    pub enforcement_mode: Option<EnforcementMode>,
    pub children: Option<Children>,
    pub sdk_version: String,
    pub policy: Option<RunPolicy>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunAnswer {
    pub run_id: String,
    pub policy_revision: String,
    pub min_enforcement: EnforcementMode,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Framework {
    pub name: String,
    pub version: Option<String>,
}

/// `POST /v1/agents`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentRequest {
    pub agent_id: String,
    pub instance_id: String,
    pub run_id: Option<String>,
    pub sdk_version: String,
    pub python_version: String,
    #[serde(default)]
    pub frameworks: Vec<Framework>,
    pub enforcement_mode: Option<EnforcementMode>,
    pub parent_agent_id: Option<String>,
    pub team_id: Option<String>,
    /// At most 256 characters.
    pub delegation_reason: Option<String>,
    pub spawned_by_tool: Option<String>,
    pub depth: Option<u32>,
    pub pid: u32,
    pub host: String,
}

/// What the operator has said to this agent; sticky.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct Signals {
    pub paused: bool,
    pub terminated: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentAnswer {
    pub session_token: String,
    pub agent_id: String,
    pub instance_id: String,
    /// The effective one.
    pub enforcement_mode: EnforcementMode,
    pub policy_revision: String,
    pub policy_source: String,
    pub policies: Vec<String>,
    pub signals: Signals,
    pub gateway_version: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatAnswer {
    pub policy_revision: String,
    pub signals: Signals,
}

/// `POST /v1/check`. `args` is in canonical form: `digest` covers its bytes as they are sent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckRequest {
    pub event_id: String,
    pub call_id: String,
    /// From 1.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    pub kind: CallKind,
    pub tool: String,
    pub framework: Option<String>,
    pub server: Option<String>,
    pub agent_name: Option<String>,
    pub parent_event_id: Option<String>,
    pub cwd: Option<String>,
    #[schema(value_type = Object)]
    pub args: Box<RawValue>,
    pub digest: String,
}

fn first_attempt() -> u32 {
    1
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckAnswer {
    /// `allow`, `deny`, `redact` or `approve`.
    pub decision: String,
    pub reason: String,
    pub rule: Option<String>,
    pub policy: Option<String>,
    pub revision: String,
    pub code: String,
    #[schema(value_type = Vec<Object>)]
    pub redactions: Vec<serde_json::Value>,
    pub approval_id: Option<String>,
    /// The call's `event_id`.
    pub decision_id: String,
    pub enforcement_mode: EnforcementMode,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Rejected {
    pub event_id: String,
    pub reason: String,
}

/// `POST /v1/events`: given when everything accepted is durable.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct EventsAnswer {
    pub accepted: usize,
    pub duplicates: usize,
    pub rejected: Vec<Rejected>,
}

/// One attempt of one call, as `GET /v1/audit` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    pub seq: u64,
    /// When the gateway wrote it down, RFC 3339.
    pub time: String,
    pub agent_id: Option<String>,
    pub instance_id: Option<String>,
    pub run_id: Option<String>,
    pub tool: Option<String>,
    pub framework: Option<String>,
    pub server: Option<String>,
    pub decision: Option<String>,
    pub reason: Option<String>,
    pub rule: Option<String>,
    pub policy: Option<String>,
    pub revision: Option<String>,
    pub code: Option<String>,
    pub enforcement_mode: Option<String>,
    pub decided_by: Option<String>,
    pub evaluated: Option<bool>,
    pub call_id: Option<String>,
    pub attempt: Option<u32>,
    pub event_id: String,
    pub parent_event_id: Option<String>,
    pub digest: Option<String>,
    /// Null while the call is open.
    pub outcome: Option<String>,
    pub error_type: Option<String>,
    pub duration_ms: Option<f64>,
    pub end_seq: Option<u64>,
    pub adopted: bool,
    /// What the agent says that it acted on, where that is not the verdict above; null where it is.
    pub agent_verdict: Option<AgentVerdict>,
}

/// A verdict that an agent reports otherwise than the gateway gave it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentVerdict {
    pub decision: String,
    pub reason: String,
    pub code: String,
}

/// The last line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    pub seq: u64,
    pub hash: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditAnswer {
    pub records: Vec<AuditRow>,
    /// Give it as `before` (descending) or `after` (ascending) for the next page.
    pub next: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Lines up to this one are in the index.
    pub indexed_through: u64,
    pub head: Head,
}

/// One instance, as `GET /v1/agents` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentRow {
    pub agent_id: String,
    pub instance_id: String,
    pub run_id: Option<String>,
    /// `active`, `left` or `lost`.
    pub state: String,
    pub enforcement_mode: EnforcementMode,
    /// What the agent asked for.
    pub requested_mode: Option<EnforcementMode>,
    pub team_id: Option<String>,
    pub parent_agent_id: Option<String>,
    pub delegation_reason: Option<String>,
    pub spawned_by_tool: Option<String>,
    pub depth: Option<u32>,
    pub sdk_version: String,
    pub python_version: String,
    pub frameworks: Vec<Framework>,
    pub pid: u32,
    pub host: String,
    pub registered_at: String,
    pub last_seen: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentsAnswer {
    pub agents: Vec<AgentRow>,
}

/// One run, as `GET /v1/runs` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunRow {
    pub run_id: String,
    pub command: Vec<String>,
    pub host: String,
    pub pid: u32,
    pub cwd: String,
    pub enforcement_mode: Option<EnforcementMode>,
    pub children: Option<Children>,
    pub sdk_version: String,
    /// The name of the run's own policy.
    pub policy: Option<String>,
    pub announced_at: String,
    /// How many instances have registered in it; 0: announced, never checked in.
    pub instances: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunsAnswer {
    pub runs: Vec<RunRow>,
}
