//! `GET /v1/audit`.

use std::sync::Arc;

use aasm_wire::shapes::AuditAnswer;
use aasm_wire::terms::{DECISIONS, OUTCOMES};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as UriQuery, State};
use serde::Deserialize;
use tokio::task::spawn_blocking;
use utoipa::IntoParams;

use super::require;
use crate::app::App;
use crate::audit::query::Query;
use crate::clock;
use crate::problem::Problem;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    agent: Option<String>,
    tool: Option<String>,
    /// `allow`, `deny`, `redact` or `approve`.
    decision: Option<String>,
    run: Option<String>,
    /// `returned`, `raised`, `refused`, `cancelled`, `suspended`, `unknown`, or `open` for calls without an outcome.
    outcome: Option<String>,
    /// RFC 3339 or unix seconds; inclusive.
    since: Option<String>,
    /// RFC 3339 or unix seconds; exclusive.
    until: Option<String>,
    /// Only records with a greater sequence number.
    after: Option<u64>,
    /// Only records with a smaller sequence number.
    before: Option<u64>,
    /// `asc` or `desc` (default).
    order: Option<String>,
    /// 1 to 1000, default 100.
    limit: Option<usize>,
    /// Also count all records that match.
    count: Option<bool>,
}

impl Params {
    fn query(self) -> Result<Query, Problem> {
        let time = |name: &str, text: Option<String>| match text {
            None => Ok(None),
            Some(text) => clock::parse(&text)
                .map(Some)
                .ok_or_else(|| Problem::invalid(format!("{name} must be an RFC 3339 time or unix seconds"))),
        };
        let known = |value: Option<&str>, set: &[&str]| value.is_none_or(|value| set.contains(&value));
        require(known(self.decision.as_deref(), &DECISIONS), || {
            format!("decision must be one of: {}", DECISIONS.join(", "))
        })?;
        let outcome = self.outcome.as_deref();
        require(outcome == Some("open") || known(outcome, &OUTCOMES), || {
            format!("outcome must be one of: {}, open", OUTCOMES.join(", "))
        })?;
        let order = self.order.as_deref();
        require(known(order, &["asc", "desc"]), || "order must be one of: asc, desc".to_owned())?;
        let limit = self.limit.unwrap_or(100);
        require((1..=1000).contains(&limit), || "limit must be 1 to 1000".to_owned())?;
        Ok(Query {
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            ascending: order == Some("asc"),
            agent: self.agent,
            tool: self.tool,
            decision: self.decision,
            run: self.run,
            outcome: self.outcome,
            after: self.after,
            before: self.before,
            limit,
            count: self.count.unwrap_or(false),
        })
    }
}

/// Searches the audit log. While the index is rebuilt, `indexed_through` says how far it is.
#[utoipa::path(get, path = "/v1/audit", params(Params), responses(
    (status = 200, body = AuditAnswer), (status = "4XX", body = Problem), (status = "5XX", body = Problem)))]
pub async fn audit(
    State(app): State<App>,
    params: Result<UriQuery<Params>, QueryRejection>,
) -> Result<Json<AuditAnswer>, Problem> {
    let UriQuery(params) = params.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    let query = params.query()?;
    app.audit.flush_index().await;
    let (indexed_through, head) = (app.audit.indexed_through(), app.audit.head());
    let _turn = app.searches.acquire().await.map_err(|error| Problem::internal(error.to_string()))?;
    let reader = Arc::clone(&app.reader);
    let page = spawn_blocking(move || reader.page(&query)).await??;
    Ok(Json(AuditAnswer { records: page.rows, next: page.next, total: page.total, indexed_through, head }))
}
