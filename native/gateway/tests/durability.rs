//! What was acknowledged is in the log, whatever happens.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Agent, Client, Gateway, aasm, eventually, fresh_id, verify};

/// The events in the log's text, by type of line.
fn events(home: &Path, kind: &str) -> Vec<String> {
    let mut segments: Vec<_> = std::fs::read_dir(home.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    segments.sort();
    let mut found = Vec::new();
    for path in segments {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let json: serde_json::Value = serde_json::from_str(&line[65..]).unwrap();
            if json["type"] == kind {
                found.extend(json["event_id"].as_str().map(str::to_owned));
            }
        }
    }
    found
}

/// Callers that check and report until the gateway is gone; the begins and ends that were acknowledged.
fn load(port: u16, agent: &Agent, stop: &Arc<AtomicBool>) -> (Vec<String>, Vec<String>) {
    let acknowledged = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (agent, stop, acknowledged) = (agent.clone(), Arc::clone(stop), Arc::clone(&acknowledged));
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                let mut open = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let event = fresh_id();
                    let body = agent.call(&event, "t", "{}");
                    let Ok(answer) = client.try_request("POST", "/v1/check", &[&agent.header()], body.as_bytes())
                    else {
                        return;
                    };
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    acknowledged.lock().unwrap().0.push(event.clone());
                    open.push(event);
                    if open.len() == 20 {
                        let records = open.iter().map(|event| agent.end(event, "returned")).collect();
                        let body = prost::Message::encode_to_vec(&aasm_wire::v1::Batch { records, adopted: false });
                        let kind = "Content-Type: application/x-protobuf";
                        let sent = client.try_request("POST", "/v1/events", &[&agent.header(), kind], &body);
                        let Ok(answer) = sent else { return };
                        assert_eq!(answer.json()["accepted"], 20);
                        acknowledged.lock().unwrap().1.append(&mut open);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    Arc::into_inner(acknowledged).unwrap().into_inner().unwrap()
}

fn assert_holds(home: &Path, begins: &[String], ends: &[String]) {
    for (kind, acknowledged) in [("begin", begins), ("end", ends)] {
        let found = events(home, kind);
        let unique: HashSet<_> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "no event has two {kind} lines");
        let lost: Vec<_> = acknowledged.iter().filter(|event| !unique.contains(event)).collect();
        assert!(lost.is_empty(), "{} of {} {kind}s are lost", lost.len(), acknowledged.len());
    }
}

/// kill -9 at any moment leaves a log that opens and verifies, with every acknowledged record, and an index that
/// comes up to it; a batch that is sent again is not written twice.
#[test]
fn kill_under_load() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    for round in 0..6_u64 {
        let gateway = Gateway::start(&home, &[]);
        let (agent, port) = (gateway.register("a"), gateway.port);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150 + 57 * round));
            gateway.kill();
        });
        let (more_begins, more_ends) = load(port, &agent, &Arc::default());
        killer.join().unwrap();
        begins.extend(more_begins);
        ends.extend(more_ends);
        let report = verify(&home);
        assert_eq!(report["intact"], true, "{report}");
        assert_holds(&home, &begins, &ends);
        let gateway = Gateway::start(&home, &[]);
        let again: Vec<_> = ends.iter().rev().take(50).cloned().collect();
        // The agent registers again, as an SDK does; its records are known.
        let sent = eventually("the index", || {
            let records = again.iter().map(|event| agent.end(event, "returned")).collect();
            Some(agent.send(&mut gateway.client(), records, true)).filter(|answer| answer.status == 200)
        });
        let answer = sent.json();
        assert_eq!(
            (answer["accepted"].as_u64(), answer["rejected"].as_array().map(Vec::len)),
            (Some(0), Some(0)),
            "{answer}"
        );
        let count = gateway.get("/v1/audit?count=true&limit=1")["total"].as_u64().unwrap();
        assert_eq!(count, events(&home, "begin").len() as u64);
    }
    assert!(begins.len() > 200 && ends.len() > 100, "{} {}", begins.len(), ends.len());
}

/// The index can be deleted: it comes back from the log, with duplicates known.
#[test]
fn index_rebuilt() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let gateway = Gateway::start(&home, &[]);
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    let known: Vec<_> = (0..50).map(|_| fresh_id()).collect();
    for event in &known {
        agent.check(&mut client, event, "t");
    }
    let before = gateway.get("/v1/audit");
    assert_eq!(gateway.terminate(), Some(0));
    std::fs::remove_file(home.join("audit/index.db")).unwrap();
    let gateway = Gateway::start(&home, &[]);
    let records: Vec<_> = known.iter().map(|event| agent.begin(event, "t")).collect();
    let answer = eventually("the index", || {
        let answer = agent.send(&mut gateway.client(), records.clone(), false);
        if answer.status == 503 {
            assert!(answer.head.to_ascii_lowercase().contains("retry-after: "));
        }
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&answer["duplicates"], &answer["accepted"]), (&50.into(), &0.into()));
    assert_eq!(gateway.get("/v1/audit")["records"], before["records"]);
    std::fs::write(home.join("audit/index.db"), "this is not a database").unwrap();
    gateway.kill();
    let gateway = Gateway::start(&home, &[]);
    let rows =
        eventually("the index", || Some(gateway.get("/v1/audit")).filter(|page| page["records"] == before["records"]));
    assert_eq!(rows["next"], before["next"]);
}

