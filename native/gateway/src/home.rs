//! The home directory: who may see it, and the secrets in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aasm_wire::identifier::{hex, is_hex};

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("{} is a symbolic link; remove it or name its target with --home", .0.display())]
    SymbolicLink(PathBuf),
    #[error("{} belongs to user {owner}, not to user {us}; use another home with --home", .path.display())]
    ForeignOwner { path: PathBuf, owner: u32, us: u32 },
    #[error("{} can be written by others; type: chmod {wanted:o} '{}'", .path.display(), .path.display())]
    WritableByOthers { path: PathBuf, wanted: u32 },
    #[error("{} is not a {wanted}; move it away", .path.display())]
    WrongKind { path: PathBuf, wanted: &'static str },
    #[error("{} does not hold what it should; move it away, and the next start makes a new one", .0.display())]
    BadSecret(PathBuf),
    #[error("{}: {error}; {}", .path.display(), remedy(.error))]
    Io { path: PathBuf, error: io::Error },
}

/// What to do about an error of the file system.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ResourceBusy => "end that process",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on its disk",
        _ => "see that it can be written, or name another home with --home",
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> HomeError {
    let path = path.to_owned();
    move |error| HomeError::Io { path: path.clone(), error }
}

/// A home that was looked at and is ours.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    /// What others can read although they need not.
    pub warnings: Vec<String>,
}

/// Files of a home that are looked at before they are used; the secrets are looked at when they are read.
const FILES: [&str; 6] = ["config.yaml", "state.db", "gateway.pid", "log/gateway.log", "audit/head", "audit/index.db"];

/// Directories of a home.
const DIRECTORIES: [&str; 4] = ["audit", "log", "policies", "spool"];

impl Home {
    /// Creates what is missing, and refuses what others could have put there.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        // Without a slash at the end, which would make us look at a link's target.
        let root: PathBuf = std::path::absolute(root).map_err(at(root))?.components().collect();
        let mut home = Self { root: root.clone(), warnings: Vec::new() };
        home.directory(&root)?;
        for name in DIRECTORIES {
            home.directory(&root.join(name))?;
        }
        for name in FILES {
            let path = root.join(name);
            if path.symlink_metadata().is_ok() {
                home.inspect(&path, false)?;
            }
        }
        Ok(home)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// 64 hexadecimal digits; created when there is none.
    pub fn gateway_secret(&mut self) -> Result<String, HomeError> {
        self.secret("gateway.secret", "")
    }

    /// The token that opens the control plane; created when there is none.
    pub fn operator_token(&mut self) -> Result<String, HomeError> {
        self.secret("operator.token", "aasm_op_")
    }

    fn directory(&mut self, path: &Path) -> Result<(), HomeError> {
        if matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            match DirBuilder::new().recursive(true).mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(path)(error)),
                _ => sync_parent(path),
            }
        }
        self.inspect(path, true)
    }

    fn inspect(&mut self, path: &Path, directory: bool) -> Result<(), HomeError> {
        let metadata = path.symlink_metadata().map_err(at(path))?;
        let (wanted, kind) = if directory { (0o700, "directory") } else { (0o600, "file") };
        let us = rustix::process::geteuid().as_raw();
        if metadata.is_symlink() {
            return Err(HomeError::SymbolicLink(path.to_owned()));
        }
        if metadata.is_dir() != directory || metadata.is_file() == directory {
            return Err(HomeError::WrongKind { path: path.to_owned(), wanted: kind });
        }
        if metadata.uid() != us {
            return Err(HomeError::ForeignOwner { path: path.to_owned(), owner: metadata.uid(), us });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(HomeError::WritableByOthers { path: path.to_owned(), wanted });
        }
        if metadata.mode() & 0o044 != 0 {
            let path = path.display();
            self.warnings.push(format!("{path} can be read by others; type: chmod {wanted:o} '{path}'"));
        }
        Ok(())
    }

    fn secret(&mut self, name: &str, prefix: &str) -> Result<String, HomeError> {
        let path = self.path(name);
        if matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            self.create_secret(&path, prefix).map_err(at(&path))?;
        }
        self.inspect(&path, false)?;
        let mut text = String::new();
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(no_follow).open(&path).map_err(at(&path))?;
        file.take(256).read_to_string(&mut text).map_err(at(&path))?;
        let secret = text.trim_end_matches('\n');
        let digits = secret.strip_prefix(prefix).filter(|digits| digits.len() == 64 && is_hex(digits));
        digits.ok_or(HomeError::BadSecret(path))?;
        Ok(secret.to_owned())
    }

    /// The file appears with its whole content or not at all, and never replaces one that somebody else made meanwhile.
    fn create_secret(&self, path: &Path, prefix: &str) -> io::Result<()> {
        let random = random_hex(32)?;
        let draft = self.root.join(format!(".draft-{}", random_hex(8)?));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = file.write_all(format!("{prefix}{random}\n").as_bytes()).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| std::fs::hard_link(&draft, path));
        let _ = std::fs::remove_file(&draft);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            // The name becomes durable with state.db's, which SQLite makes in the same directory next.
            Ok(()) => Ok(()),
        }
    }
}

