//! `GET /v1/audit`: the index finds the lines, the log says what is in them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aasm_wire::shapes::{AgentVerdict, AuditRow};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};

use super::chain::{Line, MAX_LINE};
use super::entry::{Begin, End};
use super::index::{self, Identity};
use super::segment::{self, Position};

/// What is asked for; all conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub agent: Option<String>,
    pub tool: Option<String>,
    pub decision: Option<String>,
    pub run: Option<String>,
    /// `open` stands for calls without an outcome.
    pub outcome: Option<String>,
    /// Microseconds; inclusive.
    pub since: Option<i64>,
    /// Microseconds; exclusive.
    pub until: Option<i64>,
    pub after: Option<u64>,
    pub before: Option<u64>,
    pub ascending: bool,
    pub limit: usize,
    pub count: bool,
}

pub struct Page {
    pub rows: Vec<AuditRow>,
    pub next: Option<u64>,
    pub total: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the audit index cannot be read: {0}")]
    Index(#[from] rusqlite::Error),
    #[error("the audit log cannot be read: {0}")]
    Log(#[from] io::Error),
    #[error("line at byte {offset} of {file} is damaged; run `aasm audit verify`")]
    Damaged { file: String, offset: u64 },
}

/// A call without an end.
pub struct OpenCall {
    pub event_id: String,
    pub agent_id: Option<String>,
    pub run_id: Option<String>,
}

/// Reads log and index beside the writer.
pub struct Reader {
    directory: PathBuf,
    connection: Mutex<Option<(Connection, Option<Identity>)>>,
}

/// A row of the index.
struct Found {
    seq: u64,
    event_id: String,
    time: i64,
    agent_id: Option<String>,
    instance_id: Option<String>,
    run_id: Option<String>,
    begin: Option<Position>,
    /// The begin in which the agent tells of another verdict.
    agent: Option<Position>,
    end: Option<Position>,
    end_seq: Option<u64>,
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    let unsigned = |column| row.get::<_, Option<i64>>(column).map(|value| value.map(i64::cast_unsigned));
    let position = |column| -> rusqlite::Result<Option<Position>> {
        Ok(match (unsigned(column)?, unsigned(column + 1)?, unsigned(column + 2)?) {
            (Some(segment), Some(offset), Some(length)) => Some(Position { segment, offset, length }),
            _ => None,
        })
    };
    Ok(Found {
        seq: unsigned(0)?.unwrap_or(0),
        event_id: row.get(1)?,
        time: row.get(2)?,
        agent_id: row.get(3)?,
        instance_id: row.get(4)?,
        run_id: row.get(5)?,
        begin: position(6)?,
        end: position(9)?,
        end_seq: unsigned(12)?,
        agent: position(13)?,
    })
}

const COLUMNS: &str = "seq, event_id, time, agent_id, instance_id, run_id, begin_segment, begin_offset, begin_length,
    end_segment, end_offset, end_length, end_seq, agent_segment, agent_offset, agent_length";

impl Query {
    fn conditions(&self) -> (Vec<String>, Vec<Value>) {
        let (mut sql, mut values) = (Vec::new(), Vec::new());
        let texts = [("agent_id", &self.agent), ("tool", &self.tool), ("run_id", &self.run)];
        for (column, value) in texts {
            if let Some(value) = value {
                sql.push(format!("{column} = ?"));
                values.push(Value::Text(value.clone()));
            }
        }
        if let Some(decision) = &self.decision {
            // What the agent says that it acted on is a decision too.
            sql.push("(decision = ? OR agent_decision = ?)".to_owned());
            values.extend([Value::Text(decision.clone()), Value::Text(decision.clone())]);
        }
        match self.outcome.as_deref() {
            Some("open") => sql.push("end_seq IS NULL".to_owned()),
            Some(outcome) => {
                sql.push("outcome = ?".to_owned());
                values.push(Value::Text(outcome.to_owned()));
            }
            None => {}
        }
        for (condition, value) in [("time >= ?", self.since), ("time < ?", self.until)] {
            if let Some(value) = value {
                sql.push(condition.to_owned());
                values.push(Value::Integer(value));
            }
        }
        (sql, values)
    }
}

fn clause(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) }
}

