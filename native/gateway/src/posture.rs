//! What the gateway of a home was started with, kept until it is stopped on purpose: whoever starts it again after a
//! crash, an agent for one, gets no laxer one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aasm_wire::terms::EnforcementMode;
use serde::{Deserialize, Serialize};

use crate::start::{Failure, Options};

const NAME: &str = "gateway.posture";

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Posture {
    policy: Option<PathBuf>,
    min_enforcement: Option<EnforcementMode>,
}

/// Fills in what was not said this time with what the last start said.
pub fn completed(mut options: Options) -> Result<Options, Failure> {
    let path = options.home.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(options);
        }
        Err(error) => return Err(damaged(&path, &error)),
    };
    let last: Posture = serde_json::from_str(&text).map_err(|error| damaged(&path, &error))?;
    options.policy = options.policy.or(last.policy);
    options.min_enforcement = options.min_enforcement.or(last.min_enforcement);
    Ok(options)
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Message(format!(
        "{}, which says how the gateway was last started, cannot be used: {error}; type `aasm stop`, then start it anew",
        path.display()
    ))
}

/// Keeps what this start was told, for those that are told nothing.
pub fn remember(options: &Options) -> Result<(), Failure> {
    if options.policy.is_none() && options.min_enforcement.is_none() {
        return Ok(());
    }
    let posture = Posture { policy: options.policy.clone(), min_enforcement: options.min_enforcement };
    let path = options.home.join(NAME);
    let text = serde_json::to_string(&posture).map_err(|error| damaged(&path, &error))?;
    let draft = options.home.join(format!("{NAME}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    File::open(&options.home)?.sync_all()?;
    Ok(())
}

/// Forgets it: the gateway was stopped on purpose.
pub fn forget(home: &Path) {
    let _ = fs::remove_file(home.join(NAME));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(home: &Path, policy: Option<&str>, min_enforcement: Option<EnforcementMode>) -> Options {
        let policy = policy.map(PathBuf::from);
        Options { home: home.to_owned(), port: 0, policy, min_enforcement, detached: false }
    }

    /// What one start was told holds for the next, is replaced by what that says itself, and ends with a stop.
    #[test]
    fn holds_until_stopped() {
        let home = tempfile::tempdir().unwrap();
        remember(&options(home.path(), Some("/strict.yaml"), Some(EnforcementMode::Enforce))).unwrap();
        let again = completed(options(home.path(), None, None)).unwrap();
        assert_eq!(again.policy.as_deref(), Some(Path::new("/strict.yaml")));
        assert_eq!(again.min_enforcement, Some(EnforcementMode::Enforce));
        let other = completed(options(home.path(), Some("/other.yaml"), None)).unwrap();
        assert_eq!(other.policy.as_deref(), Some(Path::new("/other.yaml")));
        assert_eq!(other.min_enforcement, Some(EnforcementMode::Enforce));
        forget(home.path());
        assert_eq!(completed(options(home.path(), None, None)).unwrap().policy, None);
    }

    /// One that cannot be read is no permission to start a laxer gateway.
    #[test]
    fn damaged_is_refused() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(NAME), "{").unwrap();
        assert!(completed(options(home.path(), None, None)).is_err());
    }
}
