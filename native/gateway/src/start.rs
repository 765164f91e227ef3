//! `aasm start`: one gateway a home, in the foreground or on its own.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aasm_wire::shapes::Health;
use aasm_wire::terms::EnforcementMode;

use crate::app::VERSION;
use crate::home::{Home, HomeError};
use crate::policy_store::{self, Origin, PolicyError};
use crate::state::StateError;
use crate::status::{self, Policy};
use crate::{output, pidfile, probe, serve};

/// How long a gateway may take until it answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `aasm start` was told.
#[derive(Debug, Clone)]
pub struct Options {
    pub home: PathBuf,
    pub port: u16,
    pub policy: Option<PathBuf>,
    /// `None` when nothing was said: agents are held to nothing.
    pub min_enforcement: Option<EnforcementMode>,
    /// Started by another `aasm start`, which waits.
    pub detached: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Message(String),
    #[error("the gateway of this home is already running")]
    AlreadyRunning,
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Starts the gateway in the foreground. One that runs already is no failure.
pub fn foreground(options: &Options) -> Result<ExitCode, Failure> {
    match serve::foreground(options) {
        Err(Failure::AlreadyRunning) => {
            if !options.detached {
                let home = Home::open(&options.home)?;
                output::error(wait_for_running(home, options, Instant::now() + PATIENCE)?);
            }
            Ok(ExitCode::SUCCESS)
        }
        other => other,
    }
}

/// Starts the gateway on its own and says where it listens.
pub fn detached(options: &Options) -> Result<ExitCode, Failure> {
    let home = Home::open(&options.home)?;
    for warning in &home.warnings {
        output::error(format_args!("warning: {warning}"));
    }
    let deadline = Instant::now() + PATIENCE;
    if pidfile::running(&home.path("gateway.pid"))?.is_some() {
        output::line(wait_for_running(home, options, deadline)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (policies, origin) = policy_store::load(options.policy.as_deref(), &home)?;
    let names = policies.names().into_iter().map(str::to_owned).collect();
    let policy = Policy { source: origin.as_str().to_owned(), names };
    let mut child = spawn(options)?;
    let pid_path = home.path("gateway.pid");
    loop {
        if let Some(record) = pidfile::running(&pid_path)?.filter(|record| record.pid == child.id() && record.port > 0)
        {
            let secret = home.clone().gateway_secret()?;
            if probe::health(record.port, &secret, Duration::from_secs(1)).is_ok() {
                let (port, pid) = (record.port, record.pid);
                output::line(format_args!(
                    "gateway {VERSION} listening on http://127.0.0.1:{port} (pid {pid}), policy: {policy}"
                ));
                return Ok(ExitCode::SUCCESS);
            }
        }
        if let Some(ended) = child.try_wait()? {
            if ended.success() {
                // Another start was faster; the lock has decided.
                output::line(wait_for_running(home, options, deadline)?);
                return Ok(ExitCode::SUCCESS);
            }
            return Err(Failure::Message(said(&mut child, &home)));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::Message(format!(
                "the gateway did not answer within {} s; see {}",
                PATIENCE.as_secs(),
                home.path("log/gateway.log").display()
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn spawn(options: &Options) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("aasm").args(["start", "--mode", "local", "--foreground", "--detached"]);
    command.arg("--home").arg(&options.home).arg("--port").arg(options.port.to_string());
    if let Some(least) = options.min_enforcement {
        command.arg("--min-enforcement").arg(least.as_str());
    }
    if let Some(policy) = &options.policy {
        command.arg("--policy").arg(policy);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// What a gateway that could not start said.
fn said(child: &mut Child, home: &Home) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(64 << 10).read_to_string(&mut text);
    }
    let text = text.trim_end().strip_prefix("aasm: ").unwrap_or(text.trim_end()).to_owned();
    if text.is_empty() {
        format!("the gateway ended at once; see {}", home.path("log/gateway.log").display())
    } else {
        text
    }
}

/// Waits until the gateway that holds the lock answers, and says where. One that runs under another policy than was asked
/// for, or holds agents to less, is not what was asked for.
fn wait_for_running(mut home: Home, options: &Options, deadline: Instant) -> Result<String, Failure> {
    let path = home.path("gateway.pid");
    loop {
        match pidfile::running(&path)? {
            Some(record) if record.port > 0 => {
                let secret = home.gateway_secret()?;
                if let Ok(health) = probe::health(record.port, &secret, Duration::from_secs(1)) {
                    let policy = status::policy(&home, &health);
                    let (version, port, pid) = (&health.version, record.port, record.pid);
                    let running = format!(
                        "gateway {version} is already running on http://127.0.0.1:{port} (pid {pid}), policy: {policy}"
                    );
                    return match difference(options, &home, &health)? {
                        None => Ok(running),
                        Some(difference) => Err(Failure::Message(format!(
                            "{running}; {difference}: type `aasm stop`, then start again"
                        ))),
                    };
                }
            }
            Some(_) => {}
            None => {
                return Err(Failure::Message("another gateway of this home has just ended; start again".to_owned()));
            }
        }
        if Instant::now() > deadline {
            let message = "a gateway of this home runs but does not answer; see `aasm status`, then `aasm stop`";
            return Err(Failure::Message(message.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What was asked for and does not hold in the gateway that runs.
fn difference(options: &Options, home: &Home, health: &Health) -> Result<Option<&'static str>, Failure> {
    if options.min_enforcement.is_some_and(|least| health.min_enforcement != Some(least)) {
        return Ok(Some("it was started with another --min-enforcement"));
    }
    if options.policy.is_none() {
        return Ok(None);
    }
    let (policies, _) = policy_store::load(options.policy.as_deref(), home)?;
    let same = status::fingerprint(home).is_some_and(|fingerprint| fingerprint == policies.fingerprint());
    Ok((!same).then_some("it was started with another --policy"))
}

impl Policy {
    /// The starter's name for people.
    pub const STARTER: &str = "starter (allow tools, record everything)";

    pub fn is_starter(&self) -> bool {
        self.source == Origin::Starter.as_str()
    }
}
