//! Who may call what: one table, and the one middleware that holds every route to it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::Mac;
use http_body_util::{BodyExt, Limited};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use crate::app::App;
use crate::clock;
use crate::problem::Problem;
use crate::proof::{Proof, ProofFault, mac};
use crate::session::{Session, SessionError};

/// What a caller must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    Open,
    /// That it can read the home.
    Proof,
    /// A session token.
    Session,
    /// The operator token.
    Operator,
}

/// One route: who may call it, and how long its body may be.
pub struct Rule {
    pub method: Method,
    pub path: &'static str,
    pub credential: Credential,
    pub body: usize,
}

const fn rule(method: Method, path: &'static str, credential: Credential, body: usize) -> Rule {
    Rule { method, path, credential, body }
}

const MIB: usize = 1 << 20;

/// Every route. One that is not here is answered with 404, whatever handler it may have.
pub static TABLE: [Rule; 11] = [
    rule(Method::GET, "/healthz", Credential::Open, MIB),
    rule(Method::GET, "/openapi.json", Credential::Open, MIB),
    rule(Method::POST, "/v1/runs", Credential::Proof, MIB),
    rule(Method::POST, "/v1/agents", Credential::Proof, MIB),
    rule(Method::POST, "/v1/agents/{id}/heartbeat", Credential::Session, MIB),
    rule(Method::DELETE, "/v1/agents/{id}", Credential::Session, MIB),
    rule(Method::POST, "/v1/check", Credential::Session, 2 * MIB),
    rule(Method::POST, "/v1/events", Credential::Session, 8 * MIB),
    rule(Method::GET, "/v1/agents", Credential::Operator, MIB),
    rule(Method::GET, "/v1/runs", Credential::Operator, MIB),
    rule(Method::GET, "/v1/audit", Credential::Operator, MIB),
];

/// A body up to this length is read at once, whatever else is held.
const SMALL_BODY: usize = 64 << 10;

/// A body must be here within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

fn find(method: &Method, path: &str) -> Option<&'static Rule> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    TABLE.iter().find(|rule| rule.method == method && rule.path == path)
}

/// Holds a request to its route's rule, and reads its body. Only who has shown a credential may make us read a body,
/// except where the proof covers it.
pub async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    match admit(&app, request).await {
        // The room is held until the answer is there: a body in work takes more memory than one that arrives.
        Ok((request, _room)) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn admit(app: &App, request: Request) -> Result<(Request, Room), Problem> {
    let matched = request.extensions().get::<MatchedPath>().map(|matched| matched.as_str().to_owned());
    let rule = matched.and_then(|path| find(request.method(), &path)).ok_or_else(not_found)?;
    let (mut parts, body) = request.into_parts();
    let proof = match rule.credential {
        Credential::Open => None,
        Credential::Operator => {
            operator(app, bearer(&parts.headers))?;
            None
        }
        Credential::Session => {
            parts.extensions.insert(session(app, bearer(&parts.headers)).await?);
            None
        }
        Credential::Proof => Some(proof_of(&parts.headers)?.to_owned()),
    };
    let now = clock::now_secs();
    let proof = proof.as_deref().map(|text| Proof::parse(text, now)).transpose().map_err(proof_problem)?;
    let (body, room) = read(app, &parts.headers, body, rule.body).await?;
    if let Some(proof) = proof {
        let (method, path) = (parts.method.as_str(), parts.uri.path());
        proof.verify(&app.secret, method, path, &body, &app.nonces).map_err(proof_problem)?;
    }
    Ok((Request::from_parts(parts, Body::from(body)), room))
}

pub fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such route; see /openapi.json")
}

/// What a large body takes of the budget; small ones need none.
type Room = Option<OwnedSemaphorePermit>;

async fn read(app: &App, headers: &HeaderMap, body: Body, limit: usize) -> Result<(Bytes, Room), Problem> {
    let too_large = || {
        let detail = format!("the body may have at most {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let declared =
        headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().ok().and_then(|text| text.parse().ok()));
    let expected = match declared {
        Some(Some(length)) => length,
        Some(None) => return Err(too_large()),
        None if headers.contains_key(header::TRANSFER_ENCODING) => limit,
        None => 0,
    };
    if expected > limit {
        return Err(too_large());
    }
    // Large bodies share one budget, so that many callers cannot make us hold many of them. Small ones never wait for it:
    // a check must not stand behind batches that arrive slowly.
    let room = if expected > SMALL_BODY {
        let kibibytes = u32::try_from(expected.div_ceil(1024)).unwrap_or(u32::MAX);
        let busy = || Problem::unavailable("busy", "too many large requests at once; try again");
        let room = Arc::clone(&app.bodies).acquire_many_owned(kibibytes);
        Some(tokio::time::timeout(BODY_TIMEOUT, room).await.map_err(|_| busy())?.map_err(|_| busy())?)
    } else {
        None
    };
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok((body.to_bytes(), room)),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", format!("the body did not arrive: {error}")))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body did not arrive in time")),
    }
}

fn unauthorized(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, detail)
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    authorization(headers)?.strip_prefix("Bearer ")
}

