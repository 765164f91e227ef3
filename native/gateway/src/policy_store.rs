//! The operator's policies, and those of runs.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aasm_policy::{Call, Diagnostics, PolicySet, Source, Verdict};

use crate::home::Home;
use crate::state::{State, StateError};

/// More than any policy document may have, so that the checker is the one to refuse.
const MOST_BYTES: u64 = (1 << 20) + 1;

/// Policies of runs that are kept compiled.
const KEPT_RUNS: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{0}")]
    Invalid(Diagnostics),
    #[error("policy {}: {error}; name another file, or a directory of them, with --policy", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("policy {} holds no .yaml or .yml file; put one there, or name another with --policy", .0.display())]
    Nothing(PathBuf),
    #[error("policy {} belongs to user {owner}; it must be yours or root's: copy it, or pass another with --policy", .path.display())]
    ForeignOwner { path: PathBuf, owner: u32 },
    #[error("policy {} can be written by others; type: chmod go-w '{}'", .0.display(), .0.display())]
    WritableByOthers(PathBuf),
}

/// Where policies came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Starter,
    Files,
}

impl Origin {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starter => "starter",
            Self::Files => "files",
        }
    }
}

/// Loads what was named, else what the home holds, else the built-in starter.
pub fn load(named: Option<&Path>, home: &Home) -> Result<(PolicySet, Origin), PolicyError> {
    let files = match named {
        Some(path) if path.is_dir() => {
            let files = documents(path)?;
            if files.is_empty() {
                return Err(PolicyError::Nothing(path.to_owned()));
            }
            files
        }
        Some(path) => vec![path.to_owned()],
        None => documents(&home.path("policies"))?,
    };
    if files.is_empty() {
        return Ok((PolicySet::starter(), Origin::Starter));
    }
    let texts = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let sources: Vec<_> = names.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    Ok((aasm_policy::load(&sources).map_err(PolicyError::Invalid)?, Origin::Files))
}

/// Whoever can write a policy, or put another in its place, decides what is allowed.
fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), PolicyError> {
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(PolicyError::ForeignOwner { path: path.to_owned(), owner });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(PolicyError::WritableByOthers(path.to_owned()));
    }
    Ok(())
}

fn documents(directory: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let unreadable = |error| PolicyError::Unreadable { path: directory.to_owned(), error };
    check_owner(directory, &directory.metadata().map_err(unreadable)?)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_policy = |extension: &std::ffi::OsStr| {
            extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
        };
        if path.extension().is_some_and(is_policy) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, PolicyError> {
    let unreadable = |error| PolicyError::Unreadable { path: path.to_owned(), error };
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    check_owner(path, &metadata)?;
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text)).map_err(unreadable)?;
    Ok(text)
}

/// Checks a run's policy.
pub fn check_run(name: &str, text: &str) -> Result<PolicySet, Diagnostics> {
    aasm_policy::load(&[Source { name, text }])
}

/// What a run adds to the operator's policies.
pub enum RunPolicy {
    Nothing,
    Set(Box<PolicySet>),
    /// Nobody announced the run: its calls are denied.
    UnknownRun,
    /// What was stored cannot be loaded any more: its calls are denied.
    Broken(String),
}

pub struct PolicyStore {
    operator: PolicySet,
    origin: Origin,
    revision: String,
    runs: Mutex<HashMap<String, Arc<RunPolicy>>>,
}

impl PolicyStore {
    pub fn new(operator: PolicySet, origin: Origin, revision: String) -> Self {
        Self { operator, origin, revision, runs: Mutex::default() }
    }

    pub fn revision(&self) -> &str {
        &self.revision
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The names of the policies that hold for calls of a run.
    pub fn names(&self, run: &RunPolicy) -> Vec<String> {
        let own = match run {
            RunPolicy::Set(set) => set.names(),
            _ => Vec::new(),
        };
        self.operator.names().into_iter().chain(own).map(str::to_owned).collect()
    }

    /// The policy of a run that is at hand.
    pub fn known(&self, run_id: Option<&str>) -> Option<Arc<RunPolicy>> {
        match run_id {
            None => Some(Arc::new(RunPolicy::Nothing)),
            Some(run_id) => self.runs().get(run_id).cloned(),
        }
    }

    /// The policy of a run; compiled once while it is used. May ask `state.db`, so it may block.
    pub fn run(&self, run_id: Option<&str>, state: &State) -> Result<Arc<RunPolicy>, StateError> {
        if let Some(known) = self.known(run_id) {
            return Ok(known);
        }
        let run_id = run_id.unwrap_or_default();
        let policy = match state.run_policy(run_id)? {
            None => return Ok(Arc::new(RunPolicy::UnknownRun)),
            Some(None) => RunPolicy::Nothing,
            Some(Some((name, text))) => match check_run(&name, &text) {
                Ok(set) => RunPolicy::Set(Box::new(set)),
                Err(diagnostics) => RunPolicy::Broken(diagnostics.to_string()),
            },
        };
        let policy = Arc::new(policy);
        let mut runs = self.runs();
        if runs.len() >= KEPT_RUNS {
            runs.clear();
        }
        runs.insert(run_id.to_owned(), Arc::clone(&policy));
        Ok(policy)
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<String, Arc<RunPolicy>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The strictest of the operator's policies and the run's.
    pub fn evaluate(&self, run: &RunPolicy, call: &Call<'_>) -> Verdict {
        let denied = |code, reason: String| Verdict {
            decision: aasm_policy::Decision::Deny,
            reason,
            rule: None,
            policy: None,
            code,
        };
        match run {
            RunPolicy::Nothing => aasm_policy::evaluate(&[&self.operator], call),
            RunPolicy::Set(set) => aasm_policy::evaluate(&[&self.operator, set], call),
            RunPolicy::UnknownRun => denied(
                "unknown_run",
                format!("Tool `{}` is denied: its run is not known to the gateway. Start the run again.", call.tool),
            ),
            RunPolicy::Broken(why) => denied(
                "policy_error",
                format!("Tool `{}` is denied: the policy of its run cannot be loaded: {why}", call.tool),
            ),
        }
    }
}
