//! `aasm`: the gateway of Agent Assembly.
#![forbid(unsafe_code)]

mod app;
mod arguments;
mod audit;
mod auth;
mod clock;
mod guard;
mod home;
mod ingest;
mod logfile;
mod misuse;
mod output;
mod pidfile;
mod policy_store;
mod port_holder;
mod posture;
mod probe;
mod problem;
mod process;
mod proof;
mod routes;
mod run;
mod serve;
mod session;
mod spool_adoption;
mod start;
mod state;
mod status;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aasm_wire::terms::EnforcementMode;
use clap::Parser;

use crate::arguments::{Arguments, AuditTask, HomeArgument, Mode, Task};
use crate::audit::verify;
use crate::output::Counted;
use crate::start::{Failure, Options};

/// Where local gateways listen when nothing else is said.
const DEFAULT_PORT: u16 = 7391;

/// A variable that is set to nothing is not set.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn port_or_default(port: Option<u16>) -> Result<u16, Failure> {
    match (port, variable("AASM_GATEWAY_PORT")) {
        (Some(port), _) => Ok(port),
        (None, None) => Ok(DEFAULT_PORT),
        (None, Some(text)) => text.to_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
            Failure::Message(format!("AASM_GATEWAY_PORT is {}, not a port number from 0 to 65535", text.display()))
        }),
    }
}

impl HomeArgument {
    fn path(self) -> Result<PathBuf, Failure> {
        let variable = |name| variable(name).map(PathBuf::from);
        self.home
            .or_else(|| variable("AASM_HOME"))
            .or_else(|| variable("HOME").map(|home| home.join(".aasm")))
            .ok_or_else(|| Failure::Message("neither AASM_HOME nor HOME is set; pass --home".to_owned()))
    }
}

fn main() -> ExitCode {
    // Everything that we create is for its owner only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let task = match Arguments::try_parse() {
        Ok(arguments) => arguments.command,
        Err(error) => return misuse::answer(&error),
    };
    match perform(task) {
        Ok(code) => code,
        Err(failure) => {
            output::error(failure);
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode, Failure> {
    match task {
        Task::Start { home, mode, foreground, port, policy, min_enforcement, detached } => {
            if matches!(mode, Mode::Remote) {
                return Err(Failure::Message(
                    "mode remote is not available in this build; use --mode local".to_owned(),
                ));
            }
            let policy = policy.map(std::path::absolute).transpose()?;
            let options = Options {
                home: home.path()?,
                port: port_or_default(port)?,
                policy,
                min_enforcement: min_enforcement.map(EnforcementMode::from),
                detached,
            };
            let options = posture::completed(options)?;
            if foreground { start::foreground(&options) } else { start::detached(&options) }
        }
        Task::Stop { home } => status::stop(&home.path()?),
        Task::Status { home, json } => status::status(&home.path()?, json),
        Task::Audit { task: AuditTask::Verify { home, json } } => verify(&home.path()?, json),
        Task::Completions { shell } => {
            output::text(&arguments::completions(shell));
            Ok(ExitCode::SUCCESS)
        }
        Task::Version => {
            output::line(format_args!("aasm {}", app::VERSION));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn verify(home: &Path, json: bool) -> Result<ExitCode, Failure> {
    let directory = home.join("audit");
    if !directory.is_dir() {
        return Err(Failure::Message(format!("{} holds no audit log; name its home with --home", home.display())));
    }
    let report = verify::verify(&directory)
        .map_err(|error| Failure::Message(format!("the audit log {} cannot be read: {error}", directory.display())))?;
    if json {
        output::line(serde_json::to_string(&report).map_err(|error| Failure::Io(error.into()))?);
    } else {
        for note in &report.notes {
            output::line(format_args!("note: {note}"));
        }
        for finding in &report.findings {
            output::line(format_args!("{finding}"));
        }
        let lines = Counted(report.lines, "line");
        let segments = Counted(report.segments as u64, "segment");
        match report.findings.len() as u64 + report.more {
            0 => {
                output::line(format_args!("audit log intact: {lines} in {segments}, through line {}", report.last_seq))
            }
            count => {
                output::line(format_args!("audit log damaged: {} in {lines}, {segments}", Counted(count, "finding")))
            }
        }
    }
    Ok(if report.intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
