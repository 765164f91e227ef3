//! Other processes, as `/proc` shows them.

use std::io;
use std::path::Path;

use rustix::io::Errno;

/// When a process started, in clock ticks since boot: with the pid it names one process for good. `None` when there is
/// no such process, or when it has ended and waits to be collected.
pub fn start_time(pid: u32) -> Option<u64> {
    start_of(&stat(pid).ok()?)
}

/// Whether the process that had this pid and started then has ended. Not knowing is not yes: without a descriptor left,
/// for instance, nothing can be seen.
pub fn is_gone(pid: u32, start: u64) -> bool {
    match stat(pid) {
        Ok(stat) => start_of(&stat) != Some(start),
        Err(error) => error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(&error) == Some(Errno::SRCH),
    }
}

fn stat(pid: u32) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
}

fn start_of(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything; what follows the last one does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

/// The name and the whole command line of a process.
pub fn command(pid: u32) -> Option<(String, String)> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&words);
    let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
    let name = match words.first() {
        Some(first) => Path::new(first).file_name()?.to_string_lossy().into_owned(),
        None => std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned(),
    };
    Some((name, words.join(" ")))
}

/// The processes that can be seen.
pub fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process is known while it runs, and not as a zombie.
    #[test]
    fn lives_and_dies() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(start_time(child.id()).is_some());
        let name = command(child.id()).map(|(name, _)| name);
        assert!(name.is_some_and(|name| !name.is_empty()));
        child.kill().unwrap();
        while start_time(child.id()).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(start_time(std::process::id()).is_some());
    }
}
