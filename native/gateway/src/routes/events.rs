//! `POST /v1/events`: a batch of records, answered when it is durable.

use std::collections::BTreeSet;
use std::sync::Arc;

use aasm_wire::batch::{self, BatchError};
use aasm_wire::shapes::{EventsAnswer, Rejected};
use aasm_wire::v1::Record;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use tokio::task::spawn_blocking;

use crate::app::App;
use crate::audit::Disposition;
use crate::ingest::{Origin, entry};
use crate::problem::Problem;
use crate::session::Session;

const PROTOBUF: &str = "application/x-protobuf";

/// Takes a batch (`aasm.v1.Batch`); sending it again is fine.
#[utoipa::path(post, path = "/v1/events", request_body(content = Vec<u8>, content_type = "application/x-protobuf"), responses(
    (status = 200, body = EventsAnswer), (status = "4XX", body = Problem), (status = "5XX", body = Problem)))]
pub async fn events(
    State(app): State<App>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<EventsAnswer>, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some(PROTOBUF) {
        let detail = format!("the body must be {PROTOBUF}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let batch = batch::decode(&body).map_err(|error| match error {
        BatchError::TooMany => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_records", error.to_string()),
        BatchError::Malformed(_) => Problem::new(StatusCode::BAD_REQUEST, "invalid_protobuf", error.to_string()),
    })?;
    drop(body);
    if batch.adopted {
        refuse_the_living(&app, &batch.records).await?;
    }
    let origin = if batch.adopted { Origin::Adopted } else { Origin::Session(&session) };
    let (mut answer, mut entries, mut events) = (EventsAnswer::default(), Vec::new(), Vec::new());
    for record in batch.records {
        let event_id = record.event_id.clone();
        match entry(record, origin) {
            Ok(entry) => {
                entries.push(entry);
                events.push(event_id);
            }
            Err(reason) => answer.rejected.push(Rejected { event_id, reason }),
        }
    }
    for (disposition, event_id) in app.audit.append(entries, true).await?.into_iter().zip(events) {
        match disposition {
            Disposition::Written { .. } => answer.accepted += 1,
            Disposition::Duplicate { .. } => answer.duplicates += 1,
            Disposition::Refused(reason) => answer.rejected.push(Rejected { event_id, reason: reason.to_owned() }),
        }
    }
    Ok(Json(answer))
}

/// Nobody speaks for an instance that can speak for itself. The batch is refused as a whole, so that its sender keeps the
/// segment: the process may be about to end.
async fn refuse_the_living(app: &App, records: &[Record]) -> Result<(), Problem> {
    let instances: BTreeSet<String> = records.iter().map(|record| record.instance_id.clone()).collect();
    let keeper = Arc::clone(app);
    let alive = spawn_blocking(move || keeper.state.first_alive(&instances, &keeper.host)).await??;
    alive.map_or(Ok(()), |instance_id| {
        let detail =
            format!("instance {instance_id} is alive, so only it may report its records; adopt them when it has ended");
        Err(Problem::new(StatusCode::CONFLICT, "instance_alive", detail))
    })
}