fn proof_of(headers: &HeaderMap) -> Result<&str, Problem> {
    let needed = "this needs proof of the home's secret (Authorization: AASM-Proof …)";
    let value = authorization(headers).ok_or_else(|| unauthorized("proof_required", needed))?;
    if value.starts_with("Bearer ") {
        let detail = "API keys are not available in this build; prove the home's secret instead";
        return Err(unauthorized("api_keys_unavailable", detail));
    }
    value.strip_prefix("AASM-Proof ").ok_or_else(|| unauthorized("proof_required", needed))
}

fn proof_problem(fault: ProofFault) -> Problem {
    match fault {
        ProofFault::Malformed => unauthorized("proof_invalid", "the proof is not of the form T.N.M"),
        ProofFault::Wrong => {
            unauthorized("proof_invalid", "the proof was not made with this gateway's secret for this request")
        }
        ProofFault::Expired => {
            unauthorized("proof_expired", "the proof's time is more than 300 s off; look at the clocks")
        }
        ProofFault::Reused => unauthorized("proof_reused", "the proof's nonce was used before; make a new one"),
        ProofFault::TooMany => Problem::unavailable("busy", "too many proofs within ten minutes; try again later"),
    }
}

fn operator(app: &App, token: Option<&str>) -> Result<(), Problem> {
    let needed = || unauthorized("operator_required", "this needs the operator token (Authorization: Bearer …)");
    let token = token.ok_or_else(needed)?;
    // Comparing MACs takes the same time wherever the first difference is.
    let seal = |text: &str| mac(app.secret.as_bytes(), text.as_bytes());
    let given = seal(token).ok_or_else(needed)?.finalize().into_bytes();
    seal(&app.operator_token).ok_or_else(needed)?.verify_slice(&given).map_err(|_| needed())
}

async fn session(app: &App, token: Option<&str>) -> Result<Session, Problem> {
    let needed = "this needs a session token (Authorization: Bearer …)";
    let token = token.ok_or_else(|| unauthorized("session_required", needed))?;
    let session = app.sessions.open(token).map_err(session_problem)?;
    if !app.sessions.is_live(&session.instance_id) {
        let (keeper, instance_id) = (Arc::clone(app), session.instance_id.clone());
        let admitted = spawn_blocking(move || keeper.sessions.admit(&instance_id, &keeper.state)).await?;
        admitted.map_err(session_problem)?;
    }
    Ok(session)
}

fn session_problem(error: SessionError) -> Problem {
    match error {
        SessionError::Invalid => unauthorized("session_invalid", &error.to_string()),
        SessionError::Ended => unauthorized("session_ended", &error.to_string()),
        SessionError::State(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Gateway, app, documented};
    use std::collections::BTreeSet;
    use tower::ServiceExt;

    async fn ask(service: &axum::Router, rule: &Rule, authorization: Option<&str>) -> (StatusCode, String) {
        let mut request = Request::builder().method(&rule.method).uri(rule.path.replace("{id}", "a"));
        request = request.header(header::HOST, "127.0.0.1:7391");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = service.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        (status, problem["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The table and the handlers speak of the same routes.
    #[test]
    fn complete() {
        let table: BTreeSet<_> = TABLE.iter().map(|rule| (rule.method.to_string(), rule.path.to_owned())).collect();
        let mut handlers = documented();
        handlers.insert(("GET".to_owned(), "/openapi.json".to_owned()));
        assert_eq!(table, handlers);
    }

    /// Each route that is not open answers 401 without its credential, and with every other credential too.
    #[tokio::test]
    async fn every_route_asks() {
        let home = tempfile::tempdir().unwrap();
        let gateway = Gateway::for_test(&home.path().join("home"));
        let session = Session {
            agent_id: "a".into(),
            instance_id: "0".repeat(32),
            run_id: None,
            team_id: None,
            parent_agent_id: None,
            depth: None,
            enforcement_mode: aasm_wire::terms::EnforcementMode::Enforce,
        };
        let token = format!("Bearer {}", gateway.sessions.issue(&session).unwrap());
        let operator = format!("Bearer {}", gateway.operator_token);
        let secret = format!("Bearer {}", gateway.secret);
        let service = app(Arc::clone(&gateway));
        for rule in &TABLE {
            let expected =
                |credential| if rule.credential == credential { None } else { Some(StatusCode::UNAUTHORIZED) };
            let open = expected(Credential::Open);
            for (value, refused) in [
                (None, open),
                (Some(""), open),
                (Some("Bearer aasm_se_e30.00"), open),
                (Some("AASM-Proof 1.2.3"), open),
                (Some(secret.as_str()), open),
                (Some(token.as_str()), open.and(expected(Credential::Session))),
                (Some(operator.as_str()), open.and(expected(Credential::Operator))),
            ] {
                // An earlier request may have left.
                gateway.sessions.issue(&session);
                let (status, code) = ask(&service, rule, value).await;
                let (method, path) = (&rule.method, rule.path);
                match refused {
                    Some(refused) => assert_eq!(status, refused, "{method} {path} with {value:?}: {code}"),
                    None => assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path} with {value:?}: {code}"),
                }
            }
        }
    }
}
