//! The records of processes that died.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod support;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use aasm_wire::spool::{MAGIC, frame};
use aasm_wire::v1::{Record, SegmentHeader};
use prost::Message;
use serde_json::{Value, json};
use support::{Agent, Gateway, eventually, fresh_id};

/// A segment as the SDK leaves it: preallocated, older than a second.
fn segment(home: &Path, agent: &Agent, number: u32, records: &[Record], damage: bool) -> PathBuf {
    let header = SegmentHeader { format: 1, instance_id: agent.instance_id.clone(), ..SegmentHeader::default() };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(frame(&header.encode_to_vec()));
    for record in records {
        bytes.extend(frame(&record.encode_to_vec()));
    }
    if damage {
        bytes.extend([40, 0, 0, 0, 1, 2, 3, 4, 5]);
    }
    bytes.resize(bytes.len() + 4096, 0);
    let path = home.join(format!("spool/{}-{number:06}.seg", agent.instance_id));
    let file = std::fs::File::create(&path).unwrap();
    (&file).write_all(&bytes).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    path
}

fn row(gateway: &Gateway, event: &str) -> Value {
    let rows = gateway.get("/v1/audit?limit=1000");
    rows["records"].as_array().unwrap().iter().find(|row| row["event_id"] == event).cloned().unwrap_or(Value::Null)
}

fn gateway() -> (tempfile::TempDir, Gateway) {
    let parent = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&parent.path().join("home"), &[]);
    (parent, gateway)
}

/// A dead owner's segments are adopted: ends complete their calls, calls without one end unknown, losses are written down,
/// and the files go away.
#[test]
fn adoption() {
    let (_parent, gateway) = gateway();
    let agent = gateway.register("a");
    let [done, open, reported] = [fresh_id(), fresh_id(), fresh_id()];
    // The gateway gave this verdict; the agent shipped the end of it before it died.
    agent.check(&mut gateway.client(), &reported, "t");
    agent.send(&mut gateway.client(), vec![agent.end(&reported, "raised")], false);
    let loss = Record { lost: 7, ..agent.record(&fresh_id(), aasm_wire::v1::Phase::Loss) };
    let paths = [
        segment(
            &gateway.home,
            &agent,
            1,
            &[agent.begin(&done, "t"), agent.begin(&open, "t"), agent.begin(&reported, "t")],
            false,
        ),
        segment(&gateway.home, &agent, 2, &[agent.end(&done, "returned"), loss], true),
    ];
    eventually("the adoption", || paths.iter().all(|path| !path.exists()).then_some(()));
    let outcome = |event: &str| row(&gateway, event)["outcome"].clone();
    assert_eq!(
        (outcome(&done), outcome(&open), outcome(&reported)),
        (json!("returned"), json!("unknown"), json!("raised"))
    );
    assert_eq!(row(&gateway, &done)["adopted"], true);
    let log = std::fs::read_to_string(gateway.home.join("audit/00000000000000000001.log")).unwrap();
    assert!(log.contains(r#""lost":7"#) && log.contains("-000002.seg is torn"));
    // It was not dead at all: the real outcome is taken.
    agent.send(&mut gateway.client(), vec![agent.end(&open, "returned")], false);
    assert_eq!(outcome(&open), "returned");
}

/// What lies in the spool when the gateway starts is adopted; what is no segment of ours stays.
#[test]
fn adoption_at_start() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let gateway = Gateway::start(&home, &[]);
    let (agent, event) = (gateway.register("a"), fresh_id());
    assert_eq!(gateway.terminate(), Some(0));
    let path = segment(&home, &agent, 1, &[agent.begin(&event, "t"), agent.end(&event, "returned")], false);
    let foreign = home.join(format!("spool/{}-000001.seg", fresh_id()));
    std::fs::write(&foreign, "AASMSP2\nsomething newer").unwrap();
    std::fs::File::open(&foreign).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    std::os::unix::fs::symlink(&foreign, home.join(format!("spool/{}-000001.seg", fresh_id()))).unwrap();
    let gateway = Gateway::start(&home, &[]);
    eventually("the adoption", || (!path.exists()).then_some(()));
    assert_eq!(row(&gateway, &event)["outcome"], "returned");
    std::thread::sleep(Duration::from_secs(3));
    assert!(foreign.exists());
    let log = std::fs::read_to_string(home.join("audit/00000000000000000001.log")).unwrap();
    assert_eq!(log.matches("cannot be read").count(), 1);
}

/// Holds the lock of a file as its owner would, until it is killed.
fn owner(path: &Path) -> Child {
    let program = "import fcntl,sys;f=open(sys.argv[1],'r+b');fcntl.lockf(f,fcntl.LOCK_EX);print('x',flush=True);sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    child
}

/// A segment that cannot be read says nothing more: the calls of its dead writer end all the same.
#[test]
fn unreadable_segments_keep_no_call_open() {
    let (_parent, gateway) = gateway();
    let mut process = Command::new("sleep").arg("60").spawn().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let agent = gateway.register_with("a", json!({"pid": process.id(), "host": host.trim()}));
    let event = fresh_id();
    agent.check(&mut gateway.client(), &event, "t");
    let path = gateway.home.join(format!("spool/{}-000001.seg", agent.instance_id));
    std::fs::write(&path, "AASMSP2\nsomething newer").unwrap();
    std::fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    eventually("the end", || (row(&gateway, &event)["outcome"] == "unknown").then_some(()));
    assert!(path.exists());
}

/// A segment belongs to its owner as long as it lives. When the owner's process is gone, so is the instance: it is lost,
/// and what it had begun ends unknown.
#[test]
fn lost_instances() {
    let (_parent, gateway) = gateway();
    let probe = gateway.register("probe");
    let path = segment(&gateway.home, &probe, 1, &[], false);
    let mut process = owner(&path);
    let host = Command::new("uname").arg("-n").output().unwrap().stdout;
    let host = String::from_utf8(host).unwrap().trim().to_owned();
    let agent = gateway.register_with("a", json!({"pid": process.id(), "host": host, "instance_id": fresh_id()}));
    let event = fresh_id();
    agent.check(&mut gateway.client(), &event, "t");
    std::thread::sleep(Duration::from_secs(3));
    assert!(path.exists());
    assert_eq!(row(&gateway, &event)["outcome"], Value::Null);
    process.kill().unwrap();
    process.wait().unwrap();
    eventually("the end", || (row(&gateway, &event)["outcome"] == "unknown").then_some(()));
    eventually("the adoption", || (!path.exists()).then_some(()));
    let agents = gateway.get("/v1/agents");
    let state = |id: &str| {
        agents["agents"].as_array().unwrap().iter().find(|row| row["agent_id"] == id).unwrap()["state"].clone()
    };
    assert_eq!((state("a"), state("probe")), (json!("lost"), json!("active")));
    // It speaks again: it was not lost.
    assert_eq!(agent.check(&mut gateway.client(), &fresh_id(), "t").status, 200);
}
