//! The gateway's state, and its routes as one service.

use std::sync::Arc;
use std::time::Instant;

use aasm_wire::terms::EnforcementMode;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::Audit;
use crate::audit::query::Reader;
use crate::policy_store::PolicyStore;
use crate::problem::Problem;
use crate::proof::Nonces;
use crate::session::Sessions;
use crate::state::State;
use crate::{auth, guard, routes};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Large request bodies that are held at one time, in KiB.
const BODIES: usize = 32 << 10;

/// What the handlers work with.
pub struct Gateway {
    pub secret: String,
    pub operator_token: String,
    pub port: u16,
    pub host: String,
    pub min_enforcement: EnforcementMode,
    pub policies: PolicyStore,
    pub state: State,
    pub audit: Audit,
    pub reader: Arc<Reader>,
    pub sessions: Sessions,
    pub nonces: Nonces,
    pub bodies: Arc<Semaphore>,
    /// Searches of the audit log: one at a time, so that slow ones leave the other threads to who needs them.
    pub searches: Semaphore,
    /// Announcements: one at a time, so that of two for one run the second finds the first.
    pub announcements: Semaphore,
    pub started: Instant,
}

pub type App = Arc<Gateway>;

pub fn bodies() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BODIES))
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Agent Assembly gateway",
    description = "Verdicts, sessions and the audit log. Errors are application/problem+json with a stable code."
))]
struct Interface;

/// All handlers, and the document that describes them.
fn handlers() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Interface::openapi())
        .routes(routes!(routes::health::healthz))
        .routes(routes!(routes::runs::announce, routes::runs::list))
        .routes(routes!(routes::agents::register, routes::agents::list))
        .routes(routes!(routes::agents::heartbeat))
        .routes(routes!(routes::agents::leave))
        .routes(routes!(routes::check::check))
        .routes(routes!(routes::events::events))
        .routes(routes!(routes::audit::audit))
        .split_for_parts()
}

/// All routes, each behind the host check and its rule of the credentials' table.
pub fn app(state: App) -> Router {
    let (router, interface) = handlers();
    let document = axum::body::Bytes::from(interface.to_json().unwrap_or_default());
    let openapi = move || async move { ([("content-type", "application/json")], document) };
    router
        .route("/openapi.json", axum::routing::get(openapi))
        .route_layer(from_fn_with_state(Arc::clone(&state), auth::authorize))
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this route has other methods; see /openapi.json",
            )
        })
        .fallback(|| async { auth::not_found() })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&state), guard::guard))
        .with_state(state)
}

/// The methods and paths of the interface's document.
#[cfg(test)]
pub fn documented() -> std::collections::BTreeSet<(String, String)> {
    let document: serde_json::Value = serde_json::from_str(&handlers().1.to_json().unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = |(path, item): (&String, &serde_json::Value)| {
        let path = path.clone();
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.flat_map(methods).collect()
}

#[cfg(test)]
impl Gateway {
    /// A gateway in a directory of a test; it listens nowhere.
    pub fn for_test(directory: &std::path::Path) -> App {
        let mut home = crate::home::Home::open(directory).unwrap();
        let secret = home.gateway_secret().unwrap();
        let (audit, _, _) = Audit::open(&home.path("audit")).unwrap();
        Arc::new(Self {
            operator_token: home.operator_token().unwrap(),
            port: 7391,
            host: "here".to_owned(),
            min_enforcement: EnforcementMode::Disabled,
            policies: PolicyStore::new(
                aasm_policy::PolicySet::starter(),
                crate::policy_store::Origin::Starter,
                "00000000/0/1".to_owned(),
            ),
            state: State::open(&home.path("state.db")).unwrap(),
            audit,
            reader: Arc::new(Reader::new(&home.path("audit"))),
            sessions: Sessions::new(&secret),
            nonces: Nonces::default(),
            bodies: bodies(),
            searches: Semaphore::new(1),
            announcements: Semaphore::new(1),
            started: Instant::now(),
            secret,
        })
    }
}
