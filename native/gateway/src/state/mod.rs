//! `state.db`: runs, instances, revisions of the policy. Durable: what was answered is on the disk.

mod lists;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aasm_wire::shapes::{AgentRequest, RunRequest};
use aasm_wire::terms::EnforcementMode;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use crate::{clock, home, process};

const SCHEMA: &str = "
CREATE TABLE store (name TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE revisions (
    number INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, source TEXT NOT NULL, names TEXT NOT NULL, since INTEGER NOT NULL
);
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, content TEXT NOT NULL, policy_name TEXT, policy_text TEXT, announced INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX runs_by_time ON runs (announced);
CREATE TABLE instances (
    instance_id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, run_id TEXT, mode TEXT NOT NULL, request TEXT NOT NULL,
    process_start INTEGER, registered INTEGER NOT NULL, seen INTEGER NOT NULL, left INTEGER, lost INTEGER
) WITHOUT ROWID;
CREATE INDEX active ON instances (instance_id) WHERE left IS NULL AND lost IS NULL;
CREATE INDEX instances_by_time ON instances (registered);
CREATE INDEX instances_by_run ON instances (run_id);
PRAGMA user_version = 1;";

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("state.db is of a newer version of this program; install that version")]
    Newer,
    #[error("state.db: {0}")]
    Io(#[from] std::io::Error),
    #[error("state.db holds something that this program did not write: {0}")]
    Content(#[from] serde_json::Error),
}

impl StateError {
    pub fn is_full(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
    }

    /// What went wrong with the file, and what to do.
    pub fn at(&self, path: &Path) -> String {
        let remedy = match (self, self.code()) {
            (Self::Newer, _) => return self.to_string(),
            (Self::Content(_), _) | (_, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) => {
                "move it away; runs are forgotten then and must be started again, the audit log stays"
            }
            _ if self.is_full() => "make room on its disk",
            _ => "see that it can be written",
        };
        format!("{} cannot be used ({self}); {remedy}", path.display())
    }

    fn code(&self) -> Option<ErrorCode> {
        let Self::Sqlite(error) = self else { return None };
        error.sqlite_error_code()
    }
}

type Result<T> = std::result::Result<T, StateError>;

pub struct State {
    connection: Mutex<Connection>,
    store: String,
    epoch: u64,
}

/// Whether a thing was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    New,
    Known,
    /// Another one is kept under the same name.
    Conflict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    Active,
    Left,
    Lost,
}

/// Where an instance ran.
#[derive(Debug, Clone)]
pub struct Process {
    pub instance_id: String,
    pub agent_id: String,
    pub run_id: Option<String>,
    pub host: String,
    pub pid: u32,
    /// As `/proc` shows it; `None` when the process could not be seen.
    pub start: Option<u64>,
}

impl Process {
    /// Whether it ran here and has ended, as far as one can see.
    pub fn is_gone(&self, host: &str) -> bool {
        self.host == host && self.start.is_some_and(|start| process::is_gone(self.pid, start))
    }

    /// Whether it runs here.
    pub fn is_alive(&self, host: &str) -> bool {
        self.host == host && self.start.is_some_and(|start| !process::is_gone(self.pid, start))
    }
}

