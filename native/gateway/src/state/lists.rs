//! What the control plane lists, newest first.

use aasm_wire::shapes::{AgentRequest, AgentRow, RunRequest, RunRow};
use aasm_wire::terms::EnforcementMode;

use super::{Result, State};
use crate::clock;

/// Rows that a list shows at most.
const LISTED: usize = 1000;

impl State {
    pub fn runs(&self) -> Result<Vec<RunRow>> {
        let connection = self.connection();
        let sql = format!(
            "SELECT content, announced, (SELECT count(*) FROM instances WHERE instances.run_id = runs.run_id)
             FROM runs ORDER BY announced DESC LIMIT {LISTED}"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
        })?;
        rows.map(|row| {
            let (content, announced, instances) = row?;
            let run: RunRequest = serde_json::from_str(&content)?;
            Ok(RunRow {
                run_id: run.run_id,
                command: run.command,
                host: run.host,
                pid: run.pid,
                cwd: run.cwd,
                enforcement_mode: run.enforcement_mode,
                children: run.children,
                sdk_version: run.sdk_version,
                policy: run.policy.map(|policy| policy.name),
                announced_at: clock::rfc3339(announced),
                instances,
            })
        })
        .collect()
    }

    pub fn agents(&self) -> Result<Vec<AgentRow>> {
        let connection = self.connection();
        let sql = format!(
            "SELECT request, mode, registered, seen, left IS NOT NULL, lost IS NOT NULL
             FROM instances ORDER BY registered DESC LIMIT {LISTED}"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map([], |row| {
            let state = match (row.get(4)?, row.get(5)?) {
                (true, _) => "left",
                (false, true) => "lost",
                (false, false) => "active",
            };
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?, state))
        })?;
        rows.map(|row| {
            let (request, mode, registered, seen, state) = row?;
            let agent: AgentRequest = serde_json::from_str(&request)?;
            Ok(AgentRow {
                agent_id: agent.agent_id,
                instance_id: agent.instance_id,
                run_id: agent.run_id,
                state: state.to_owned(),
                enforcement_mode: EnforcementMode::parse(&mode).unwrap_or(EnforcementMode::Enforce),
                requested_mode: agent.enforcement_mode,
                team_id: agent.team_id,
                parent_agent_id: agent.parent_agent_id,
                delegation_reason: agent.delegation_reason,
                spawned_by_tool: agent.spawned_by_tool,
                depth: agent.depth,
                sdk_version: agent.sdk_version,
                python_version: agent.python_version,
                frameworks: agent.frameworks,
                pid: agent.pid,
                host: agent.host,
                registered_at: clock::rfc3339(registered),
                last_seen: clock::rfc3339(seen),
            })
        })
        .collect()
    }
}
