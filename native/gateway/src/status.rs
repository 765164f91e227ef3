//! `aasm status` and `aasm stop`: a gateway seen from outside.

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aasm_wire::shapes::{AuditAnswer, Health};
use aasm_wire::terms::EnforcementMode;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;

use crate::home::Home;
use crate::output::{Counted, Span};
use crate::start::Failure;
use crate::{output, pidfile, posture, probe};

/// Exit code of `status` when no gateway runs, as service managers have it.
const NOT_RUNNING: u8 = 3;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A gateway drains for five seconds at most.
const STOP_PATIENCE: Duration = Duration::from_secs(12);

/// Which policies hold.
#[derive(Debug, Clone, Serialize)]
pub struct Policy {
    /// `starter` or `files`.
    pub source: String,
    pub names: Vec<String>,
}

impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_starter() { formatter.write_str(Self::STARTER) } else { formatter.write_str(&self.names.join(", ")) }
    }
}

/// The policies of a running gateway, by its newest revision.
pub fn policy(home: &Home, health: &Health) -> Policy {
    let names: Option<String> = look(home, "SELECT names FROM revisions ORDER BY number DESC LIMIT 1");
    let names = names.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    Policy { source: health.policy_source.clone(), names }
}

/// The fingerprint of a running gateway's policies.
pub fn fingerprint(home: &Home) -> Option<String> {
    look(home, "SELECT fingerprint FROM revisions ORDER BY number DESC LIMIT 1")
}

/// One value of `state.db`, read beside the gateway.
fn look<T: FromSql>(home: &Home, sql: &str) -> Option<T> {
    let connection = Connection::open_with_flags(home.path("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    connection.busy_timeout(TIMEOUT).ok()?;
    connection.query_row(sql, [], |row| row.get(0)).ok()
}

#[derive(Serialize)]
struct Status {
    running: bool,
    pid: u32,
    port: u16,
    url: String,
    version: String,
    home: String,
    status: String,
    storage: String,
    uptime_secs: u64,
    policy: Policy,
    policy_revision: String,
    min_enforcement: Option<EnforcementMode>,
    /// Instances that are active.
    agents: u32,
    records: u64,
    indexed_through: u64,
    last_line: u64,
}

/// Says whether the gateway of a home runs, and how it is.
pub fn status(home: &std::path::Path, json: bool) -> Result<ExitCode, Failure> {
    let record = if home.exists() { pidfile::running(&home.join("gateway.pid"))? } else { None };
    let Some(record) = record.filter(|record| record.port > 0) else {
        if json {
            output::line(format_args!(r#"{{"running":false}}"#));
        } else {
            output::line(format_args!("the gateway is not running (home {})", home.display()));
        }
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    let mut home = Home::open(home)?;
    let (secret, operator) = (home.gateway_secret()?, home.operator_token()?);
    let silent = |error: io::Error| {
        let (pid, port) = (record.pid, record.port);
        Failure::Message(format!(
            "the gateway (pid {pid}) does not answer on port {port}: {error}; `aasm stop` ends it"
        ))
    };
    let health = probe::health(record.port, &secret, TIMEOUT).map_err(silent)?;
    let ask = |path: &str| probe::get(record.port, path, Some(&operator), TIMEOUT).map_err(silent);
    let unclear = |error: serde_json::Error| silent(error.into());
    let audit: AuditAnswer = serde_json::from_slice(&ask("/v1/audit?limit=1&count=true")?).map_err(unclear)?;
    let status = Status {
        running: true,
        pid: record.pid,
        port: record.port,
        url: format!("http://127.0.0.1:{}", record.port),
        version: health.version.clone(),
        home: home.root().display().to_string(),
        policy: policy(&home, &health),
        min_enforcement: health.min_enforcement,
        status: health.status,
        storage: health.storage,
        uptime_secs: health.uptime_secs,
        policy_revision: health.policy_revision,
        // The gateway lists its newest instances only; here all are counted.
        agents: look(&home, "SELECT count(*) FROM instances WHERE left IS NULL AND lost IS NULL").unwrap_or(0),
        records: audit.total.unwrap_or(0),
        indexed_through: audit.indexed_through,
        last_line: audit.head.seq,
    };
    if json {
        output::line(serde_json::to_string(&status).map_err(|error| Failure::Io(error.into()))?);
    } else {
        output::line(format_args!(
            "gateway   {} on {} (pid {}), up {}",
            status.version,
            status.url,
            status.pid,
            Span(status.uptime_secs)
        ));
        output::line(format_args!("home      {}", status.home));
        output::line(format_args!("policy    {}, revision {}", status.policy, status.policy_revision));
        output::line(format_args!("agents    {} active; {}", status.agents, minimum(status.min_enforcement)));
        let behind = status.last_line.saturating_sub(status.indexed_through);
        let note = if behind > 0 { format!(", index {} behind", Counted(behind, "line")) } else { String::new() };
        output::line(format_args!("records   {}{note}", status.records));
        output::line(format_args!("storage   {}", status.storage));
    }
    Ok(ExitCode::SUCCESS)
}

/// What runs are held to, in words.
fn minimum(least: Option<EnforcementMode>) -> String {
    match least {
        None => "this gateway does not say how strict runs must be".to_owned(),
        Some(EnforcementMode::Disabled) => "no minimum enforcement, each run chooses its own".to_owned(),
        Some(least) => format!("every run is held to {} at least", least.as_str()),
    }
}

fn unstoppable(pid: u32, error: Errno) -> Failure {
    Failure::Message(format!("the gateway (pid {pid}) cannot be stopped: {}; end that process", io::Error::from(error)))
}

/// Ends the gateway of a home and waits until it is gone.
pub fn stop(home: &std::path::Path) -> Result<ExitCode, Failure> {
    let path = home.join("gateway.pid");
    let Some(record) = pidfile::running(&path)? else {
        posture::forget(home);
        output::line(format_args!("the gateway is not running (home {})", home.display()));
        return Ok(ExitCode::SUCCESS);
    };
    let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::Message(format!("{} names no process; try again", path.display())))?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        // The descriptor names one process for good; the lock says that it is still the gateway.
        Ok(process) if pidfile::running(&path)?.as_ref() == Some(&record) => {
            match pidfd_send_signal(&process, Signal::TERM) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(unstoppable(record.pid, error)),
            }
        }
        // It has just ended.
        Ok(_) | Err(Errno::SRCH) => {}
        Err(error) => return Err(unstoppable(record.pid, error)),
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    while pidfile::running(&path)?.is_some_and(|now| now.pid == record.pid) {
        if Instant::now() > deadline {
            let message =
                format!("the gateway (pid {}) has not ended within {} s", record.pid, STOP_PATIENCE.as_secs());
            return Err(Failure::Message(message));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    posture::forget(home);
    output::line(format_args!("gateway stopped (pid {})", record.pid));
    Ok(ExitCode::SUCCESS)
}
