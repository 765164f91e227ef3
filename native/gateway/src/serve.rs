//! The gateway in the foreground: everything opened in order, served, closed in reverse order.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aasm_policy::PolicySet;
use aasm_wire::terms::EnforcementMode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::app::{self, Gateway, VERSION};
use crate::audit::entry::{LineType, Loss};
use crate::audit::query::Reader;
use crate::audit::{Audit, Entry};
use crate::home::Home;
use crate::pidfile::PidFile;
use crate::policy_store::{self, Origin, PolicyStore};
use crate::proof::Nonces;
use crate::run::{Listeners, run};
use crate::session::Sessions;
use crate::start::{Failure, Options};
use crate::state::State;
use crate::{home, logfile, port_holder, posture, sweep};

#[derive(Serialize)]
struct GatewayLine<'a> {
    event: &'a str,
    version: &'a str,
    pid: u32,
    port: u16,
    policy_revision: &'a str,
    policy_source: &'a str,
    min_enforcement: &'a str,
}

#[derive(Serialize)]
struct PolicyLine<'a> {
    revision: &'a str,
    source: &'a str,
    names: Vec<&'a str>,
    fingerprint: &'a str,
}

/// Serves until a signal; the exit code is the program's.
pub fn foreground(options: &Options) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    raise_descriptors();
    if options.detached {
        // The parent waits; a terminal that closes must not reach us.
        let _ = rustix::process::setsid();
    }
    let home = Home::open(&options.home)?;
    let Some(pid_file) = PidFile::acquire(&home.path("gateway.pid"))? else {
        return Err(Failure::AlreadyRunning);
    };
    match serve(options, home, pid_file, started) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err((failure, pid_file)) => {
            pid_file.remove();
            Err(failure)
        }
    }
}

fn serve(options: &Options, mut home: Home, mut pid_file: PidFile, started: Instant) -> Result<(), (Failure, PidFile)> {
    let opened = open(options, &mut home, started);
    let (gateway, listeners, entries, writer) = match opened {
        Ok(opened) => opened,
        Err(failure) => return Err((failure, pid_file)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build();
    let served = runtime.map_err(Failure::from).and_then(|runtime| {
        let served = runtime.block_on(work(&gateway, listeners, entries, &home, &mut pid_file, options.detached));
        runtime.shutdown_timeout(Duration::from_secs(1));
        served.map_err(Failure::from)
    });
    drop(gateway);
    let _ = writer.join();
    match served {
        Ok(()) => {
            tracing::info!("stopped");
            pid_file.remove();
            Ok(())
        }
        Err(failure) => Err((failure, pid_file)),
    }
}

type Opened = (Arc<Gateway>, Listeners, Vec<Entry>, std::thread::JoinHandle<()>);

fn open(options: &Options, home: &mut Home, started: Instant) -> Result<Opened, Failure> {
    let (policies, origin) = policy_store::load(options.policy.as_deref(), home)?;
    posture::remember(options)?;
    let secret = home.gateway_secret()?;
    let operator_token = home.operator_token()?;
    let listeners = bind(options.port)?;
    let port = listeners.port()?;
    logfile::start(&home.path("log/gateway.log"));
    for warning in &home.warnings {
        tracing::warn!("{warning}");
    }
    let path = home.path("state.db");
    let state = State::open(&path).map_err(|error| Failure::Message(error.at(&path)))?;
    let (revision, changed) = state.revision(policies.fingerprint(), origin.as_str(), &policies.names())?;
    let directory = home.path("audit");
    let (audit, notes, writer) = Audit::open(&directory)
        .map_err(|error| Failure::Message(format!("{}: {error}; {}", directory.display(), home::remedy(&error))))?;
    let mut entries = Vec::new();
    for note in notes {
        tracing::warn!("audit log: {note}");
        entries.push(Entry::loss(&Loss { detail: note, ..Loss::default() }));
    }
    if changed {
        entries.push(policy_line(&policies, origin, &revision));
    }
    let gateway = Gateway {
        port,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        min_enforcement: options.min_enforcement.unwrap_or(EnforcementMode::Disabled),
        sessions: Sessions::new(&secret),
        secret,
        operator_token,
        policies: PolicyStore::new(policies, origin, revision),
        state,
        audit,
        reader: Arc::new(Reader::new(&directory)),
        nonces: Nonces::default(),
        bodies: app::bodies(),
        searches: Semaphore::new(1),
        announcements: Semaphore::new(1),
        started,
    };
    entries.push(gateway_line(&gateway, "started"));
    Ok((Arc::new(gateway), listeners, entries, writer))
}

fn bind(port: u16) -> Result<Listeners, Failure> {
    Listeners::bind(port).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => match port_holder::find(port) {
            Some(holder) => Failure::Message(format!("port {port} is held by {holder}; stop it or pass --port")),
            None => Failure::Message(format!("port {port} is held by a program of another user; pass --port")),
        },
        _ => Failure::Message(format!("port {port} cannot be listened on: {error}; pass --port")),
    })
}

fn policy_line(policies: &PolicySet, origin: Origin, revision: &str) -> Entry {
    let (names, fingerprint) = (policies.names(), policies.fingerprint());
    Entry::other(LineType::Policy, &PolicyLine { revision, source: origin.as_str(), names, fingerprint })
}

fn gateway_line(gateway: &Gateway, event: &str) -> Entry {
    let line = GatewayLine {
        event,
        version: VERSION,
        pid: std::process::id(),
        port: gateway.port,
        policy_revision: gateway.policies.revision(),
        policy_source: gateway.policies.origin().as_str(),
        min_enforcement: gateway.min_enforcement.as_str(),
    };
    Entry::other(LineType::Gateway, &line)
}

async fn work(
    gateway: &Arc<Gateway>,
    listeners: Listeners,
    entries: Vec<Entry>,
    home: &Home,
    pid_file: &mut PidFile,
    detached: bool,
) -> io::Result<()> {
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    // With a handler, a write beyond a file size limit is an error and not our death.
    let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
    let first = Arc::clone(gateway);
    tokio::spawn(async move {
        if let Err(error) = first.audit.append(entries, false).await {
            tracing::error!("{error}");
        }
    });
    let sweeper = tokio::spawn(sweep::run(Arc::clone(gateway), home.path("spool")));
    let shutdown = async {
        let signals = ends.iter_mut().flatten().map(|signal| Box::pin(signal.recv()));
        any(signals.collect()).await;
        tracing::info!("stopping");
    };
    pid_file.write(gateway.port)?;
    if detached {
        release_stderr();
    }
    tracing::info!(
        "gateway {VERSION} listening on http://127.0.0.1:{} (pid {}), policy: {} {}, home {}",
        gateway.port,
        std::process::id(),
        gateway.policies.origin().as_str(),
        gateway.policies.revision(),
        home.root().display()
    );
    let served = run(listeners, app::app(Arc::clone(gateway)), shutdown).await;
    sweeper.abort();
    let _ = gateway.audit.append(vec![gateway_line(gateway, "stopped")], true).await;
    gateway.audit.stop().await;
    served
}

/// As many descriptors as we may have: each connection needs one.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Ends when any of the futures does.
async fn any<F: Future + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        let ended = futures.iter_mut().any(|future| std::pin::Pin::new(future).poll(context).is_ready());
        if ended { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// The parent that waited for us may be gone: nobody reads what we would say.
fn release_stderr() {
    let _ = io::stderr().flush();
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open(Path::new("/dev/null")) {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
