//! `audit/index.db`: where each event's lines stand, and what they can be found by. Rebuilt from the log at any time.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use super::chain::{Line, Link};
use super::entry::{Columns, LineType};
use super::event::{Begun, EndState, EventState, digest_prefix};
use super::segment::{self, LineReader, Next, Position};

/// A new number makes older indexes be rebuilt.
const FORMAT: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE records (
    seq INTEGER PRIMARY KEY, event_id TEXT NOT NULL, time INTEGER NOT NULL,
    agent_id TEXT, instance_id TEXT, run_id TEXT, tool TEXT, decision TEXT, outcome TEXT,
    begin_segment INTEGER, begin_offset INTEGER, begin_length INTEGER, code TEXT, digest INTEGER,
    agent_decision TEXT, agent_segment INTEGER, agent_offset INTEGER, agent_length INTEGER,
    end_seq INTEGER, end_segment INTEGER, end_offset INTEGER, end_length INTEGER
);
CREATE UNIQUE INDEX by_event ON records (event_id);
CREATE INDEX by_time ON records (time);
CREATE INDEX by_agent ON records (agent_id);
CREATE INDEX by_run ON records (run_id);
CREATE INDEX by_tool ON records (tool);
CREATE INDEX by_decision ON records (decision);
CREATE INDEX by_agent_decision ON records (agent_decision) WHERE agent_decision IS NOT NULL;
CREATE INDEX open_by_instance ON records (instance_id) WHERE end_seq IS NULL;
CREATE TABLE losses (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE progress (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq INTEGER NOT NULL, hash TEXT NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL
);";

/// A line that is in the log and not in the index yet.
#[derive(Debug, Clone)]
pub struct Pending {
    pub seq: u64,
    pub hash: String,
    pub time: i64,
    pub line_type: LineType,
    pub columns: Columns,
    pub position: Position,
}

pub struct Index {
    connection: Connection,
    path: PathBuf,
    identity: Option<Identity>,
    /// The last line that is in the index; `None` when it is empty.
    through: Option<(u64, Position)>,
}

/// Device and inode of a file; `None` when there is none.
pub type Identity = (u64, u64);

pub fn identity(path: &Path) -> Option<Identity> {
    path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn position(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Position>> {
    let Some(segment) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
    Ok(Some(Position {
        segment: segment.cast_unsigned(),
        offset: number(row, column + 1)?,
        length: number(row, column + 2)?,
    }))
}

impl Index {
    /// Opens the index when it fits the log, else begins a new one.
    pub fn open(directory: &Path, tail: &Link) -> rusqlite::Result<Self> {
        let path = directory.join("index.db");
        match Self::open_existing(&path) {
            Ok(Some(index)) if index.fits(directory, tail) => return Ok(index),
            Ok(None) => {}
            Ok(Some(_)) => tracing::warn!("the audit index does not fit the log; it is rebuilt"),
            Err(error) => tracing::warn!("the audit index cannot be used ({error}); it is rebuilt"),
        }
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(directory.join(format!("index.db{suffix}")));
        }
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"))?;
        Ok(Self { connection, identity: identity(&path), path, through: None })
    }

    fn open_existing(path: &Path) -> rusqlite::Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if format != FORMAT {
            return Ok(None);
        }
        let through = connection
            .query_row("SELECT seq, segment, offset, length FROM progress", [], |row| {
                Ok((number(row, 0)?, position(row, 1)?))
            })
            .optional()?;
        let through = through.and_then(|(seq, position)| position.map(|position| (seq, position)));
        Ok(Some(Self { connection, identity: identity(path), path: path.to_owned(), through }))
    }

    /// Whether the last line that the index knows is the one that stands there in the log.
    fn fits(&self, directory: &Path, tail: &Link) -> bool {
        let Some((seq, position)) = self.through else { return true };
        let hash = self.connection.query_row("SELECT hash FROM progress", [], |row| row.get::<_, String>(0));
        let mut line = Vec::new();
        let read = LineReader::open(directory, position.segment, position.offset)
            .and_then(|mut reader| reader.read(&mut line))
            .is_ok_and(|next| matches!(next, Next::Line { .. }));
        let stands = Line::parse(&line).is_some_and(|line| line.seq == seq && hash.is_ok_and(|hash| hash == line.hash));
        read && stands && seq <= tail.seq
    }

    /// Whether the file is still there, and still the one that was opened.
    pub fn is_in_place(&self) -> bool {
        self.identity.is_some() && self.identity == identity(&self.path)
    }

    pub fn through(&self) -> u64 {
        self.through.map_or(0, |(seq, _)| seq)
    }

    /// Where the first line stands that is not in the index: segment and offset; `None` before the log's first line.
    pub fn resume_at(&self, directory: &Path) -> std::io::Result<Option<(u64, u64)>> {
        match self.through {
            Some((_, position)) => Ok(Some((position.segment, position.offset + position.length + 1))),
            None => Ok(segment::list(directory)?.first().map(|first| (*first, 0))),
        }
    }

    pub fn event(&self, event_id: &str) -> rusqlite::Result<Option<EventState>> {
        let sql = "SELECT instance_id, begin_segment, begin_offset, begin_length, end_seq IS NOT NULL, outcome,
                          decision, code, digest, agent_segment IS NOT NULL
                   FROM records WHERE event_id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| {
            let (ended, outcome): (bool, Option<String>) = (row.get(4)?, row.get(5)?);
            let end = match outcome.as_deref() {
                _ if !ended => EndState::Open,
                Some(aasm_wire::terms::UNKNOWN) => EndState::Unknown,
                _ => EndState::Known,
            };
            let (decision, code, digest) = (row.get(6)?, row.get(7)?, row.get(8)?);
            let begin = position(row, 1)?.map(|position| Begun { position, decision, code, digest });
            Ok(EventState { instance_id: row.get(0)?, begin, contested: row.get(9)?, end })
        };
        statement.query_row([event_id], read).optional()
    }

    pub fn has_loss(&self, event_id: &str) -> rusqlite::Result<bool> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM losses WHERE event_id = ?1")?;
        statement.exists([event_id])
    }

    /// Takes lines in, in one transaction.
    pub fn take(&mut self, lines: &[Pending]) -> rusqlite::Result<()> {
        let Some(last) = lines.last() else { return Ok(()) };
        let transaction = self.connection.transaction()?;
        for line in lines {
            take_line(&transaction, line)?;
        }
        transaction.prepare_cached("REPLACE INTO progress VALUES (1, ?1, ?2, ?3, ?4, ?5)")?.execute(params![
            last.seq.cast_signed(),
            last.hash,
            last.position.segment.cast_signed(),
            last.position.offset.cast_signed(),
            last.position.length.cast_signed()
        ])?;
        transaction.commit()?;
        self.through = Some((last.seq, last.position));
        Ok(())
    }

    /// Moves what SQLite's own log holds into the database; done when nobody waits.
    pub fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

fn take_line(connection: &Connection, line: &Pending) -> rusqlite::Result<()> {
    let Some(event_id) = &line.columns.event_id else { return Ok(()) };
    let (seq, columns) = (line.seq.cast_signed(), &line.columns);
    let (segment, offset, length) =
        (line.position.segment.cast_signed(), line.position.offset.cast_signed(), line.position.length.cast_signed());
    match line.line_type {
        LineType::Begin => {
            // An end that came first made the row; its begin completes it.
            let sql = "INSERT INTO records (seq, event_id, time, agent_id, instance_id, run_id, tool, decision,
                           begin_segment, begin_offset, begin_length, code, digest)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
                       ON CONFLICT (event_id) DO UPDATE SET seq = excluded.seq, time = excluded.time,
                           agent_id = excluded.agent_id, instance_id = excluded.instance_id, run_id = excluded.run_id,
                           tool = excluded.tool, decision = excluded.decision, begin_segment = excluded.begin_segment,
                           begin_offset = excluded.begin_offset, begin_length = excluded.begin_length,
                           code = excluded.code, digest = excluded.digest
                       WHERE begin_segment IS NULL";
            let first = connection.prepare_cached(sql)?.execute(params![
                seq,
                event_id,
                line.time,
                columns.agent_id,
                columns.instance_id,
                columns.run_id,
                columns.tool,
                columns.decision,
                segment,
                offset,
                length,
                columns.code,
                columns.digest.as_deref().and_then(digest_prefix)
            ])?;
            if first == 0 {
                let sql =
                    "UPDATE records SET agent_decision = ?2, agent_segment = ?3, agent_offset = ?4, agent_length = ?5
                           WHERE event_id = ?1 AND agent_segment IS NULL";
                let values = params![event_id, columns.decision, segment, offset, length];
                connection.prepare_cached(sql)?.execute(values)?;
            }
        }
        LineType::End => {
            let sql = "INSERT INTO records (seq, event_id, time, agent_id, instance_id, run_id, outcome,
                           end_seq, end_segment, end_offset, end_length)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?1, ?8, ?9, ?10)
                       ON CONFLICT (event_id) DO UPDATE SET outcome = excluded.outcome, end_seq = excluded.end_seq,
                           end_segment = excluded.end_segment, end_offset = excluded.end_offset,
                           end_length = excluded.end_length
                       WHERE end_seq IS NULL OR outcome = 'unknown'";
            connection.prepare_cached(sql)?.execute(params![
                seq,
                event_id,
                line.time,
                columns.agent_id,
                columns.instance_id,
                columns.run_id,
                columns.outcome,
                segment,
                offset,
                length
            ])?;
        }
        LineType::Loss => {
            connection.prepare_cached("INSERT OR IGNORE INTO losses VALUES (?1)")?.execute([event_id])?;
        }
        _ => {}
    }
    Ok(())
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -2000;",
    )?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, line_type: LineType, outcome: Option<&str>) -> Pending {
        let columns = Columns {
            event_id: Some("e".into()),
            instance_id: Some("i".into()),
            outcome: outcome.map(str::to_owned),
            ..Columns::default()
        };
        let position = Position { segment: 1, offset: seq * 10, length: 9 };
        Pending { seq, hash: "h".into(), time: 0, line_type, columns, position }
    }

    /// A real outcome replaces an unknown one; an unknown one never replaces a real one.
    #[test]
    fn real_outcomes_win() {
        let home = tempfile::tempdir().unwrap();
        let mut index = Index::open(home.path(), &Link::origin()).unwrap();
        index.take(&[line(1, LineType::Begin, None)]).unwrap();
        assert_eq!(index.event("e").unwrap().unwrap().end, EndState::Open);
        index.take(&[line(2, LineType::End, Some("unknown"))]).unwrap();
        assert_eq!(index.event("e").unwrap().unwrap().end, EndState::Unknown);
        index.take(&[line(3, LineType::End, Some("returned")), line(4, LineType::End, Some("unknown"))]).unwrap();
        assert_eq!(index.event("e").unwrap().unwrap().end, EndState::Known);
    }

    /// An end before its begin makes one row, not two.
    #[test]
    fn ends_may_come_first() {
        let home = tempfile::tempdir().unwrap();
        let mut index = Index::open(home.path(), &Link::origin()).unwrap();
        index.take(&[line(1, LineType::End, Some("raised")), line(2, LineType::Begin, None)]).unwrap();
        let state = index.event("e").unwrap().unwrap();
        assert_eq!((state.end, state.begin.map(|begin| begin.position.offset)), (EndState::Known, Some(20)));
    }

    /// An index that is not of this log is thrown away.
    #[test]
    fn a_foreign_index() {
        let home = tempfile::tempdir().unwrap();
        let mut index = Index::open(home.path(), &Link::origin()).unwrap();
        index.take(&[line(1, LineType::Begin, None)]).unwrap();
        drop(index);
        let index = Index::open(home.path(), &Link::origin()).unwrap();
        assert_eq!((index.through(), index.event("e").unwrap()), (0, None));
    }
}
