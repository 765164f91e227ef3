//! What `aasm` says to people: help, misuse, status, and completions.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use support::{Gateway, aasm, stderr, stdout};

const COMMANDS: [&[&str]; 7] =
    [&[], &["start"], &["stop"], &["status"], &["audit"], &["audit", "verify"], &["version"]];

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    home
}

/// Each command has a help that fits a terminal, says what it is for, and ends well.
#[test]
fn help() {
    let home = home();
    for command in COMMANDS {
        let output = aasm(home.path()).args(command).arg("--help").output().unwrap();
        let text = stdout(&output);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
        assert!(text.contains(&format!("Usage: {}", [&["aasm"], command].concat().join(" "))), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.is_ascii() && !text.contains('\x1b'), "{text}");
    }
    for command in [&[][..], &["start"], &["status"], &["audit", "verify"]] {
        let text = stdout(&aasm(home.path()).args(command).arg("-h").output().unwrap());
        let examples = text.split_once("Examples:\n").unwrap().1;
        assert!(examples.starts_with(&format!("  {}", [&["aasm"], command].concat().join(" "))), "{text}");
    }
}

/// Without a command there is help, and it is wrong usage.
#[test]
fn no_command() {
    let home = home();
    for command in [&[][..], &["audit"]] {
        let output = aasm(home.path()).args(command).output().unwrap();
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains("Usage: aasm") && stderr(&output).contains("Commands:"));
    }
}

/// What cannot be understood is told in one line, with the near name and the help that says more.
#[test]
fn misuse() {
    let home = home();
    for (words, line) in [
        (&["statsu"][..], "aasm: unknown command statsu, did you mean status? see: aasm --help\n"),
        (&["audit", "verfy"], "aasm: unknown command verfy, did you mean verify? see: aasm audit --help\n"),
        (&["start", "--prot", "1"], "aasm: unknown option --prot, did you mean --port? see: aasm start --help\n"),
        (&["start", "--mode", "x"], "aasm: --mode must be one of: local; see: aasm start --help\n"),
        (&["status", "--home"], "aasm: --home needs a value; see: aasm status --help\n"),
    ] {
        let output = aasm(home.path()).args(words).output().unwrap();
        let said = (output.status.code(), stdout(&output), stderr(&output));
        assert_eq!(said, (Some(2), String::new(), line.to_owned()));
    }
}

/// The system's reasons come without its numbers, and with what to do.
#[test]
fn failures() {
    let home = home();
    let absent = home.path().join("absent.yaml");
    let output = aasm(home.path()).args(["start", "--port", "0", "--policy"]).arg(&absent).output().unwrap();
    let line = format!(
        "aasm: policy {}: No such file or directory; name another file, or a directory of them, with --policy\n",
        absent.display()
    );
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), line));
}

/// A status says in words what runs are held to, and counts in the right number.
#[test]
fn status() {
    for (least, words) in [
        (None, "0 active; no minimum enforcement, each run chooses its own\n"),
        (Some("observe"), "0 active; every run is held to observe at least\n"),
    ] {
        let home = home();
        let options = least.map_or(vec![], |least| vec!["--min-enforcement", least]);
        let gateway = Gateway::start(home.path(), &options);
        let text = stdout(&aasm(home.path()).arg("status").output().unwrap());
        assert!(text.contains(&format!("agents    {words}")), "{text}");
        drop(gateway);
        let text = stdout(&aasm(home.path()).args(["audit", "verify"]).output().unwrap());
        assert!(text.starts_with("audit log intact: ") && text.contains(" in 1 segment, through line "), "{text}");
    }
}

/// A reader that has seen enough, and streams that are closed, are no reason to panic.
#[test]
fn nobody_reads() {
    let home = home();
    let _gateway = Gateway::start(home.path(), &[]);
    for words in [&["status"][..], &["audit", "verify"], &["--help"], &["completions", "bash"], &["statsu"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (errors, mistakes) = std::io::pipe().unwrap();
        drop(errors);
        let expected = if words == ["statsu"] { 2 } else { 0 };
        let output = aasm(home.path()).args(words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"));
        let status = aasm(home.path()).args(words).stdout(Stdio::null()).stderr(mistakes).status().unwrap();
        assert_eq!(status.code(), Some(expected));
    }
}

/// Completions offer what the help shows and nothing that it hides.
#[test]
fn completions() {
    let home = home();
    for shell in ["bash", "zsh", "fish"] {
        let output = aasm(home.path()).args(["completions", shell]).output().unwrap();
        let script = stdout(&output);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
        assert!(["min-enforcement", "verify", "foreground"].iter().all(|word| script.contains(word)), "{script}");
        assert!(!["detached", "completions bash", "remote"].iter().any(|word| script.contains(word)), "{script}");
    }
}
