//! Spool segments whose owner died: their records go into the log, then the segment goes away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aasm_wire::identifier::is_id;
use aasm_wire::spool::{End, MAX_SEGMENT, SegmentError, SegmentReader};
use aasm_wire::v1::{Phase, Record};
use rustix::fs::{FlockOperation, OFlags, fcntl_lock};

use crate::audit::entry::Loss;
use crate::audit::{Audit, AuditError, Entry};
use crate::ingest::{Origin, digest_id, entry, unknown_end};

/// Records that go to the log at once.
const BATCH: usize = 1000;

/// A segment this young may belong to a process that has created it and not locked it yet.
const YOUNGEST: Duration = Duration::from_secs(1);

/// Segments by the instance that wrote them, in order.
type ByInstance = BTreeMap<String, Vec<PathBuf>>;

/// Whose segments lie in the spool.
pub fn list(spool: &Path) -> io::Result<ByInstance> {
    let mut segments = ByInstance::new();
    for found in std::fs::read_dir(spool)? {
        let path = found?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".seg"));
        let Some((instance, number)) = name.and_then(|name| name.split_once('-')) else { continue };
        if is_id(instance) && number.len() == 6 && number.bytes().all(|byte| byte.is_ascii_digit()) {
            segments.entry(instance.to_owned()).or_default().push(path);
        }
    }
    segments.values_mut().for_each(|paths| paths.sort());
    Ok(segments)
}

/// A segment that nobody owns any more; the lock is ours while the file is open.
struct Orphan {
    path: PathBuf,
    file: File,
}

/// Takes a segment's lock; `None` while its owner lives, or when it is not a file of our own.
fn take(path: &Path) -> io::Result<Option<Orphan>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or(YOUNGEST);
    let ours = metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !ours || metadata.len() > MAX_SEGMENT || age < YOUNGEST {
        return Ok(None);
    }
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Who held the lock before may have sent the records and removed the file.
    let there = path.symlink_metadata();
    let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (metadata.dev(), metadata.ino()));
    Ok(same.then(|| Orphan { path: path.to_owned(), file }))
}

/// What the reading of a segment found.
enum Content {
    Records {
        records: Vec<Record>,
        torn: bool,
    },
    /// Its owner died before it wrote anything.
    Empty,
    Unreadable(SegmentError),
}

fn read(orphan: &Orphan, instance: &str) -> io::Result<Content> {
    let mut reader = match SegmentReader::open(BufReader::new(&orphan.file)) {
        Ok(reader) => reader,
        Err(SegmentError::Io(error)) => return Err(error),
        Err(error) => return Ok(if is_blank(&orphan.path)? { Content::Empty } else { Content::Unreadable(error) }),
    };
    if reader.header().instance_id != instance {
        return Ok(Content::Unreadable(SegmentError::NoHeader));
    }
    let mut records = Vec::new();
    while let Some(record) = reader.read()? {
        records.push(record);
    }
    Ok(Content::Records { records, torn: reader.end() == Some(End::Torn) })
}

fn is_blank(path: &Path) -> io::Result<bool> {
    let mut source = BufReader::new(File::open(path)?);
    loop {
        let chunk = io::BufRead::fill_buf(&mut source)?;
        if chunk.is_empty() {
            return Ok(true);
        }
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let length = chunk.len();
        io::BufRead::consume(&mut source, length);
    }
}

/// Adopts segments, again and again.
#[derive(Default)]
pub struct Adopter {
    /// Segments that were complained about.
    left_alone: Arc<HashSet<PathBuf>>,
}

impl Adopter {
    /// Adopts what can be adopted now. What fails is tried again the next time; nothing is removed before it is durable.
    pub async fn sweep(&mut self, spool: &Path, audit: &Audit) -> io::Result<()> {
        let directory = spool.to_owned();
        let segments = tokio::task::spawn_blocking(move || list(&directory)).await.map_err(io::Error::other)??;
        for (instance, paths) in segments {
            if let Err(error) = self.adopt(&instance, paths, audit).await {
                tracing::warn!("the spool of instance {instance} cannot be adopted now: {error}");
            }
        }
        Ok(())
    }

