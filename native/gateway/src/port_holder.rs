//! Who listens on a port.

use std::collections::HashSet;
use std::fmt;

use crate::process;

/// A program that holds a port.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub name: String,
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command: String = self.command.chars().take(200).collect();
        write!(formatter, "{} (pid {}): {command}", self.name, self.pid)
    }
}

/// Who listens on a TCP port of this host; `None` when nobody does, or when it is another user's and cannot be seen.
pub fn find(port: u16) -> Option<Holder> {
    let inodes: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    process::pids().into_iter().filter(|_| !inodes.is_empty()).find(|pid| holds(*pid, &inodes)).map(|pid| {
        let (name, command) = process::command(pid).unwrap_or_else(|| ("a program".to_owned(), String::new()));
        Holder { pid, name, command }
    })
}

fn holds(pid: u32, sockets: &HashSet<String>) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
}

/// The inodes of the listening sockets in one of the kernel's tables.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (local, state) = (fields.nth(1)?, fields.nth(1)?);
            (local.ends_with(&suffix) && state == "0A").then(|| fields.nth(5).map(str::to_owned)).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The holder of a port is found by pid.
    #[test]
    fn finds_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = find(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.command.is_empty());
    }
}
