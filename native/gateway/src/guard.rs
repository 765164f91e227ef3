//! What every request must satisfy, whatever its route: our host, our origin.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::problem::Problem;

/// A page of another site reaches loopback through the browser: by a name that resolves here, or by a form.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let uri_host = request.uri().authority().map(|authority| authority.as_str().to_owned());
    match check(request.headers(), uri_host.as_deref(), app.port) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(headers: &HeaderMap, uri_host: Option<&str>, port: u16) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let foreign = || {
        let detail = format!("this gateway answers to 127.0.0.1:{port}, [::1]:{port} and localhost:{port} only");
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign_host", detail)
    };
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(foreign()) };
    let ours = |text: &str| is_ours(text, port);
    if !host.to_str().is_ok_and(ours) || !uri_host.is_none_or(ours) {
        return Err(foreign());
    }
    for origin in headers.get_all(header::ORIGIN) {
        if !origin.to_str().ok().and_then(|text| text.strip_prefix("http://")).is_some_and(ours) {
            let detail = "pages of other sites may not talk to this gateway";
            return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail));
        }
    }
    Ok(())
}

fn is_ours(host: &str, port: u16) -> bool {
    let Some((name, digits)) = host.rsplit_once(':') else { return false };
    digits == port.to_string() && matches!(name.to_ascii_lowercase().as_str(), "127.0.0.1" | "localhost" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only our own names with our own port are ours.
    #[test]
    fn hosts() {
        for ours in ["127.0.0.1:7391", "localhost:7391", "LOCALHOST:7391", "[::1]:7391"] {
            assert!(is_ours(ours, 7391), "{ours}");
        }
        for foreign in
            ["127.0.0.1", "localhost:7392", "evil.example:7391", "localhost.evil:7391", "", ":7391", "0.0.0.0:7391"]
        {
            assert!(!is_ours(foreign, 7391), "{foreign}");
        }
    }
}
