//! `POST /v1/check`: one call, one verdict, written down before it is given.

use std::fmt::Write;
use std::sync::Arc;

use aasm_policy::{Call, Decision, Kind, Verdict};
use aasm_wire::identifier::{hex, is_digest, is_id};
use aasm_wire::shapes::{CheckAnswer, CheckRequest};
use aasm_wire::terms::EnforcementMode;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::{bounded, bounded_option, parse, require};
use crate::app::App;
use crate::audit::entry::CHECK;
use crate::audit::segment::Position;
use crate::audit::{Begin, Disposition, Entry};
use crate::problem::Problem;
use crate::session::Session;

/// The arguments in canonical form may have this many bytes.
const MOST_ARGUMENTS: usize = 1 << 20;

fn validate(call: &CheckRequest) -> Result<(), Problem> {
    require(is_id(&call.event_id), || "event_id must be 32 hexadecimal digits".to_owned())?;
    let parent = call.parent_event_id.as_deref();
    require(parent.is_none_or(is_id), || "parent_event_id must be 32 hexadecimal digits".to_owned())?;
    require(is_digest(&call.digest), || "digest must be `sha256:` and 64 hexadecimal digits".to_owned())?;
    require(call.attempt > 0, || "attempt counts from 1".to_owned())?;
    require(!call.tool.is_empty(), || "tool must not be empty".to_owned())?;
    bounded("tool", &call.tool, 1024)?;
    bounded("call_id", &call.call_id, 512)?;
    bounded_option("framework", call.framework.as_deref(), 128)?;
    bounded_option("server", call.server.as_deref(), 1024)?;
    bounded_option("agent_name", call.agent_name.as_deref(), 512)?;
    bounded_option("cwd", call.cwd.as_deref(), 4096)
}

/// The digest of a canonical call, over the arguments' bytes as they were sent.
fn digest(agent: &str, call: &CheckRequest) -> Option<String> {
    let json = |text: &str| serde_json::to_string(text).ok();
    let server = call.server.as_deref().map_or(Some("null".to_owned()), json)?;
    let mut canonical = Sha256::new();
    canonical.update(format!(r#"{{"agent":{},"args":"#, json(agent)?));
    canonical.update(call.args.get());
    canonical.update(format!(r#","server":{server},"tool":{}}}"#, json(&call.tool)?));
    Some(format!("sha256:{}", hex(&canonical.finalize())))
}

/// A verdict, and whether the policy was asked for it.
async fn judge(
    app: &App,
    session: &Session,
    mode: EnforcementMode,
    call: &CheckRequest,
) -> Result<(Verdict, bool), Problem> {
    let of_our_own = |decision, code, reason| Verdict { decision, reason, rule: None, policy: None, code };
    if mode == EnforcementMode::Disabled {
        let reason = "Not evaluated: enforcement is disabled for this agent.".to_owned();
        return Ok((of_our_own(Decision::Allow, "unevaluated", reason), false));
    }
    let length = call.args.get().len();
    if length > MOST_ARGUMENTS {
        let mut reason = format!("Tool `{}` is denied: its arguments have {length} bytes", call.tool);
        let _ = write!(reason, ", {MOST_ARGUMENTS} are the most that can be checked. Pass less at once.");
        return Ok((of_our_own(Decision::Deny, "arguments_too_large", reason), true));
    }
    let run = match app.policies.known(session.run_id.as_deref()) {
        Some(run) => run,
        None => {
            let (keeper, run_id) = (Arc::clone(app), session.run_id.clone());
            spawn_blocking(move || keeper.policies.run(run_id.as_deref(), &keeper.state)).await??
        }
    };
    let call = Call {
        kind: Kind::Tool,
        tool: &call.tool,
        framework: call.framework.as_deref(),
        server: call.server.as_deref(),
        args: &call.args,
    };
    Ok((app.policies.evaluate(&run, &call), true))
}

/// Gives a verdict for one call. Asking again with the same event gives the same verdict.
#[utoipa::path(post, path = "/v1/check", request_body = CheckRequest, responses(
    (status = 200, body = CheckAnswer), (status = "4XX", body = Problem), (status = "5XX", body = Problem)))]
pub async fn check(
    State(app): State<App>,
    Extension(session): Extension<Session>,
    body: Bytes,
) -> Result<Json<CheckAnswer>, Problem> {
    let call: CheckRequest = parse(&body)?;
    validate(&call)?;
    if digest(&session.agent_id, &call).as_deref() != Some(&call.digest) {
        let detail = "the digest is not that of agent, arguments, server and tool as they were sent";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "digest_mismatch", detail));
    }
    let mode = session.enforcement_mode.max(app.min_enforcement);
    let (verdict, evaluated) = judge(&app, &session, mode, &call).await?;
    let begin = Begin {
        event_id: call.event_id,
        agent_id: session.agent_id,
        instance_id: session.instance_id,
        run_id: session.run_id,
        call_id: call.call_id,
        attempt: call.attempt,
        kind: "tool".to_owned(),
        tool: call.tool,
        framework: call.framework,
        server: call.server,
        agent_name: call.agent_name,
        parent_event_id: call.parent_event_id,
        digest: Some(call.digest),
        arguments_bytes: call.args.get().len() as u64,
        cwd: call.cwd,
        decision: verdict.decision.as_str().to_owned(),
        reason: verdict.reason,
        rule: verdict.rule,
        policy: verdict.policy,
        revision: Some(app.policies.revision().to_owned()),
        code: verdict.code.to_owned(),
        decided_by: "gateway".to_owned(),
        enforcement_mode: mode.as_str().to_owned(),
        evaluated,
        via: CHECK.to_owned(),
        adopted: false,
        agent_time: None,
    };
    let written = app.audit.append(vec![Entry::begin(&begin)], false).await?;
    match written.into_iter().next() {
        Some(Disposition::Written { .. }) => Ok(Json(answer(begin, mode))),
        Some(Disposition::Duplicate { begin: Some(position) }) => given_before(&app, begin, position, mode).await,
        _ => Err(event_exists()),
    }
}

fn event_exists() -> Problem {
    Problem::new(StatusCode::CONFLICT, "event_exists", "the event_id stands for another call; each attempt has its own")
}

/// The call was checked before: its verdict stands as it was given.
async fn given_before(
    app: &App,
    now: Begin,
    position: Position,
    mode: EnforcementMode,
) -> Result<Json<CheckAnswer>, Problem> {
    let reader = Arc::clone(&app.reader);
    let before = spawn_blocking(move || reader.begin(position)).await??;
    let same = before.digest == now.digest && before.instance_id == now.instance_id && before.via == CHECK;
    if !same {
        return Err(event_exists());
    }
    let mode = EnforcementMode::parse(&before.enforcement_mode).unwrap_or(mode);
    Ok(Json(answer(before, mode)))
}

fn answer(begin: Begin, enforcement_mode: EnforcementMode) -> CheckAnswer {
    CheckAnswer {
        decision: begin.decision,
        reason: begin.reason,
        rule: begin.rule,
        policy: begin.policy,
        revision: begin.revision.unwrap_or_default(),
        code: begin.code,
        redactions: Vec::new(),
        approval_id: None,
        decision_id: begin.event_id,
        enforcement_mode,
    }
}
