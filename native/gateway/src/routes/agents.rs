//! `/v1/agents`: registering, heartbeat, leaving, listing.

use std::collections::HashMap;
use std::sync::Arc;

use aasm_wire::identifier::{is_id, is_name};
use aasm_wire::shapes::{AgentAnswer, AgentRequest, AgentsAnswer, HeartbeatAnswer, Signals};
use aasm_wire::terms::EnforcementMode;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{bounded, bounded_option, parse, require};
use crate::app::{App, VERSION};
use crate::audit::Entry;
use crate::audit::entry::LineType;
use crate::policy_store::RunPolicy;
use crate::problem::Problem;
use crate::session::Session;
use crate::state::Kept;
use crate::{clock, process};

/// What the audit log says of a registration.
#[derive(Serialize)]
struct AgentLine<'a> {
    #[serde(flatten)]
    request: &'a AgentRequest,
    effective_mode: EnforcementMode,
    min_enforcement: EnforcementMode,
    /// The agent asked for less than it is held to.
    asked_for_less: bool,
    again: bool,
}

/// What the audit log says of a departure.
#[derive(Serialize)]
pub struct LeaveLine<'a> {
    pub agent_id: &'a str,
    pub instance_id: &'a str,
    pub run_id: Option<&'a str>,
    /// Its process ended without leaving.
    pub lost: bool,
}

fn validate(agent: &AgentRequest) -> Result<(), Problem> {
    const NAME: &str = "must be 1 to 128 letters, digits, `_`, `.` or `-`";
    let names = [
        ("agent_id", Some(agent.agent_id.as_str())),
        ("team_id", agent.team_id.as_deref()),
        ("parent_agent_id", agent.parent_agent_id.as_deref()),
    ];
    for (field, value) in names {
        require(value.is_none_or(is_name), || format!("{field} {NAME}"))?;
    }
    require(is_id(&agent.instance_id), || "instance_id must be 32 hexadecimal digits".to_owned())?;
    let reason = agent.delegation_reason.as_deref().unwrap_or_default();
    require(reason.chars().count() <= 256, || "delegation_reason may have at most 256 characters".to_owned())?;
    bounded_option("spawned_by_tool", agent.spawned_by_tool.as_deref(), 512)?;
    bounded("host", &agent.host, 256)?;
    bounded("sdk_version", &agent.sdk_version, 128)?;
    bounded("python_version", &agent.python_version, 128)?;
    require(agent.frameworks.len() <= 100, || "frameworks may have at most 100 entries".to_owned())?;
    for framework in &agent.frameworks {
        bounded("frameworks.name", &framework.name, 128)?;
        bounded_option("frameworks.version", framework.version.as_deref(), 128)?;
    }
    Ok(())
}

/// Registers an instance; again and again is fine.
#[utoipa::path(post, path = "/v1/agents", request_body = AgentRequest, responses(
    (status = 201, body = AgentAnswer), (status = 200, description = "the instance is known", body = AgentAnswer),
    (status = "4XX", body = Problem), (status = "5XX", body = Problem)))]
