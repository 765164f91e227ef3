//! The routes' handlers.

pub mod agents;
pub mod audit;
pub mod check;
pub mod events;
pub mod health;
pub mod runs;

use axum::body::Bytes;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::Problem;

/// Reads a JSON body: 400 when it is no JSON, 422 when it says something that is not allowed.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => Problem::invalid(error.to_string()),
        _ => Problem::new(StatusCode::BAD_REQUEST, "invalid_json", error.to_string()),
    })
}

/// Refuses a value that does not have its form.
fn require(holds: bool, detail: impl FnOnce() -> String) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::invalid(detail())) }
}

/// Refuses a text that is longer than `most` bytes.
fn bounded(name: &str, text: &str, most: usize) -> Result<(), Problem> {
    require(text.len() <= most, || format!("{name} may have at most {most} bytes"))
}

fn bounded_option(name: &str, text: Option<&str>, most: usize) -> Result<(), Problem> {
    text.map_or(Ok(()), |text| bounded(name, text, most))
}