/// Makes a name durable, so that what is acknowledged under it does not go away with it. A parent that we may not read
/// was there before us.
fn sync_parent(path: &Path) {
    if let Some(Ok(parent)) = path.parent().map(File::open) {
        let _ = parent.sync_all();
    }
}

/// Random bytes of the operating system, as hexadecimal digits.
pub fn random_hex(bytes: usize) -> io::Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(io::Error::other)?;
    Ok(hex(&buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A new home and its secrets are for its owner only, and a second start reads the same secrets.
    #[test]
    fn created_private() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("a/home");
        let mut home = Home::open(&root).unwrap();
        let (secret, token) = (home.gateway_secret().unwrap(), home.operator_token().unwrap());
        assert!(token.starts_with("aasm_op_") && secret.len() == 64);
        assert_eq!(std::fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
        for name in ["gateway.secret", "operator.token"] {
            assert_eq!(std::fs::metadata(root.join(name)).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(Home::open(&root).unwrap().gateway_secret().unwrap(), secret);
    }

    /// What others can write, links and foreign kinds are refused with the words that mend them; what others can read is
    /// warned about.
    #[test]
    fn refusals() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("home");
        Home::open(&root).unwrap().gateway_secret().unwrap();
        set_mode(&root, 0o720);
        let message = Home::open(&root).unwrap_err().to_string();
        assert!(message.ends_with(&format!("type: chmod 700 '{}'", root.display())), "{message}");
        set_mode(&root, 0o750);
        assert_eq!(Home::open(&root).unwrap().warnings.len(), 1);
        set_mode(&root, 0o700);
        set_mode(&root.join("gateway.secret"), 0o622);
        let error = Home::open(&root).unwrap().gateway_secret().unwrap_err();
        assert!(matches!(error, HomeError::WritableByOthers { wanted: 0o600, .. }));
        symlink("/dev/null", root.join("log/gateway.log")).unwrap();
        assert!(matches!(Home::open(&root).unwrap_err(), HomeError::SymbolicLink(_)));
        std::fs::remove_file(root.join("log/gateway.log")).unwrap();
        symlink(&root, parent.path().join("link")).unwrap();
        for link in ["link", "link/", "link/."] {
            assert!(matches!(Home::open(&parent.path().join(link)).unwrap_err(), HomeError::SymbolicLink(_)), "{link}");
        }
        std::fs::remove_dir(root.join("spool")).unwrap();
        std::fs::write(root.join("spool"), "").unwrap();
        assert!(matches!(Home::open(&root).unwrap_err(), HomeError::WrongKind { .. }));
    }

    /// A secret that is damaged is refused, not used.
    #[test]
    fn damaged_secret() {
        let parent = tempfile::tempdir().unwrap();
        let mut home = Home::open(&parent.path().join("home")).unwrap();
        std::fs::write(home.path("gateway.secret"), "short\n").unwrap();
        set_mode(&home.path("gateway.secret"), 0o600);
        assert!(matches!(home.gateway_secret().unwrap_err(), HomeError::BadSecret(_)));
    }
}
