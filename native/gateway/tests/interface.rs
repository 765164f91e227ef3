//! The HTTP interface, as a caller meets it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod support;

use serde_json::{Value, json};
use support::{Client, Gateway, fresh_id, proof};

const DENY_DELETE: &str = "apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: run}
default: allow
rules:
  - {id: no-deletes, on: tool, match: {tool: \"delete_*\"}, effect: deny, reason: Files stay.}
";

fn gateway() -> (tempfile::TempDir, Gateway) {
    let home = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&home.path().join("home"), &[]);
    (home, gateway)
}

fn only(rows: &Value) -> &Value {
    assert_eq!(rows["records"].as_array().unwrap().len(), 1, "{rows}");
    &rows["records"][0]
}

/// A verdict is in the audit log when it is given; the end completes the same row; both survive a repetition.
#[test]
fn check_then_end() {
    let (_home, gateway) = gateway();
    let agent = gateway.register("support-bot");
    let (mut client, event) = (gateway.client(), fresh_id());
    let verdict = agent.check(&mut client, &event, "read_file");
    assert_eq!(verdict.status, 200, "{}", verdict.text());
    let verdict = verdict.json();
    assert_eq!(
        (&verdict["decision"], &verdict["code"], &verdict["decision_id"]),
        (&json!("allow"), &json!("starter"), &json!(event))
    );
    let open = gateway.get("/v1/audit?outcome=open");
    assert_eq!(only(&open)["tool"], "read_file");
    for (accepted, duplicates) in [(1, 1), (0, 2)] {
        let answer =
            agent.send(&mut client, vec![agent.begin(&event, "read_file"), agent.end(&event, "returned")], false);
        assert_eq!(answer.json(), json!({"accepted": accepted, "duplicates": duplicates, "rejected": []}));
    }
    let rows = gateway.get("/v1/audit?count=true");
    let row = only(&rows);
    assert_eq!(
        (&row["outcome"], &row["duration_ms"], &row["decided_by"]),
        (&json!("returned"), &json!(1.5), &json!("gateway"))
    );
    assert_eq!((&rows["total"], &rows["next"]), (&json!(1), &Value::Null));
    assert_eq!(rows["indexed_through"], rows["head"]["seq"]);
}

/// Asking again with the same event gives the verdict that was given; with another call it is refused.
#[test]
fn check_again() {
    let (_home, gateway) = gateway();
    let (agent, mut client, event) = (gateway.register("a"), gateway.client(), fresh_id());
    let first = agent.check(&mut client, &event, "read_file").json();
    assert_eq!(agent.check(&mut client, &event, "read_file").json(), first);
    assert_eq!(agent.check(&mut client, &event, "write_file").problem(), (409, "event_exists".into()));
    let other = gateway.register("b");
    assert_eq!(other.check(&mut client, &event, "read_file").problem(), (409, "event_exists".into()));
    only(&gateway.get("/v1/audit"));
}

/// The digest covers agent, tool and the arguments' bytes as they were sent.
#[test]
fn digest_mismatch() {
    let (_home, gateway) = gateway();
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    let good = agent.call(&fresh_id(), "read_file", r#"{"n":1.0}"#);
    for bad in [good.replace("1.0", "1.00"), good.replace(r#""tool":"read_file""#, r#""tool":"other""#)] {
        let answer = client.request("POST", "/v1/check", &[&agent.header()], bad.as_bytes());
        assert_eq!(answer.problem(), (422, "digest_mismatch".into()));
    }
    assert_eq!(client.request("POST", "/v1/check", &[&agent.header()], good.as_bytes()).status, 200);
}

/// Unknown values are refused, unknown fields ignored, and what is no JSON is said to be none.
#[test]
fn values() {
    let (_home, gateway) = gateway();
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    let good = agent.call(&fresh_id(), "read_file", "{}");
    let mut check = |body: String| client.request("POST", "/v1/check", &[&agent.header()], body.as_bytes());
    assert_eq!(check(good.replace(r#""kind":"tool""#, r#""kind":"dance""#)).problem(), (422, "invalid_value".into()));
    assert_eq!(check(good.replace(r#""attempt":1"#, r#""attempt":0"#)).problem(), (422, "invalid_value".into()));
    assert_eq!(check(good.replace(r#""event_id":""#, r#""event_id":"x"#)).problem(), (422, "invalid_value".into()));
    assert_eq!(check("{".into()).problem(), (400, "invalid_json".into()));
    assert_eq!(check(good.replacen('{', r#"{"new_field":[1],"#, 1)).status, 200);
    for path in [
        "/v1/audit?limit=0",
        "/v1/audit?decision=perhaps",
        "/v1/audit?since=once",
        "/v1/audit?order=up",
        "/v1/audit?limit=x",
    ] {
        let answer = gateway.client().request("GET", path, &[&gateway.operator()], b"");
        assert_eq!(answer.problem(), (422, "invalid_value".into()), "{path}");
    }
}

/// Arguments beyond the bound are denied, with a record, before the policy sees them.
#[test]
fn large_arguments() {
    let (_home, gateway) = gateway();
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    let args = format!(r#"{{"text":"{}"}}"#, "x".repeat(1 << 20));
    let body = agent.call(&fresh_id(), "read_file", &args);
    let verdict = client.request("POST", "/v1/check", &[&agent.header()], body.as_bytes()).json();
    assert_eq!((&verdict["decision"], &verdict["code"]), (&json!("deny"), &json!("arguments_too_large")));
    assert_eq!(only(&gateway.get("/v1/audit"))["code"], "arguments_too_large");
}

/// A run's own policy tightens what its instances may do, and nobody else's; it is refused with its places when it is wrong.
#[test]
fn run_policy() {
    let (_home, gateway) = gateway();
    let run = "run-0123456789abcdef";
    let refused = gateway.announce(run, Some(&DENY_DELETE.replace("effect: deny", "effect: dney")));
    assert_eq!(refused.problem(), (422, "invalid_policy".into()));
    let fault = &refused.json()["errors"][0];
    assert_eq!((&fault["file"], &fault["line"]), (&json!("run.yaml"), &json!(6)));
    let unknown = json!({"agent_id": "a", "instance_id": fresh_id(), "run_id": run, "sdk_version": "0",
        "python_version": "3", "pid": 1, "host": "h"});
    assert_eq!(gateway.proven("POST", "/v1/agents", &unknown).problem(), (404, "unknown_run".into()));
    assert_eq!(gateway.announce(run, Some(DENY_DELETE)).status, 201);
    assert_eq!(gateway.announce(run, Some(DENY_DELETE)).status, 200);
    assert_eq!(gateway.announce(run, None).problem(), (409, "run_exists".into()));
    let (inside, outside) = (gateway.register_with("a", json!({"run_id": run})), gateway.register("a"));
    let mut client = gateway.client();
    let denied = inside.check(&mut client, &fresh_id(), "delete_file").json();
    assert_eq!(
        (&denied["decision"], &denied["rule"], &denied["policy"]),
        (&json!("deny"), &json!("no-deletes"), &json!("run"))
    );
    assert_eq!(inside.check(&mut client, &fresh_id(), "read_file").json()["decision"], "allow");
    assert_eq!(outside.check(&mut client, &fresh_id(), "delete_file").json()["decision"], "allow");
    assert_eq!(gateway.get("/v1/audit?decision=deny&count=true")["total"], 1);
    let runs = gateway.get("/v1/runs");
    assert_eq!((&runs["runs"][0]["instances"], &runs["runs"][0]["policy"]), (&json!(1), &json!("run.yaml")));
}

/// Modes: the stricter of what was asked for and what the gateway holds to; disabled is not evaluated, and says so.
#[test]
fn modes() {
    let home = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&home.path().join("home"), &[]);
    let disabled = gateway.register_with("a", json!({"enforcement_mode": "disabled"}));
    assert_eq!(disabled.answer["enforcement_mode"], "disabled");
    let verdict = disabled.check(&mut gateway.client(), &fresh_id(), "t").json();
    assert_eq!((&verdict["decision"], &verdict["code"]), (&json!("allow"), &json!("unevaluated")));
    assert_eq!(only(&gateway.get("/v1/audit"))["evaluated"], false);
    assert_eq!(gateway.terminate(), Some(0));
    let gateway = Gateway::start(&home.path().join("home"), &["--min-enforcement", "observe"]);
    // The old session holds, and is held to more now.
    assert_eq!(disabled.check(&mut gateway.client(), &fresh_id(), "t").json()["enforcement_mode"], "observe");
    for (asked, effective) in [(json!("disabled"), "observe"), (json!("enforce"), "enforce"), (Value::Null, "enforce")]
    {
        assert_eq!(
            gateway.register_with("b", json!({"enforcement_mode": asked})).answer["enforcement_mode"],
            effective
        );
    }
    let mut wrong = json!({"agent_id": "a", "instance_id": fresh_id(), "sdk_version": "", "python_version": "", "pid": 1,
        "host": "", "enforcement_mode": "strict"});
    assert_eq!(gateway.proven("POST", "/v1/agents", &wrong).problem(), (422, "invalid_value".into()));
    wrong["enforcement_mode"] = Value::Null;
    wrong["agent_id"] = json!("no spaces");
    assert_eq!(gateway.proven("POST", "/v1/agents", &wrong).problem(), (422, "invalid_value".into()));
}

/// What a run was announced with holds for all that runs in it.
#[test]
fn modes_of_a_run() {
    let (_home, gateway) = gateway();
    let run = "run-0123456789abcdef";
    let body = json!({"run_id": run, "command": ["python"], "host": "h", "pid": 1, "cwd": "/", "sdk_version": "0",
        "enforcement_mode": "observe"});
    assert_eq!(gateway.proven("POST", "/v1/runs", &body).status, 201);
    for (asked, effective) in [(json!("disabled"), "observe"), (json!("enforce"), "enforce"), (Value::Null, "enforce")]
    {
        let agent = gateway.register_with("a", json!({"run_id": run, "enforcement_mode": asked}));
        assert_eq!(agent.answer["enforcement_mode"], effective);
        assert_eq!(agent.check(&mut gateway.client(), &fresh_id(), "t").json()["code"], "starter");
    }
}

/// Of announcements of one run at the same moment, one is the first; the log has one line of it.
#[test]
fn announced_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("home");
    let gateway = Gateway::start(&path, &[]);
    for round in 0..5 {
        let run = format!("run-{round:016x}");
        let mut codes: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| gateway.announce(&run, None).status)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        codes.sort_unstable();
        assert_eq!(codes, [200, 200, 200, 200, 200, 200, 200, 201]);
    }
    let log = std::fs::read_to_string(path.join("audit/00000000000000000001.log")).unwrap();
    assert_eq!(log.matches(r#""type":"run""#).count(), 5);
}

/// A session is one instance's: it ends when the instance leaves, and reports for nobody else.
#[test]
fn sessions() {
    let (_home, gateway) = gateway();
    let (agent, other) = (gateway.register("a"), gateway.register("b"));
    let mut client = gateway.client();
    let foreign = agent.send(&mut client, vec![other.begin(&fresh_id(), "t")], false).json();
    assert_eq!((&foreign["accepted"], foreign["rejected"].as_array().unwrap().len()), (&json!(0), 1));
    let adopted = agent.send(&mut client, vec![other.begin(&fresh_id(), "t")], true).json();
    assert_eq!(adopted["accepted"], 1);
    assert_eq!(only(&gateway.get("/v1/audit"))["adopted"], true);
    let heartbeat = |client: &mut Client, path: &str| client.request("POST", path, &[&agent.header()], b"");
    assert_eq!(heartbeat(&mut client, "/v1/agents/a/heartbeat").json()["signals"]["paused"], false);
    assert_eq!(heartbeat(&mut client, "/v1/agents/b/heartbeat").problem(), (403, "foreign_agent".into()));
    assert_eq!(client.request("DELETE", "/v1/agents/a", &[&agent.header()], b"").status, 204);
    assert_eq!(agent.check(&mut client, &fresh_id(), "t").problem(), (401, "session_ended".into()));
    let agents = gateway.get("/v1/agents");
    let state = |id: &str| {
        agents["agents"].as_array().unwrap().iter().find(|row| row["agent_id"] == id).unwrap()["state"].clone()
    };
    assert_eq!((state("a"), state("b")), (json!("left"), json!("active")));
}

/// An event is one instance's: nobody else can end it.
#[test]
fn foreign_ends() {
    let (_home, gateway) = gateway();
    let (agent, other, mut client, event) =
        (gateway.register("a"), gateway.register("b"), gateway.client(), fresh_id());
    agent.check(&mut client, &event, "t");
    let answer = other.send(&mut client, vec![other.end(&event, "returned")], false).json();
    assert_eq!(answer["rejected"][0]["reason"], "the event belongs to another instance");
    assert_eq!(only(&gateway.get("/v1/audit"))["outcome"], Value::Null);
}

/// An instance keeps its run for good: the run's policy would go with it.
#[test]
fn one_run_for_good() {
    let (_home, gateway) = gateway();
    let run = "run-0123456789abcdef";
    assert_eq!(gateway.announce(run, Some(DENY_DELETE)).status, 201);
    let agent = gateway.register_with("a", json!({"run_id": run}));
    let again = |run: Value| {
        let body = json!({"agent_id": "a", "instance_id": agent.instance_id, "run_id": run, "sdk_version": "0",
            "python_version": "3", "pid": 1, "host": "elsewhere"});
        gateway.proven("POST", "/v1/agents", &body)
    };
    assert_eq!(again(Value::Null).problem(), (409, "instance_exists".into()));
    assert_eq!(again(json!(run)).status, 200);
}

/// The agent may have denied what the gateway allowed, when no answer came in time or the arguments had changed. The log
/// has both verdicts then, the row shows both, and each is written once.
#[test]
fn another_verdict_of_the_agent() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("home");
    let gateway = Gateway::start(&path, &[]);
    let (agent, mut client, event, same) = (gateway.register("a"), gateway.client(), fresh_id(), fresh_id());
    let verdict = agent.check(&mut client, &event, "t").json();
    agent.check(&mut client, &same, "t");
    let mut begin = agent.begin(&event, "t");
    let changed = begin.verdict.as_mut().unwrap();
    (changed.decision, changed.code, changed.reason) =
        ("deny".into(), "arguments_changed".into(), "They changed.".into());
    let send = |client: &mut Client| {
        let records =
            vec![begin.clone(), agent.begin(&event, "t"), agent.begin(&same, "t"), agent.end(&event, "refused")];
        let answer = agent.send(client, records, false).json();
        (answer["accepted"].as_u64().unwrap(), answer["duplicates"].as_u64().unwrap())
    };
    assert_eq!(send(&mut client), (2, 2));
    assert_eq!(send(&mut client), (0, 4));
    assert_eq!(agent.check(&mut client, &event, "t").json(), verdict);
    let rows = gateway.get("/v1/audit");
    let row = &rows["records"][1];
    assert_eq!(
        (&row["decision"], &row["code"], &row["outcome"]),
        (&json!("allow"), &json!("starter"), &json!("refused"))
    );
    let expected = json!({"decision": "deny", "code": "arguments_changed", "reason": "They changed."});
    assert_eq!((&row["agent_verdict"], &rows["records"][0]["agent_verdict"]), (&expected, &Value::Null));
    assert_eq!(only(&gateway.get("/v1/audit?decision=deny"))["event_id"], event.as_str());
    // A rebuilt index says the same.
    assert_eq!(gateway.terminate(), Some(0));
    std::fs::remove_file(path.join("audit/index.db")).unwrap();
    let gateway = Gateway::start(&path, &[]);
    assert_eq!(gateway.get("/v1/audit")["records"], rows["records"]);
    assert_eq!(send(&mut gateway.client()), (0, 4));
}

/// Nobody ends the calls of an instance that is alive; when its process has ended, others may.
#[test]
fn only_the_dead_are_adopted() {
    let (_home, gateway) = gateway();
    let mut process = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let agent = gateway.register_with("a", json!({"pid": process.id(), "host": host.trim()}));
    let (other, mut client, event) = (gateway.register("b"), gateway.client(), fresh_id());
    agent.check(&mut client, &event, "t");
    let refused = other.send(&mut client, vec![agent.end(&event, "returned")], true);
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(refused.problem(), (409, "instance_alive".into()));
    assert_eq!(only(&gateway.get("/v1/audit"))["outcome"], Value::Null);
    assert_eq!(other.send(&mut client, vec![agent.end(&event, "returned")], true).json()["accepted"], 1);
}

/// Large bodies that arrive slowly hold up other large ones, and no check.
#[test]
fn checks_pass_slow_batches() {
    let (_home, gateway) = gateway();
    let agent = gateway.register("a");
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}\r\nContent-Length: 8000000\r\n\r\n",
        gateway.port,
        agent.header()
    );
    let mut slow: Vec<Client> = (0..8).map(|_| gateway.client()).collect();
    slow.iter_mut().for_each(|client| client.send(head.as_bytes()));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = std::time::Instant::now();
    assert_eq!(agent.check(&mut gateway.client(), &fresh_id(), "t").status, 200);
    assert!(before.elapsed() < std::time::Duration::from_secs(2), "{:?}", before.elapsed());
}

/// An unknown outcome gives way to the real one, and to no other.
#[test]
fn unknown_gives_way() {
    let (_home, gateway) = gateway();
    let (agent, mut client, event) = (gateway.register("a"), gateway.client(), fresh_id());
    let mut send = |records| {
        let answer = agent.send(&mut client, records, false).json();
        (answer["accepted"].as_u64().unwrap(), answer["duplicates"].as_u64().unwrap())
    };
    assert_eq!(send(vec![agent.begin(&event, "t"), agent.end(&event, "unknown")]), (2, 0));
    assert_eq!(send(vec![agent.end(&event, "unknown")]), (0, 1));
    assert_eq!(send(vec![agent.end(&event, "raised")]), (1, 0));
    assert_eq!(send(vec![agent.end(&event, "returned"), agent.end(&event, "unknown")]), (0, 2));
    assert_eq!(only(&gateway.get("/v1/audit"))["outcome"], "raised");
}

/// Pages in both directions hold every record once.
#[test]
fn paging() {
    let (_home, gateway) = gateway();
    let (agent, mut client) = (gateway.register("a"), gateway.client());
    let events: Vec<String> = (0..25).map(|_| fresh_id()).collect();
    for event in &events {
        assert_eq!(agent.check(&mut client, event, "t").status, 200);
    }
    for (order, cursor) in [("asc", "after"), ("desc", "before")] {
        let (mut seen, mut place) = (Vec::new(), String::new());
        loop {
            let page = gateway.get(&format!("/v1/audit?tool=t&limit=10&order={order}{place}"));
            seen.extend(
                page["records"].as_array().unwrap().iter().map(|row| row["event_id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_u64() else { break };
            place = format!("&{cursor}={next}");
        }
        if order == "desc" {
            seen.reverse();
        }
        assert_eq!(seen, events, "{order}");
    }
    let row = &gateway.get("/v1/audit?limit=1")["records"][0];
    let time = row["time"].as_str().unwrap();
    assert!(gateway.get(&format!("/v1/audit?since={time}"))["records"].as_array().unwrap().contains(row));
    assert!(!gateway.get(&format!("/v1/audit?until={time}"))["records"].as_array().unwrap().contains(row));
    assert_eq!(gateway.get("/v1/audit?agent=nobody&count=true")["total"], 0);
}

/// Only our own host and origin; a proof holds for one request.
#[test]
fn hosts_origins_proofs() {
    let (_home, gateway) = gateway();
    let port = gateway.port;
    let get = |headers: &[&str]| gateway.client().request("GET", "/healthz", headers, b"");
    assert_eq!(get(&[&format!("Host: localhost:{port}")]).status, 200);
    assert_eq!(get(&[&format!("Host: evil.example:{port}")]).problem(), (421, "foreign_host".into()));
    assert_eq!(get(&["Host: 127.0.0.1"]).problem(), (421, "foreign_host".into()));
    assert_eq!(get(&["Origin: http://evil.example"]).problem(), (403, "foreign_origin".into()));
    assert_eq!(get(&["Origin: null"]).problem(), (403, "foreign_origin".into()));
    assert_eq!(get(&[&format!("Origin: http://127.0.0.1:{port}")]).status, 200);
    let unknown = gateway.client().request("GET", "/v2", &["Host: evil:1"], b"");
    assert_eq!(unknown.problem(), (421, "foreign_host".into()));
    assert_eq!(gateway.client().request("GET", "/v2", &[], b"").problem(), (404, "not_found".into()));
    assert_eq!(gateway.client().request("PUT", "/v1/runs", &[], b"").problem(), (405, "method_not_allowed".into()));
    let body =
        json!({"run_id": "run-0123456789abcdef", "command": [], "host": "h", "pid": 1, "cwd": "/", "sdk_version": "0"});
    let body = body.to_string();
    let header = proof(&gateway.secret(), "POST", "/v1/runs", body.as_bytes());
    let send = |header: &str, body: &str| gateway.client().request("POST", "/v1/runs", &[header], body.as_bytes());
    assert_eq!(send(&header, &body.replace("\"h\"", "\"i\"")).problem(), (401, "proof_invalid".into()));
    assert_eq!(send(&header, &body).status, 201);
    assert_eq!(send(&header, &body).problem(), (401, "proof_reused".into()));
    assert_eq!(send("Authorization: Bearer key", &body).problem(), (401, "api_keys_unavailable".into()));
}

/// Bodies beyond the bound are refused, whether their length is said or not.
#[test]
fn bodies() {
    let (_home, gateway) = gateway();
    let agent = gateway.register("a");
    let header = agent.header();
    let large = vec![b' '; (2 << 20) + 1];
    let answer = gateway.client().request("POST", "/v1/check", &[&header], &large);
    assert_eq!(answer.problem(), (413, "body_too_large".into()));
    let head = format!(
        "POST /v1/check HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{header}\r\nTransfer-Encoding: chunked\r\n\r\n",
        gateway.port
    );
    let mut bytes = head.into_bytes();
    for chunk in large.chunks(1 << 20) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    assert_eq!(gateway.client().raw(&bytes).unwrap().problem(), (413, "body_too_large".into()));
    let kind = "Content-Type: application/x-protobuf";
    let bomb = [0x0a, 0].repeat(1 << 20);
    let answer = gateway.client().request("POST", "/v1/events", &[&header, kind], &bomb);
    assert_eq!(answer.problem(), (413, "too_many_records".into()));
    let garbage = gateway.client().request("POST", "/v1/events", &[&header, kind], b"\xff\xff\xff");
    assert_eq!(garbage.problem(), (400, "invalid_protobuf".into()));
    let json = gateway.client().request("POST", "/v1/events", &[&header], b"{}");
    assert_eq!(json.problem(), (415, "unsupported_media_type".into()));
}

/// The interface describes itself.
#[test]
fn openapi() {
    let (_home, gateway) = gateway();
    let document = gateway.client().request("GET", "/openapi.json", &[], b"").json();
    assert!(document["paths"]["/v1/check"]["post"]["responses"]["200"].is_object());
    assert!(document["components"]["schemas"]["AuditRow"]["properties"]["end_seq"].is_object());
}
