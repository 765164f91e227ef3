//! Starting, finding, stopping.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod support;

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Client, Gateway, aasm, eventually, fresh_id, stderr, stdout, verify};

fn home() -> (tempfile::TempDir, std::path::PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    (parent, home)
}

fn status(home: &std::path::Path) -> (Option<i32>, Value) {
    let output = aasm(home).args(["status", "--json"]).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

/// Detached start, second start, status, stop: each says one true thing and exits as documented.
#[test]
fn a_life() {
    let (_parent, home) = home();
    assert_eq!(status(&home), (Some(3), serde_json::json!({"running": false})));
    let start = aasm(&home).args(["start", "--port", "0"]).output().unwrap();
    assert!(start.status.success(), "{}", stderr(&start));
    let (code, now) = status(&home);
    let (port, pid) = (now["port"].as_u64().unwrap(), now["pid"].as_u64().unwrap());
    let place = format!("http://127.0.0.1:{port} (pid {pid}), policy: starter (allow tools, record everything)\n");
    assert_eq!(stdout(&start), format!("gateway 0.1.0 listening on {place}"));
    assert_eq!((code, &now["policy"]["source"], &now["records"]), (Some(0), &"starter".into(), &0.into()));
    // Its own session, no parent's terminal.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(stat.split_whitespace().nth(5).unwrap(), pid.to_string());
    let again = aasm(&home).args(["start", "--port", "0"]).output().unwrap();
    assert_eq!(
        (again.status.code(), stdout(&again)),
        (Some(0), format!("gateway 0.1.0 is already running on {place}"))
    );
    let foreground = aasm(&home).args(["start", "--foreground", "--port", "0"]).output().unwrap();
    assert_eq!((foreground.status.code(), stdout(&foreground)), (Some(0), String::new()));
    assert!(stderr(&foreground).contains("already running"));
    let stop = aasm(&home).arg("stop").output().unwrap();
    assert_eq!((stop.status.code(), stdout(&stop)), (Some(0), format!("gateway stopped (pid {pid})\n")));
    assert!(!home.join("gateway.pid").exists());
    assert_eq!(status(&home).0, Some(3));
    assert!(aasm(&home).arg("stop").output().unwrap().status.success());
    assert_eq!(verify(&home)["intact"], true);
}

/// Ten starts at the same moment make one gateway, and all ten succeed.
#[test]
fn ten_starts() {
    let (_parent, home) = home();
    let starts: Vec<_> = (0..10)
        .map(|_| {
            aasm(&home).args(["start", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let said: Vec<_> = starts
        .into_iter()
        .map(|start| {
            let output = start.wait_with_output().unwrap();
            assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
            stdout(&output)
        })
        .collect();
    let pid = status(&home).1["pid"].to_string();
    assert!(said.iter().all(|line| line.contains(&format!("(pid {pid})"))), "{said:?}");
    assert_eq!(said.iter().filter(|line| line.contains("listening on")).count(), 1, "{said:?}");
    assert!(aasm(&home).arg("stop").status().unwrap().success());
}

/// A port that another program holds is named with that program.
#[test]
fn port_held() {
    let (_parent, home) = home();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let start = aasm(&home).args(["start", "--port", &port.to_string()]).output().unwrap();
    assert_eq!(start.status.code(), Some(1));
    let (message, pid) = (stderr(&start), std::process::id());
    assert!(message.starts_with(&format!("aasm: port {port} is held by ")), "{message}");
    assert!(
        message.contains(&format!("(pid {pid}): ")) && message.ends_with("; stop it or pass --port\n"),
        "{message}"
    );
    assert!(!home.join("gateway.pid").exists());
}

/// A policy that does not check starts nothing and is named with file, line and column.
#[test]
fn invalid_policy() {
    let (parent, home) = home();
    let file = parent.path().join("p.yaml");
    std::fs::write(
        &file,
        "apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: p}\ndefualt: allow\nrules: []\n",
    )
    .unwrap();
    for foreground in [&["--foreground"][..], &[]] {
        let start =
            aasm(&home).args(["start", "--port", "0", "--policy"]).arg(&file).args(foreground).output().unwrap();
        assert_eq!(start.status.code(), Some(1));
        assert!(stderr(&start).contains(&format!("{}:4:1: ", file.display())), "{}", stderr(&start));
        assert_eq!(status(&home).0, Some(3));
    }
}

/// Policies of the home are used when none is named; status names them; a change makes a new revision, a restart does not.
#[test]
fn policies_of_the_home() {
    let (_parent, home) = home();
    Gateway::start(&home, &[]).terminate();
    let text = |name: &str| {
        format!("apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {{name: {name}}}\ndefault: deny\nrules: []\n")
    };
    let revision = |home: &std::path::Path| {
        let gateway = Gateway::start(home, &[]);
        let (_, now) = status(home);
        let agent = gateway.register("a");
        let verdict = agent.check(&mut gateway.client(), &fresh_id(), "t").json();
        assert_eq!((&verdict["decision"], &verdict["code"]), (&"deny".into(), &"default".into()));
        assert_eq!(verdict["revision"], now["policy_revision"]);
        assert_eq!(gateway.terminate(), Some(0));
        (now["policy_revision"].as_str().unwrap().to_owned(), now["policy"]["names"].clone())
    };
    std::fs::write(home.join("policies/one.yaml"), text("one")).unwrap();
    let (first, names) = revision(&home);
    assert_eq!(names, serde_json::json!(["one"]));
    assert_eq!(revision(&home).0, first);
    std::fs::write(home.join("policies/two.yml"), text("two")).unwrap();
    let (second, names) = revision(&home);
    assert_eq!(names, serde_json::json!(["one", "two"]));
    assert!(first.ends_with("/2") && second.ends_with("/3"), "{first} {second}");
    std::fs::set_permissions(home.join("policies/two.yml"), PermissionsExt::from_mode(0o666)).unwrap();
    let refused = aasm(&home).args(["start", "--port", "0"]).output().unwrap();
    assert!(!refused.status.success() && stderr(&refused).contains("type: chmod go-w"), "{}", stderr(&refused));
}

/// A gateway that runs under another policy, or holds agents to less, is not the one that was asked for.
#[test]
fn another_gateway_than_asked_for() {
    let (parent, home) = home();
    let policy = |name: &str, default: &str| {
        let path = parent.path().join(name);
        let text = format!("apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {{name: p}}\ndefault: {default}\n");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (strict, lax) = (policy("strict.yaml", "deny"), policy("lax.yaml", "allow"));
    let start = |arguments: &[&str]| {
        let output = aasm(&home).args(["start", "--port", "0"]).args(arguments).output().unwrap();
        (output.status.code(), stdout(&output) + &stderr(&output))
    };
    let _gateway = Gateway::start(&home, &["--policy", &lax, "--min-enforcement", "observe"]);
    assert_eq!(start(&[]).0, Some(0));
    assert_eq!(start(&["--policy", &lax, "--min-enforcement", "observe"]).0, Some(0));
    for (arguments, what) in [
        (&["--policy", strict.as_str()][..], "--policy"),
        (&["--min-enforcement", "enforce"], "--min-enforcement"),
        (&["--foreground", "--policy", &strict], "--policy"),
    ] {
        let (code, said) = start(arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("with another {what}: type `aasm stop`")) && said.lines().count() == 1,
            "{said}"
        );
    }
    assert_eq!(status(&home).1["min_enforcement"], "observe");
}

/// Whoever removes the pid file of a gateway that runs gets no second writer of its log.
#[test]
fn one_writer_without_a_pid_file() {
    let (_parent, home) = home();
    let gateway = Gateway::start(&home, &[]);
    std::fs::remove_file(home.join("gateway.pid")).unwrap();
    let start = aasm(&home).args(["start", "--port", "0"]).output().unwrap();
    let said = stderr(&start);
    assert_eq!((start.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("another gateway writes it, whose gateway.pid was removed; end that process"), "{said}");
    let agent = gateway.register("a");
    assert_eq!(agent.check(&mut gateway.client(), &fresh_id(), "t").status, 200);
    assert_eq!(verify(&home)["intact"], true);
}

/// Policies are their reader's or root's, and nobody else can put another in their place.
#[test]
fn foreign_policies() {
    let (parent, home) = home();
    let directory = parent.path().join("policies");
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("p.yaml");
    std::fs::write(&file, "apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: p}\ndefault: deny\n").unwrap();
    let refused = |path: &std::path::Path| {
        let start = aasm(&home).args(["start", "--port", "0", "--policy"]).arg(path).output().unwrap();
        assert_eq!(start.status.code(), Some(1));
        stderr(&start)
    };
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(refused(&directory).contains(&format!("type: chmod go-w '{}'", directory.display())));
    if std::fs::metadata(parent.path()).unwrap().uid() == 0 {
        std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
        assert!(refused(&file).contains("belongs to user 12345"));
    }
}

/// A reader that went away is no reason to panic.
#[test]
fn closed_output() {
    let (_parent, home) = home();
    let gateway = Gateway::start(&home, &[]);
    for arguments in [&["audit", "verify", "--json"][..], &["status", "--json"], &["status"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = aasm(&home).args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{arguments:?}");
    }
    drop(gateway);
}

/// Connections leave descriptors for the gateway's own files.
#[test]
fn descriptors_for_itself() {
    let (_parent, home) = home();
    let mut command = std::process::Command::new("prlimit");
    command.args(["--nofile=160:160", "--", env!("CARGO_BIN_EXE_aasm"), "start", "--foreground", "--port", "0"]);
    command.env("AASM_HOME", &home);
    let gateway = Gateway::spawn(&home, command);
    let (agent, mut first) = (gateway.register("a"), gateway.client());
    assert_eq!(agent.check(&mut first, &fresh_id(), "t").status, 200);
    let many: Vec<Client> = (0..180).map(|_| gateway.client()).collect();
    std::thread::sleep(Duration::from_millis(300));
    let page = first.request("GET", "/v1/audit", &[&gateway.operator()], b"");
    assert_eq!((page.status, page.json()["records"].as_array().map(Vec::len)), (200, Some(1)), "{}", page.text());
    drop(many);
}

/// Without a descriptor left nothing can be seen of a process, and not seeing it is not its end.
#[test]
fn out_of_descriptors() {
    let (_parent, home) = home();
    let mut command = std::process::Command::new("prlimit");
    command.args(["--nofile=60:60", "--", env!("CARGO_BIN_EXE_aasm"), "start", "--foreground", "--port", "0"]);
    command.env("AASM_HOME", &home);
    let gateway = Gateway::spawn(&home, command);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let agent = gateway.register_with("a", serde_json::json!({"host": host.trim()}));
    let event = fresh_id();
    assert_eq!(agent.check(&mut gateway.client(), &event, "t").status, 200);
    let many: Vec<Client> = (0..80).map(|_| gateway.client()).collect();
    std::thread::sleep(Duration::from_secs(5));
    drop(many);
    let state = eventually("an answer", || {
        let mut client = gateway.client();
        let answer = client.try_request("GET", "/v1/agents", &[&gateway.operator()], b"").ok()?;
        Some(answer.json()["agents"][0]["state"].clone())
    });
    assert_eq!(state, "active");
    assert_eq!(gateway.get("/v1/audit")["records"][0]["outcome"], Value::Null);
}

/// Homes that others could have prepared are refused, with the command that mends them.
#[test]
fn bad_homes() {
    let (parent, home) = home();
    std::fs::create_dir(&home).unwrap();
    let refused = |home: &std::path::Path| {
        let start = aasm(home).args(["start", "--port", "0"]).output().unwrap();
        assert_eq!(start.status.code(), Some(1));
        stderr(&start)
    };
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(refused(&home).contains("type: chmod 700 '"));
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
    let link = parent.path().join("link");
    symlink(&home, &link).unwrap();
    assert!(refused(&link).contains("symbolic link"));
    if std::fs::metadata(parent.path()).unwrap().uid() == 0 {
        std::os::unix::fs::chown(&home, Some(12345), None).unwrap();
        assert!(refused(&home).contains("belongs to user 12345"));
        std::os::unix::fs::chown(&home, Some(0), None).unwrap();
    }
    let gateway = Gateway::start(&home, &[]);
    for (name, mode) in [("gateway.secret", 0o600), ("operator.token", 0o600), ("audit", 0o700), ("state.db", 0o600)] {
        assert_eq!(std::fs::metadata(home.join(name)).unwrap().mode() & 0o777, mode, "{name}");
    }
    drop(gateway);
    std::fs::remove_file(home.join("gateway.secret")).unwrap();
    symlink("/etc/hostname", home.join("gateway.secret")).unwrap();
    assert!(refused(&home).contains("symbolic link"));
}

/// What is damaged or has no room is named with what to do, in one line.
#[test]
fn unusable_homes() {
    let (parent, home) = home();
    Gateway::start(&home, &[]).terminate();
    let refused = |home: &std::path::Path| {
        let start = aasm(home).args(["start", "--port", "0"]).output().unwrap();
        assert_eq!((start.status.code(), stderr(&start).lines().count()), (Some(1), 1), "{}", stderr(&start));
        stderr(&start)
    };
    std::fs::write(home.join("state.db"), "no database").unwrap();
    assert!(refused(&home).contains("state.db cannot be used") && refused(&home).contains("move it away"));
    std::fs::remove_file(home.join("state.db")).unwrap();
    std::fs::remove_file(home.join("audit/head")).unwrap();
    std::fs::create_dir(home.join("audit/head")).unwrap();
    assert!(refused(&home).contains("audit/head is not a file; move it away"));
    let full = parent.path().join("full");
    std::fs::create_dir(&full).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&full).status();
    if mounted.is_ok_and(|status| status.success()) {
        let said: Vec<String> = [0, 4, 8, 16]
            .map(|free: usize| {
                let _ = std::fs::remove_dir_all(full.join("home"));
                std::fs::write(full.join("ballast"), vec![1; (64 - free) << 10]).unwrap();
                refused(&full.join("home"))
            })
            .into();
        let _ = std::process::Command::new("umount").arg("-l").arg(&full).status();
        assert!(said.iter().all(|line| line.contains(&full.display().to_string())), "{said:?}");
        assert!(said.iter().all(|line| line.contains("make room on its disk")), "{said:?}");
    }
}

/// What is not there is an error at the door.
#[test]
fn not_available() {
    let (_parent, home) = home();
    let remote = aasm(&home).args(["start", "--mode", "remote"]).output().unwrap();
    assert_eq!((remote.status.code(), stderr(&remote).contains("not available in this build")), (Some(1), true));
    for arguments in [&["version"][..], &["--version"]] {
        assert_eq!(stdout(&aasm(&home).args(arguments).output().unwrap()), "aasm 0.1.0\n");
    }
    let port = aasm(&home).arg("start").env("AASM_GATEWAY_PORT", "http").output().unwrap();
    assert_eq!(stderr(&port), "aasm: AASM_GATEWAY_PORT is http, not a port number from 0 to 65535\n");
    assert!(!home.exists());
}

/// SIGTERM lets requests end that are being answered, then everything is closed and the program exits with 0.
#[test]
fn drains() {
    let (_parent, home) = home();
    let gateway = Gateway::start(&home, &[]);
    let (agent, port) = (gateway.register("a"), gateway.port);
    let event = fresh_id();
    let body = agent.call(&event, "t", "{}");
    let head = format!(
        "POST /v1/check HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{}\r\nContent-Length: {}\r\n\r\n",
        agent.header(),
        body.len()
    );
    let mut slow = Client::connect(port);
    let half = std::thread::spawn(move || {
        // The head is sent, the body follows after the signal.
        let (first, second) = body.split_at(10);
        slow.send(format!("{head}{first}").as_bytes());
        std::thread::sleep(Duration::from_millis(600));
        slow.raw(second.as_bytes()).unwrap().status
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(gateway.terminate(), Some(0));
    assert_eq!(half.join().unwrap(), 200);
    assert!(!home.join("gateway.pid").exists());
    assert_eq!(verify(&home)["intact"], true);
    let log = std::fs::read_to_string(home.join("audit/00000000000000000001.log")).unwrap();
    assert!(log.contains(&event) && log.lines().last().unwrap().contains(r#""event":"stopped""#));
}

/// The pid file of a gateway that was killed stops nobody.
#[test]
fn after_a_kill() {
    let (_parent, home) = home();
    let gateway = Gateway::start(&home, &[]);
    gateway.kill();
    assert!(home.join("gateway.pid").exists());
    assert_eq!(status(&home).0, Some(3));
    let gateway = Gateway::start(&home, &[]);
    assert_eq!(status(&home).1["pid"], gateway.pid());
}

/// A gateway that hangs is not reported as running well, and a start beside it fails within its bound.
#[test]
fn a_hanging_gateway() {
    let (_parent, home) = home();
    let gateway = Gateway::start(&home, &[]);
    gateway.signal("STOP");
    let before = Instant::now();
    let start = aasm(&home).args(["start", "--port", "0"]).output().unwrap();
    assert_eq!(start.status.code(), Some(1));
    assert!(stderr(&start).contains("does not answer") && before.elapsed() < Duration::from_secs(8));
    gateway.signal("CONT");
    eventually("recovery", || aasm(&home).arg("status").output().unwrap().status.success().then_some(()));
}

/// Slow callers are cut off, and do not keep others from being served.
#[test]
fn slow_callers() {
    let (_parent, home) = home();
    let gateway = Gateway::start(&home, &[]);
    let agent = gateway.register("a");
    let mut slow: Vec<Client> = (0..100).map(|_| gateway.client()).collect();
    for client in &mut slow {
        let head = "POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8000000\r\n";
        client.send(head.as_bytes());
    }
    assert_eq!(agent.check(&mut gateway.client(), &fresh_id(), "t").status, 200);
    let resident = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = resident.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 60 << 10, "{kib} KiB resident in a debug build");
}
