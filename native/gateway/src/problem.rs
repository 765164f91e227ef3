//! Errors as `application/problem+json`.

use aasm_policy::Diagnostics;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::AuditError;
use crate::audit::query::QueryError;
use crate::state::StateError;

/// One thing wrong with a policy.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyFault {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub text: String,
    pub message: String,
    pub suggestion: Option<String>,
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'static str,
    pub status: u16,
    /// Stable; what programs look at.
    pub code: &'static str,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<PolicyFault>>,
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            // The code tells problems apart; there is no page for each.
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            errors: None,
            retry_after: None,
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail)
    }

    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Diagnostics> for Problem {
    fn from(diagnostics: Diagnostics) -> Self {
        let detail = diagnostics.to_string();
        let faults = diagnostics.0.into_iter().map(|fault| PolicyFault {
            file: fault.file,
            line: fault.line,
            column: fault.column,
            text: fault.text,
            message: fault.message,
            suggestion: fault.suggestion,
        });
        Self { errors: Some(faults.collect()), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_policy", detail) }
    }
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        let code = match &error {
            AuditError::Storage { full: true, .. } => "storage_full",
            AuditError::Storage { full: false, .. } => "storage_failed",
            AuditError::Busy => "busy",
            AuditError::Rebuilding => "index_rebuilding",
            AuditError::Closed => "stopping",
        };
        Self::unavailable(code, error.to_string())
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        tracing::error!("{error}");
        let code = if error.is_full() { "storage_full" } else { "storage_failed" };
        Self::unavailable(code, error.to_string())
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Damaged { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_damaged", error.to_string())
            }
            QueryError::Index(_) => Self::unavailable("index_rebuilding", error.to_string()),
            QueryError::Log(_) => Self::unavailable("storage_failed", error.to_string()),
        }
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(error.to_string())
    }
}