pub async fn register(State(app): State<App>, body: Bytes) -> Result<(StatusCode, Json<AgentAnswer>), Problem> {
    let agent: AgentRequest = parse(&body)?;
    validate(&agent)?;
    let asked = agent.enforcement_mode.unwrap_or(EnforcementMode::Enforce);
    let (keeper, kept) = (Arc::clone(&app), agent.clone());
    let (run, effective, kept) = spawn_blocking(move || {
        let run = keeper.policies.run(kept.run_id.as_deref(), &keeper.state)?;
        if matches!(*run, RunPolicy::UnknownRun) {
            return Ok((run, asked, None));
        }
        // What the run was announced with holds for all that runs in it, whatever their environment has become.
        let run_mode = kept.run_id.as_deref().map(|run_id| keeper.state.run_mode(run_id)).transpose()?.flatten();
        let effective = asked.max(keeper.min_enforcement).max(run_mode.unwrap_or(EnforcementMode::Disabled));
        let start = (kept.host == keeper.host).then(|| process::start_time(kept.pid)).flatten();
        keeper.state.register(&kept, effective, start).map(|kept| (run, effective, Some(kept)))
    })
    .await??;
    let status = match kept {
        None => {
            let detail = format!("{} was not announced to this gateway", agent.run_id.as_deref().unwrap_or_default());
            return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_run", detail));
        }
        Some(Kept::Conflict) => {
            let detail =
                "this instance is registered as another agent or in another run; it needs an instance_id of its own";
            return Err(Problem::new(StatusCode::CONFLICT, "instance_exists", detail));
        }
        Some(Kept::Known) => StatusCode::OK,
        Some(Kept::New) => StatusCode::CREATED,
    };
    let line = AgentLine {
        request: &agent,
        effective_mode: effective,
        min_enforcement: app.min_enforcement,
        asked_for_less: asked < effective,
        again: status == StatusCode::OK,
    };
    app.audit.append(vec![Entry::other(LineType::Agent, &line)], false).await?;
    let session = Session {
        agent_id: agent.agent_id.clone(),
        instance_id: agent.instance_id.clone(),
        run_id: agent.run_id,
        team_id: agent.team_id,
        parent_agent_id: agent.parent_agent_id,
        depth: agent.depth,
        enforcement_mode: effective,
    };
    let session_token = app.sessions.issue(&session).ok_or_else(|| Problem::internal("no token could be made"))?;
    let answer = AgentAnswer {
        session_token,
        agent_id: agent.agent_id,
        instance_id: agent.instance_id,
        enforcement_mode: effective,
        policy_revision: app.policies.revision().to_owned(),
        policy_source: app.policies.origin().as_str().to_owned(),
        policies: app.policies.names(&run),
        signals: Signals::default(),
        gateway_version: VERSION.to_owned(),
    };
    Ok((status, Json(answer)))
}

fn own(session: &Session, id: &str) -> Result<(), Problem> {
    if session.agent_id == id {
        return Ok(());
    }
    let detail = format!("the session is not one of agent {id}");
    Err(Problem::new(StatusCode::FORBIDDEN, "foreign_agent", detail))
}

/// Says that the instance lives; hears what concerns it.
#[utoipa::path(post, path = "/v1/agents/{id}/heartbeat", params(("id" = String, Path, description = "agent_id")), responses(
    (status = 200, body = HeartbeatAnswer), (status = "4XX", body = Problem)))]
pub async fn heartbeat(
    State(app): State<App>,
    Path(id): Path<String>,
    Extension(session): Extension<Session>,
) -> Result<Json<HeartbeatAnswer>, Problem> {
    own(&session, &id)?;
    let policy_revision = app.policies.revision().to_owned();
    Ok(Json(HeartbeatAnswer { policy_revision, signals: Signals::default() }))
}

/// Leaves: the instance's session ends.
#[utoipa::path(delete, path = "/v1/agents/{id}", params(("id" = String, Path, description = "agent_id")), responses(
    (status = 204), (status = "4XX", body = Problem), (status = "5XX", body = Problem)))]
pub async fn leave(
    State(app): State<App>,
    Path(id): Path<String>,
    Extension(session): Extension<Session>,
) -> Result<StatusCode, Problem> {
    own(&session, &id)?;
    let line = LeaveLine {
        agent_id: &session.agent_id,
        instance_id: &session.instance_id,
        run_id: session.run_id.as_deref(),
        lost: false,
    };
    app.audit.append(vec![Entry::other(LineType::Leave, &line)], false).await?;
    let (keeper, instance_id) = (Arc::clone(&app), session.instance_id.clone());
    spawn_blocking(move || keeper.state.depart(&instance_id, false)).await??;
    app.sessions.forget(&session.instance_id);
    Ok(StatusCode::NO_CONTENT)
}

/// The newest instances first.
#[utoipa::path(get, path = "/v1/agents", responses((status = 200, body = AgentsAnswer), (status = "4XX", body = Problem)))]
pub async fn list(State(app): State<App>) -> Result<Json<AgentsAnswer>, Problem> {
    let keeper = Arc::clone(&app);
    let mut agents = spawn_blocking(move || keeper.state.agents()).await??;
    let seen: HashMap<_, _> = app.sessions.seen().into_iter().collect();
    for agent in &mut agents {
        if let Some(micros) = seen.get(&agent.instance_id) {
            agent.last_seen = clock::rfc3339(*micros);
        }
    }
    Ok(Json(AgentsAnswer { agents }))
}