/// The index can be deleted at any time, also under a gateway that runs.
#[test]
fn index_removed_meanwhile() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let gateway = Gateway::start(&home, &[]);
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    let known: Vec<_> = (0..20).map(|_| fresh_id()).collect();
    known.iter().for_each(|event| drop(agent.check(&mut client, event, "t")));
    let before = gateway.get("/v1/audit");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(home.join(format!("audit/index.db{suffix}")));
    }
    assert_eq!(agent.check(&mut client, &fresh_id(), "t").status, 200);
    let page = eventually("the index", || {
        let answer = gateway.client().request("GET", "/v1/audit?order=asc", &[&gateway.operator()], b"");
        (answer.status == 200).then(|| answer.json()).filter(|page| page["records"].as_array().unwrap().len() == 21)
    });
    assert!(before["records"].as_array().unwrap().iter().all(|row| page["records"].as_array().unwrap().contains(row)));
    let records = known.iter().map(|event| agent.begin(event, "t")).collect();
    assert_eq!(agent.send(&mut client, records, false).json()["duplicates"], 20);
}

/// Unmounts when dropped, before the directory goes away.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A full disk refuses with 503 and a reason, loses nothing that was acknowledged, and is overcome when there is room.
#[test]
fn disk_full() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(parent.path()).status();
    let limited = !mounted.is_ok_and(|status| status.success());
    let _mount = (!limited).then(|| Mount(parent.path().to_owned()));
    let gateway = if limited {
        // Without the right to mount: no file may grow beyond 512 KiB.
        let mut command = Command::new("prlimit");
        command.args([
            "--fsize=524288:unlimited",
            "--",
            env!("CARGO_BIN_EXE_aasm"),
            "start",
            "--foreground",
            "--port",
            "0",
        ]);
        command.env("AASM_HOME", &home);
        Gateway::spawn(&home, command)
    } else {
        std::fs::write(parent.path().join("ballast"), vec![1; 4 << 20]).unwrap();
        Gateway::start(&home, &[])
    };
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    let mut acknowledged = Vec::new();
    let refused = loop {
        let event = fresh_id();
        let answer = agent.check(&mut client, &event, "t");
        if answer.status != 200 {
            break answer;
        }
        acknowledged.push(event);
        assert!(acknowledged.len() < 100_000);
    };
    assert_eq!(refused.problem(), (503, "storage_full".into()));
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: "));
    // A single end may still fit; all of them do not.
    let ends = || acknowledged.iter().take(500).map(|event| agent.end(event, "returned")).collect::<Vec<_>>();
    assert_eq!(agent.send(&mut client, ends(), false).problem().0, 503);
    let health = gateway.client().request("GET", "/healthz", &[], b"").json();
    assert_eq!(health["status"], "degraded", "{health}");
    if limited {
        let pid = gateway.pid().to_string();
        assert!(
            Command::new("prlimit").args(["--fsize=unlimited:unlimited", "--pid", &pid]).status().unwrap().success()
        );
    } else {
        std::fs::remove_file(parent.path().join("ballast")).unwrap();
    }
    eventually("recovery", || {
        let health = gateway.client().request("GET", "/healthz", &[], b"").json();
        (health["status"] == "ok").then_some(())
    });
    let sent =
        eventually("the report", || Some(agent.send(&mut client, ends(), false)).filter(|answer| answer.status == 200));
    let ended = acknowledged.len().min(500);
    assert_eq!(sent.json()["accepted"], ended, "nothing of the refused batch was written");
    for _ in 0..20 {
        let event = fresh_id();
        assert_eq!(agent.check(&mut client, &event, "t").status, 200);
        acknowledged.push(event);
    }
    assert_eq!(gateway.get("/v1/audit?count=true")["total"], acknowledged.len());
    assert_eq!(gateway.terminate(), Some(0));
    let report = verify(&home);
    assert_eq!(report["intact"], true, "{report}");
    assert_holds(&home, &acknowledged, &acknowledged[..ended]);
}

/// The log can be verified while it is written.
#[test]
fn verify_while_running() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let gateway = Gateway::start(&home, &[]);
    let (agent, port, stop) = (gateway.register("a"), gateway.port, Arc::new(AtomicBool::new(false)));
    let halt = Arc::clone(&stop);
    let loading = std::thread::spawn(move || load(port, &agent, &halt));
    for _ in 0..20 {
        let report = verify(&home);
        assert_eq!(report["intact"], true, "{report}");
    }
    stop.store(true, Ordering::Relaxed);
    let (begins, ends) = loading.join().unwrap();
    assert_eq!(gateway.terminate(), Some(0));
    assert_holds(&home, &begins, &ends);
}

/// Half a line at the end was never acknowledged: it is cut off at the next start. A tail that is missing is named, and
/// the log remembers that it was.
#[test]
fn torn_and_cut_tails() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let gateway = Gateway::start(&home, &[]);
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    for _ in 0..5 {
        agent.check(&mut client, &fresh_id(), "t");
    }
    gateway.kill();
    let log = home.join("audit/00000000000000000001.log");
    let whole = std::fs::read(&log).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[..100]);
    std::fs::write(&log, &torn).unwrap();
    assert_eq!(verify(&home)["intact"], true);
    Gateway::start(&home, &[]).terminate();
    assert_eq!(verify(&home)["intact"], true);
    let now = std::fs::read_to_string(&log).unwrap();
    assert!(now.contains("never acknowledged"));
    let kept: String = now.lines().take(6).map(|line| format!("{line}\n")).collect();
    std::fs::write(&log, kept).unwrap();
    let report = verify(&home);
    assert_eq!((&report["findings"][0]["fault"], &report["findings"][0]["seq"]), (&"cut".into(), &7.into()));
    Gateway::start(&home, &[]).terminate();
    assert!(std::fs::read_to_string(&log).unwrap().contains("lines are missing at its end"));
    let text = aasm(&home).args(["audit", "verify"]).output().unwrap();
    assert!(text.status.success());
}