impl Reader {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), connection: Mutex::new(None) }
    }

    /// Runs a question on the index; a failed connection is not kept.
    fn ask<T>(&self, question: impl FnOnce(&Connection) -> Result<T, QueryError>) -> Result<T, QueryError> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join("index.db");
        let identity = index::identity(&path);
        let connection = match held.take() {
            // The index may have been begun anew since.
            Some((connection, opened)) if opened.is_some() && opened == identity => connection,
            _ => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&path, flags)?;
                connection.busy_timeout(Duration::from_secs(5))?;
                connection.execute_batch("PRAGMA cache_size = -1000;")?;
                connection
            }
        };
        let answer = question(&connection)?;
        *held = Some((connection, identity));
        Ok(answer)
    }

    pub fn page(&self, query: &Query) -> Result<Page, QueryError> {
        let (mut found, total) = self.ask(|connection| {
            let (mut conditions, mut values) = query.conditions();
            let total = if query.count {
                let sql = format!("SELECT count(*) FROM records {}", clause(&conditions));
                let count: i64 =
                    connection.prepare_cached(&sql)?.query_row(params_from_iter(&values), |row| row.get(0))?;
                Some(count.cast_unsigned())
            } else {
                None
            };
            for (condition, value) in [("seq > ?", query.after), ("seq < ?", query.before)] {
                if let Some(value) = value {
                    conditions.push(condition.to_owned());
                    values.push(Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)));
                }
            }
            let order = if query.ascending { "ASC" } else { "DESC" };
            let sql = format!(
                "SELECT {COLUMNS} FROM records {} ORDER BY seq {order} LIMIT {}",
                clause(&conditions),
                query.limit + 1
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(&values), found)?.collect::<Result<Vec<_>, _>>()?;
            Ok((rows, total))
        })?;
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let next = found.last().filter(|_| more).map(|last| last.seq);
        let mut lines = Lines { directory: &self.directory, files: HashMap::new() };
        let rows = found.into_iter().map(|found| row(found, &mut lines)).collect::<Result<_, _>>()?;
        Ok(Page { rows, next, total })
    }

    /// What a begin says.
    pub fn begin(&self, position: Position) -> Result<Begin, QueryError> {
        Lines { directory: &self.directory, files: HashMap::new() }.read(position)
    }

    /// The instances that have calls without an end.
    pub fn instances_with_open_calls(&self) -> Result<Vec<String>, QueryError> {
        self.ask(|connection| {
            let sql = "SELECT DISTINCT instance_id FROM records INDEXED BY open_by_instance
                       WHERE end_seq IS NULL AND instance_id IS NOT NULL";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    /// The calls of an instance that have no end.
    pub fn open_calls(&self, instance_id: &str) -> Result<Vec<OpenCall>, QueryError> {
        self.ask(|connection| {
            let sql =
                "SELECT event_id, agent_id, run_id FROM records WHERE instance_id = ?1 AND end_seq IS NULL LIMIT 10000";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([instance_id], |row| {
                Ok(OpenCall { event_id: row.get(0)?, agent_id: row.get(1)?, run_id: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Reads lines at their positions, opening each segment once.
struct Lines<'a> {
    directory: &'a Path,
    files: HashMap<u64, File>,
}

impl Lines<'_> {
    fn read<T: serde::de::DeserializeOwned>(&mut self, position: Position) -> Result<T, QueryError> {
        let file = match self.files.entry(position.segment) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(File::open(segment::path(self.directory, position.segment))?)
            }
        };
        let damaged = || QueryError::Damaged { file: segment::file_name(position.segment), offset: position.offset };
        let length = usize::try_from(position.length).ok().filter(|length| *length <= MAX_LINE).ok_or_else(damaged)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, position.offset)?;
        let line = Line::parse(&bytes).filter(Line::is_intact).ok_or_else(damaged)?;
        serde_json::from_slice(line.json).map_err(|_| damaged())
    }
}

/// A begin's members have the names of the row's.
fn row(found: Found, lines: &mut Lines<'_>) -> Result<AuditRow, QueryError> {
    let begin: Option<AuditRow> = found.begin.map(|position| lines.read(position)).transpose()?;
    let end: Option<End> = found.end.map(|position| lines.read(position)).transpose()?;
    let agent_verdict: Option<AgentVerdict> = found.agent.map(|position| lines.read(position)).transpose()?;
    let mut row = AuditRow {
        seq: found.seq,
        time: crate::clock::rfc3339(found.time),
        agent_id: found.agent_id,
        instance_id: found.instance_id,
        run_id: found.run_id,
        event_id: found.event_id,
        end_seq: found.end_seq,
        agent_verdict,
        ..begin.unwrap_or_default()
    };
    if let Some(end) = end {
        row.outcome = Some(end.outcome);
        row.error_type = end.error_type;
        row.duration_ms = end.duration_nanos.map(|nanos| nanos as f64 / 1e6);
        row.adopted |= end.adopted;
    }
    Ok(row)
}
