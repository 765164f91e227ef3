//! `/v1/runs`: announcing a run, listing runs.

use std::sync::Arc;

use aasm_wire::identifier::is_run_id;
use aasm_wire::shapes::{RunAnswer, RunRequest, RunsAnswer};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::task::spawn_blocking;

use super::{bounded, parse, require};
use crate::app::App;
use crate::audit::Entry;
use crate::audit::entry::LineType;
use crate::policy_store::check_run;
use crate::problem::Problem;
use crate::state::Kept;

/// What a command line may have, all words together.
const MOST_COMMAND: usize = 256 << 10;

/// Announces a run, with a policy of its own if it has one.
#[utoipa::path(post, path = "/v1/runs", request_body = RunRequest, responses(
    (status = 201, body = RunAnswer), (status = 200, description = "announced before, with the same content", body = RunAnswer),
    (status = "4XX", body = Problem), (status = "5XX", body = Problem)))]
pub async fn announce(State(app): State<App>, body: Bytes) -> Result<(StatusCode, Json<RunAnswer>), Problem> {
    let run: RunRequest = parse(&body)?;
    require(is_run_id(&run.run_id), || "run_id must be `run-` and 16 hexadecimal digits".to_owned())?;
    let length = run.command.iter().map(String::len).sum::<usize>();
    require(length <= MOST_COMMAND, || format!("command may have at most {MOST_COMMAND} bytes"))?;
    bounded("host", &run.host, 256)?;
    bounded("cwd", &run.cwd, 4096)?;
    bounded("sdk_version", &run.sdk_version, 128)?;
    if let Some(policy) = &run.policy {
        bounded("policy.name", &policy.name, 4096)?;
        let policy = policy.clone();
        // A long policy takes a while, and checks must not wait for it.
        spawn_blocking(move || check_run(&policy.name, &policy.text).map(drop)).await??;
    }
    let _turn = app.announcements.acquire().await.map_err(|error| Problem::internal(error.to_string()))?;
    let (keeper, looked_up) = (Arc::clone(&app), run.clone());
    let kept = spawn_blocking(move || keeper.state.find(&looked_up)).await??;
    let status = match kept {
        Kept::Conflict => return Err(run_exists(&run)),
        Kept::Known => StatusCode::OK,
        Kept::New => {
            // The log first: a run that is kept has its line.
            app.audit.append(vec![Entry::other(LineType::Run, &run)], true).await?;
            let (keeper, announced) = (Arc::clone(&app), run.clone());
            match spawn_blocking(move || keeper.state.announce(&announced)).await?? {
                Kept::Conflict => return Err(run_exists(&run)),
                Kept::New | Kept::Known => StatusCode::CREATED,
            }
        }
    };
    let answer = RunAnswer {
        run_id: run.run_id,
        policy_revision: app.policies.revision().to_owned(),
        min_enforcement: app.min_enforcement,
    };
    Ok((status, Json(answer)))
}

fn run_exists(run: &RunRequest) -> Problem {
    let detail = format!("{} was announced before with other content", run.run_id);
    Problem::new(StatusCode::CONFLICT, "run_exists", detail)
}

/// The newest runs first.
#[utoipa::path(get, path = "/v1/runs", responses((status = 200, body = RunsAnswer), (status = "4XX", body = Problem)))]
pub async fn list(State(app): State<App>) -> Result<Json<RunsAnswer>, Problem> {
    let runs = spawn_blocking(move || app.state.runs()).await??;
    Ok(Json(RunsAnswer { runs }))
}
