//! A real gateway on a free port, and callers that speak its interface over sockets.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aasm_wire::identifier::hex;
use aasm_wire::v1::{self, Batch, Phase, Record};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub fn aasm(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aasm"));
    command.env("AASM_HOME", home).env_remove("AASM_GATEWAY_PORT");
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until something holds, for ten seconds at most.
pub fn eventually<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A gateway in the foreground; killed when dropped.
pub struct Gateway {
    pub home: PathBuf,
    pub port: u16,
    child: Child,
}

impl Gateway {
    pub fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut command = aasm(home);
        command.args(["start", "--foreground", "--port", "0"]).args(arguments);
        Self::spawn(home, command)
    }

    pub fn spawn(home: &Path, mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id().to_string();
        let port = eventually("the start", || {
            if let Some(status) = child.try_wait().unwrap() {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("the gateway ended with {status}: {said}");
            }
            let text = std::fs::read_to_string(home.join("gateway.pid")).ok()?;
            let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            (value("pid")? == pid).then(|| value("port")?.parse().ok().filter(|port| *port > 0)).flatten()
        });
        Self { home: home.to_owned(), port, child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM; the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn secret(&self) -> String {
        std::fs::read_to_string(self.home.join("gateway.secret")).unwrap().trim_end().to_owned()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    pub fn operator(&self) -> String {
        let token = std::fs::read_to_string(self.home.join("operator.token")).unwrap();
        format!("Authorization: Bearer {}", token.trim_end())
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.client().request("GET", path, &[&self.operator()], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// A request with proof of the secret.
    pub fn proven(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let header = proof(&self.secret(), method, path, body.as_bytes());
        self.client().request(method, path, &[&header], body.as_bytes())
    }

    pub fn announce(&self, run_id: &str, policy: Option<&str>) -> Answer {
        let policy = policy.map(|text| json!({"name": "run.yaml", "text": text}));
        let body = json!({"run_id": run_id, "command": ["python", "agent.py"], "host": "h", "pid": 1, "cwd": "/",
            "sdk_version": "0", "policy": policy});
        self.proven("POST", "/v1/runs", &body)
    }

    pub fn register(&self, agent_id: &str) -> Agent {
        self.register_with(agent_id, json!({}))
    }

    pub fn register_with(&self, agent_id: &str, more: Value) -> Agent {
        let instance_id = fresh_id();
        let mut body = json!({"agent_id": agent_id, "instance_id": instance_id, "sdk_version": "0", "python_version": "3",
            "frameworks": [], "pid": std::process::id(), "host": "elsewhere"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = self.proven("POST", "/v1/agents", &body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let answer = answer.json();
        Agent {
            agent_id: agent_id.to_owned(),
            instance_id: body["instance_id"].as_str().unwrap().to_owned(),
            run_id: body["run_id"].as_str().unwrap_or_default().to_owned(),
            token: answer["session_token"].as_str().unwrap().to_owned(),
            answer,
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn proof(secret: &str, method: &str, path: &str, body: &[u8]) -> String {
    let (time, nonce) = (unix_millis() / 1000, fresh_id());
    let path = path.split('?').next().unwrap();
    let text = format!("aasm-client-v1\n{method}\n{path}\n{time}\n{nonce}\n{}", hex(&Sha256::digest(body)));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    format!("Authorization: AASM-Proof {time}.{nonce}.{}", hex(&mac.finalize().into_bytes()))
}

pub fn unix_millis() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()
}

/// A new event or instance id.
pub fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:012x}{:08x}{number:012x}", unix_millis(), std::process::id())
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and problem code.
    pub fn problem(&self) -> (u16, String) {
        assert!(self.head.contains("application/problem+json"), "{}", self.head);
        (self.status, self.code())
    }
}

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    port: u16,
}

impl Client {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream: BufReader::new(stream), port }
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.try_request(method, path, headers, body).unwrap()
    }

    /// An error when the connection broke before a whole answer was there.
    pub fn try_request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> std::io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            head.push_str(&format!("Host: 127.0.0.1:{}\r\n", self.port));
        }
        for header in headers.iter().filter(|header| !header.is_empty()) {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes)
    }

    /// Sends bytes and expects nothing.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<Answer> {
        // A gateway that refuses early may close before it has read everything.
        let _ = self.stream.get_mut().write_all(bytes);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head[9..12].parse().unwrap();
        let length =
            head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, head, body })
    }
}

/// A registered instance.
#[derive(Clone)]
pub struct Agent {
    pub agent_id: String,
    pub instance_id: String,
    pub run_id: String,
    pub token: String,
    pub answer: Value,
}

impl Agent {
    pub fn header(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// The body of a check.
    pub fn call(&self, event_id: &str, tool: &str, args: &str) -> String {
        let canonical = format!(r#"{{"agent":"{}","args":{args},"server":null,"tool":"{tool}"}}"#, self.agent_id);
        let digest = format!("sha256:{}", hex(&Sha256::digest(canonical)));
        format!(
            r#"{{"event_id":"{event_id}","call_id":"c","attempt":1,"kind":"tool","tool":"{tool}","framework":"langchain",
            "server":null,"agent_name":null,"parent_event_id":null,"cwd":"/","args":{args},"digest":"{digest}"}}"#
        )
    }

    pub fn check(&self, client: &mut Client, event_id: &str, tool: &str) -> Answer {
        let body = self.call(event_id, tool, r#"{"path":"a"}"#);
        client.request("POST", "/v1/check", &[&self.header()], body.as_bytes())
    }

    pub fn record(&self, event_id: &str, phase: Phase) -> Record {
        Record {
            event_id: event_id.to_owned(),
            phase: phase.into(),
            time_unix_nanos: 1,
            agent_id: self.agent_id.clone(),
            instance_id: self.instance_id.clone(),
            run_id: self.run_id.clone(),
            ..Record::default()
        }
    }

    pub fn begin(&self, event_id: &str, tool: &str) -> Record {
        let call = v1::Call { kind: "tool".into(), tool: tool.into(), attempt: 1, ..v1::Call::default() };
        let verdict = v1::Verdict {
            decision: "allow".into(),
            code: "starter".into(),
            decided_by: "agent".into(),
            enforcement_mode: "enforce".into(),
            ..v1::Verdict::default()
        };
        Record { call: Some(call), verdict: Some(verdict), ..self.record(event_id, Phase::Begin) }
    }

    pub fn end(&self, event_id: &str, status: &str) -> Record {
        let outcome = v1::Outcome { status: status.into(), duration_nanos: 1_500_000, ..v1::Outcome::default() };
        Record { outcome: Some(outcome), ..self.record(event_id, Phase::End) }
    }

    pub fn send(&self, client: &mut Client, records: Vec<Record>, adopted: bool) -> Answer {
        let body = Batch { records, adopted }.encode_to_vec();
        let kind = "Content-Type: application/x-protobuf";
        client.request("POST", "/v1/events", &[&self.header(), kind], &body)
    }
}

/// The audit log holds together, by the program's own word.
pub fn verify(home: &Path) -> Value {
    let output = aasm(home).args(["audit", "verify", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(if report["intact"] == true { 0 } else { 1 }));
    report
}
