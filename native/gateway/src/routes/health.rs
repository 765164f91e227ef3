//! `GET /healthz`.

use aasm_wire::shapes::Health;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::require;
use crate::app::{App, VERSION};
use crate::problem::Problem;
use crate::proof;

#[derive(Deserialize, IntoParams)]
pub struct Params {
    /// 16 to 64 hexadecimal digits of the caller's choice.
    challenge: Option<String>,
}

/// Whether the gateway works, and, to a challenge, that it is the one of this home.
#[utoipa::path(get, path = "/healthz", params(Params), responses((status = 200, body = Health), (status = "4XX", body = Problem)))]
pub async fn healthz(
    State(app): State<App>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Health>, Problem> {
    let Query(params) = params.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    let proof = match &params.challenge {
        Some(challenge) => {
            require(proof::is_nonce(challenge), || "challenge must be 16 to 64 hexadecimal digits".to_owned())?;
            proof::health(&app.secret, challenge, app.port)
        }
        None => None,
    };
    let storage = app.audit.storage();
    Ok(Json(Health {
        status: if storage == "ok" { "ok" } else { "degraded" }.to_owned(),
        mode: "local".to_owned(),
        version: VERSION.to_owned(),
        storage,
        uptime_secs: app.started.elapsed().as_secs(),
        policy_revision: app.policies.revision().to_owned(),
        policy_source: app.policies.origin().as_str().to_owned(),
        min_enforcement: Some(app.min_enforcement),
        proof,
    }))
}