    /// Segments that are left where they are, since nothing more can be learnt from them.
    pub fn left_alone(&self) -> Arc<HashSet<PathBuf>> {
        Arc::clone(&self.left_alone)
    }

    /// All segments of one instance: only when all of them are ours is a BEGIN without END an end unknown.
    async fn adopt(&mut self, instance: &str, paths: Vec<PathBuf>, audit: &Audit) -> io::Result<()> {
        let mut orphans = Vec::new();
        for path in paths {
            if self.left_alone.contains(&path) {
                continue;
            }
            match take(&path)? {
                Some(orphan) => orphans.push(orphan),
                // A younger segment is still owned, so the process lives.
                None => return Ok(()),
            }
        }
        let mut open: HashMap<String, Record> = HashMap::new();
        let mut done = Vec::new();
        for orphan in orphans {
            let name = orphan.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (content, orphan) = {
                let instance = instance.to_owned();
                let read = move || read(&orphan, &instance).map(|content| (content, orphan));
                tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??
            };
            let (records, torn) = match content {
                Content::Records { records, torn } => (records, torn),
                Content::Empty => (Vec::new(), false),
                Content::Unreadable(error) => {
                    tracing::error!("{} is left where it is: {error}", orphan.path.display());
                    let detail = format!("spool segment {name} cannot be read: {error}");
                    append(audit, vec![loss(instance, &name, detail)]).await?;
                    Arc::make_mut(&mut self.left_alone).insert(orphan.path);
                    continue;
                }
            };
            let mut entries = convert(instance, &name, records, &mut open);
            if torn {
                tracing::warn!("{name} is torn; what is whole of it was adopted");
                let detail = format!("spool segment {name} is torn; what came before the damage was adopted");
                entries.push(loss(instance, &name, detail));
            }
            append(audit, entries).await?;
            done.push(orphan);
        }
        let ends = open.into_values().map(|begin| {
            let run_id = (!begin.run_id.is_empty()).then_some(begin.run_id);
            unknown_end(begin.event_id, begin.agent_id, begin.instance_id, run_id)
        });
        append(audit, ends.collect()).await?;
        for orphan in done {
            tracing::info!("adopted {}", orphan.path.display());
            std::fs::remove_file(&orphan.path)?;
        }
        Ok(())
    }
}

fn convert(instance: &str, name: &str, records: Vec<Record>, open: &mut HashMap<String, Record>) -> Vec<Entry> {
    let (mut entries, mut refused) = (Vec::with_capacity(records.len()), 0);
    for record in records {
        let mark = Record { call: None, verdict: None, outcome: None, ..record.clone() };
        let own = record.instance_id == instance;
        match entry(record, Origin::Adopted) {
            Ok(entry) if own => {
                match mark.phase() {
                    Phase::Begin => drop(open.insert(mark.event_id.clone(), mark)),
                    Phase::End => drop(open.remove(&mark.event_id)),
                    _ => {}
                }
                entries.push(entry);
            }
            _ => refused += 1,
        }
    }
    if refused > 0 {
        let detail = format!("spool segment {name} held {refused} records that are not valid");
        entries.push(loss(instance, &format!("{name} invalid"), detail));
    }
    entries
}

fn loss(instance: &str, about: &str, detail: String) -> Entry {
    let event_id = Some(digest_id(&format!("spool {about}")));
    Entry::loss(&Loss { event_id, instance_id: Some(instance.to_owned()), detail, ..Loss::default() })
}

async fn append(audit: &Audit, entries: Vec<Entry>) -> io::Result<()> {
    let mut rest = entries;
    while !rest.is_empty() {
        let following = rest.split_off(rest.len().min(BATCH));
        audit.append(rest, true).await.map_err(|error: AuditError| io::Error::other(error))?;
        rest = following;
    }
    Ok(())
}