impl State {
    pub fn open(path: &Path) -> Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -1000;")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => {
                let transaction = connection.transaction()?;
                transaction.execute_batch(SCHEMA)?;
                transaction.execute("INSERT INTO store VALUES (?1, 0)", [home::random_hex(4)?])?;
                transaction.commit()?;
            }
            1 => {}
            _ => return Err(StateError::Newer),
        }
        let (store, epoch) = connection.query_row("SELECT name, epoch FROM store", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        Ok(Self { connection: Mutex::new(connection), store, epoch })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision of a policy; a new one when it differs from the last. Says whether it is new.
    pub fn revision(&self, fingerprint: &str, source: &str, names: &[&str]) -> Result<(String, bool)> {
        let connection = self.connection();
        let last: Option<(i64, String, String)> = connection
            .query_row("SELECT number, fingerprint, source FROM revisions ORDER BY number DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let (number, changed) = match last {
            Some((number, known, from)) if known == fingerprint && from == source => (number, false),
            last => {
                let number = last.map_or(1, |(number, _, _)| number + 1);
                let names = serde_json::to_string(names)?;
                connection.execute(
                    "INSERT INTO revisions VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![number, fingerprint, source, names, clock::now_micros()],
                )?;
                (number, true)
            }
        };
        Ok((format!("{}/{}/{number}", self.store, self.epoch), changed))
    }

    /// Whether a run is kept, with this content.
    pub fn find(&self, run: &RunRequest) -> Result<Kept> {
        let content = serde_json::to_string(run)?;
        let connection = self.connection();
        let sql = "SELECT content FROM runs WHERE run_id = ?1";
        let known: Option<String> = connection.query_row(sql, [&run.run_id], |row| row.get(0)).optional()?;
        Ok(match known {
            None => Kept::New,
            Some(known) if known == content => Kept::Known,
            Some(_) => Kept::Conflict,
        })
    }

    pub fn announce(&self, run: &RunRequest) -> Result<Kept> {
        let content = serde_json::to_string(run)?;
        let policy = run.policy.as_ref();
        let kept = self.connection().execute(
            "INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (run_id) DO NOTHING",
            params![
                run.run_id,
                content,
                policy.map(|policy| &policy.name),
                policy.map(|policy| &policy.text),
                clock::now_micros()
            ],
        )?;
        if kept == 0 { self.find(run) } else { Ok(Kept::New) }
    }

    /// Name and text of a run's own policy; the outer `None` when there is no such run.
    pub fn run_policy(&self, run_id: &str) -> Result<Option<Option<(String, String)>>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT policy_name, policy_text FROM runs WHERE run_id = ?1")?;
        let read = |row: &Row<'_>| {
            let (name, text): (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
            // Half of a policy is a policy that cannot be loaded, not none.
            let kept = name.is_some() || text.is_some();
            Ok(kept.then(|| (name.unwrap_or_default(), text.unwrap_or_default())))
        };
        Ok(statement.query_row([run_id], read).optional()?)
    }

    /// What a run was announced to be held to.
    pub fn run_mode(&self, run_id: &str) -> Result<Option<EnforcementMode>> {
        let sql = "SELECT content FROM runs WHERE run_id = ?1";
        let content: Option<String> = self.connection().query_row(sql, [run_id], |row| row.get(0)).optional()?;
        let run: Option<RunRequest> = content.map(|content| serde_json::from_str(&content)).transpose()?;
        Ok(run.and_then(|run| run.enforcement_mode))
    }

    /// Keeps an instance; one that had left or was lost is active again. It never changes its agent, nor its run: the
    /// run's policy would go with it.
    pub fn register(&self, agent: &AgentRequest, mode: EnforcementMode, process_start: Option<u64>) -> Result<Kept> {
        let connection = self.connection();
        let sql = "SELECT agent_id, run_id FROM instances WHERE instance_id = ?1";
        let known: Option<(String, Option<String>)> =
            connection.query_row(sql, [&agent.instance_id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if known.as_ref().is_some_and(|(agent_id, run_id)| *agent_id != agent.agent_id || *run_id != agent.run_id) {
            return Ok(Kept::Conflict);
        }
        connection.execute(
            "INSERT INTO instances VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, NULL, NULL)
             ON CONFLICT (instance_id) DO UPDATE SET mode = excluded.mode,
                 request = excluded.request, process_start = excluded.process_start, seen = excluded.seen,
                 left = NULL, lost = NULL",
            params![
                agent.instance_id,
                agent.agent_id,
                agent.run_id,
                mode.as_str(),
                serde_json::to_string(agent)?,
                process_start.map(u64::cast_signed),
                clock::now_micros()
            ],
        )?;
        Ok(if known.is_some() { Kept::Known } else { Kept::New })
    }

    /// Marks an instance as gone.
    pub fn depart(&self, instance_id: &str, lost: bool) -> Result<()> {
        let column = if lost { "lost" } else { "left" };
        let sql = format!("UPDATE instances SET {column} = ?2 WHERE instance_id = ?1");
        self.connection().execute(&sql, params![instance_id, clock::now_micros()])?;
        Ok(())
    }

    /// An instance that was taken for lost has spoken.
    pub fn revive(&self, instance_id: &str) -> Result<()> {
        self.connection().execute("UPDATE instances SET lost = NULL WHERE instance_id = ?1", [instance_id])?;
        Ok(())
    }

    pub fn standing(&self, instance_id: &str) -> Result<Standing> {
        let connection = self.connection();
        let sql = "SELECT left IS NOT NULL, lost IS NOT NULL FROM instances WHERE instance_id = ?1";
        let read = |row: &Row<'_>| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?));
        Ok(match connection.prepare_cached(sql)?.query_row([instance_id], read).optional()? {
            None => Standing::Unknown,
            Some((true, _)) => Standing::Left,
            Some((false, true)) => Standing::Lost,
            Some((false, false)) => Standing::Active,
        })
    }

    pub fn active_processes(&self) -> Result<Vec<Process>> {
        self.processes("WHERE left IS NULL AND lost IS NULL", [])
    }

    /// The first of these instances that is active and whose process runs on this host.
    pub fn first_alive(&self, instances: &BTreeSet<String>, host: &str) -> Result<Option<String>> {
        for instance_id in instances {
            if self.standing(instance_id)? == Standing::Active
                && self.process(instance_id)?.is_some_and(|process| process.is_alive(host))
            {
                return Ok(Some(instance_id.clone()));
            }
        }
        Ok(None)
    }

    pub fn process(&self, instance_id: &str) -> Result<Option<Process>> {
        Ok(self.processes("WHERE instance_id = ?1", [instance_id])?.pop())
    }

    fn processes<P: rusqlite::Params>(&self, condition: &str, values: P) -> Result<Vec<Process>> {
        let connection = self.connection();
        let sql = format!("SELECT request, process_start FROM instances {condition}");
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(values, |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?)))?;
        rows.map(|row| {
            let (request, start) = row?;
            let agent: AgentRequest = serde_json::from_str(&request)?;
            Ok(Process {
                instance_id: agent.instance_id,
                agent_id: agent.agent_id,
                run_id: agent.run_id,
                host: agent.host,
                pid: agent.pid,
                start: start.map(i64::cast_unsigned),
            })
        })
        .collect()
    }

    /// Keeps when instances were last heard of.
    pub fn seen(&self, instances: &[(String, i64)]) -> Result<()> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        for (instance_id, seen) in instances {
            let sql = "UPDATE instances SET seen = ?2 WHERE instance_id = ?1 AND seen < ?2";
            transaction.prepare_cached(sql)?.execute(params![instance_id, seen])?;
        }
        Ok(transaction.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The revision's number grows with each change, and only then, also across a restart.
    #[test]
    fn revisions() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let state = State::open(&path).unwrap();
        let (first, new) = state.revision("a", "files", &["p"]).unwrap();
        assert!(new && first.ends_with("/0/1") && first.split('/').next().unwrap().len() == 8);
        drop(state);
        let state = State::open(&path).unwrap();
        assert_eq!(state.revision("a", "files", &["p"]).unwrap(), (first.clone(), false));
        let (second, new) = state.revision("b", "files", &["p"]).unwrap();
        assert_eq!((second, new), (first.replace("/0/1", "/0/2"), true));
    }

    /// An instance keeps its agent and its run; leaving is remembered, registering again undoes it.
    #[test]
    fn instances() {
        let home = tempfile::tempdir().unwrap();
        let state = State::open(&home.path().join("state.db")).unwrap();
        let mut agent: AgentRequest = serde_json::from_value(serde_json::json!({
            "agent_id": "a", "instance_id": "i", "sdk_version": "0", "python_version": "3", "pid": 1, "host": "h"
        }))
        .unwrap();
        let mode = EnforcementMode::Enforce;
        assert_eq!(state.standing("i").unwrap(), Standing::Unknown);
        assert_eq!(state.register(&agent, mode, Some(7)).unwrap(), Kept::New);
        state.depart("i", false).unwrap();
        assert_eq!(state.standing("i").unwrap(), Standing::Left);
        assert_eq!(state.register(&agent, mode, Some(7)).unwrap(), Kept::Known);
        assert_eq!(state.standing("i").unwrap(), Standing::Active);
        agent.run_id = Some("run-0123456789abcdef".into());
        assert_eq!(state.register(&agent, mode, None).unwrap(), Kept::Conflict);
        agent.run_id = None;
        agent.agent_id = "b".into();
        assert_eq!(state.register(&agent, mode, None).unwrap(), Kept::Conflict);
    }
}
