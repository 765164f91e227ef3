//! `aasm audit verify`: reads every line, offline, and names what does not fit.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::chain::{Line, Link};
use super::head;
use super::segment::{self, LineReader, Next};

/// Findings that are listed; more are only counted.
const LISTED: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The content of a line, or its place in the chain, is not what was written.
    Changed,
    Missing,
    Reordered,
    Repeated,
    /// Lines are missing at the log's end.
    Cut,
    /// The head is missing, cannot be understood, or names another line.
    Head,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub fault: Fault,
    pub file: String,
    /// The first line concerned.
    pub seq: Option<u64>,
    /// The last line concerned, where there are several.
    pub last_seq: Option<u64>,
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.file)?;
        match (self.seq, self.last_seq) {
            (Some(first), Some(last)) if last > first => write!(formatter, "lines {first} to {last}: ")?,
            (Some(seq), _) => write!(formatter, "line {seq}: ")?,
            _ => {}
        }
        formatter.write_str(&self.detail)
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub intact: bool,
    pub lines: u64,
    pub segments: usize,
    pub last_seq: u64,
    pub last_hash: String,
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more: u64,
    /// What is no fault: half a line that was never acknowledged, for instance.
    pub notes: Vec<String>,
}

impl Report {
    #[cfg(test)]
    pub fn is_intact(&self) -> bool {
        self.intact
    }

    fn add(&mut self, fault: Fault, file: &str, seq: Option<u64>, detail: impl Into<String>) {
        self.add_range(fault, file, seq, None, detail);
    }

    fn add_range(&mut self, fault: Fault, file: &str, seq: Option<u64>, last: Option<u64>, detail: impl Into<String>) {
        if self.findings.len() == LISTED {
            self.more += 1;
        } else {
            self.findings.push(Finding { fault, file: file.to_owned(), seq, last_seq: last, detail: detail.into() });
        }
    }
}

/// A range of lines that has not been seen where it belongs.
struct Gap {
    first: u64,
    last: u64,
    file: String,
}

/// Reads the whole log. It may be written to meanwhile: the head is read first, and half a line at the end is read again.
pub fn verify(directory: &Path) -> io::Result<Report> {
    let mut walk = Walk { expected: Link::origin(), gaps: Vec::new(), head: None, report: Report::default() };
    match head::read(directory) {
        Ok(head) => walk.head = head,
        Err(error) => walk.report.add(Fault::Head, "head", None, format!("cannot be understood: {error}")),
    }
    let segments = segment::list(directory)?;
    walk.report.segments = segments.len();
    for (number, first) in segments.iter().enumerate() {
        walk.segment(directory, *first, number + 1 == segments.len())?;
    }
    Ok(walk.finish())
}

struct Walk {
    /// The line read last, as far as the chain goes.
    expected: Link,
    gaps: Vec<Gap>,
    head: Option<Link>,
    report: Report,
}

impl Walk {
    fn segment(&mut self, directory: &Path, first: u64, is_last: bool) -> io::Result<()> {
        let file = segment::file_name(first);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
        let mut reader = LineReader::open(directory, first, 0).map_err(named)?;
        let (mut buffer, mut number) = (Vec::new(), 0_u64);
        loop {
            match reader.read(&mut buffer).map_err(named)? {
                Next::End => return Ok(()),
                Next::Torn { offset } => {
                    // A gateway that runs may be in the middle of a write.
                    std::thread::sleep(Duration::from_millis(50));
                    reader = LineReader::open(directory, first, offset)?;
                    if matches!(reader.read(&mut buffer)?, Next::Torn { .. }) {
                        let detail = format!("ends at byte {offset} in a line without an end");
                        if is_last {
                            self.report.notes.push(format!("{file} {detail}, which was never acknowledged"));
                        } else {
                            self.report.add(Fault::Changed, &file, Some(first + number), detail);
                        }
                        return Ok(());
                    }
                    reader = LineReader::open(directory, first, offset)?;
                }
                // An empty one is not a line of the log either.
                Next::Line { .. } | Next::Overlong { .. } => {
                    number += 1;
                    self.line(&file, first, number, &buffer);
                }
            }
        }
    }

    fn line(&mut self, file: &str, first: u64, number: u64, bytes: &[u8]) {
        self.report.lines += 1;
        let place = first + number - 1;
        let Some(line) = Line::parse(bytes) else {
            self.report.add(Fault::Changed, file, Some(place), format!("text line {number} is not a line of this log"));
            // It stands where the expected line should: what follows is judged on its own.
            self.expected = Link { seq: self.expected.seq + 1, hash: String::new() };
            return;
        };
        if number == 1 && line.seq != first {
            self.report.add(Fault::Changed, file, Some(line.seq), "the file is named for another line");
        }
        let intact = line.is_intact();
        if !intact {
            self.report.add(Fault::Changed, file, Some(line.seq), "was changed: its hash does not fit its content");
        }
        if let Some(head) = self.head.as_ref().filter(|head| head.seq == line.seq && head.hash != line.hash) {
            let detail = format!("is not the line that the head names ({})", head.hash);
            self.report.add(Fault::Head, file, Some(line.seq), detail);
        }
        let expected = self.expected.seq + 1;
        if line.seq == expected {
            if line.prev != self.expected.hash && !self.expected.hash.is_empty() {
                let detail = "does not follow the line before it: one of the two was changed";
                self.report.add(Fault::Changed, file, Some(line.seq), detail);
            }
            self.expected = Link { seq: line.seq, hash: line.hash.to_owned() };
        } else if line.seq > expected {
            self.gaps.push(Gap { first: expected, last: line.seq - 1, file: file.to_owned() });
            self.expected = Link { seq: line.seq, hash: line.hash.to_owned() };
        } else {
            self.earlier(file, line.seq);
        }
    }

    /// A line that belongs before the ones already read.
    fn earlier(&mut self, file: &str, seq: u64) {
        let Some(at) = self.gaps.iter().position(|gap| (gap.first..=gap.last).contains(&seq)) else {
            self.report.add(Fault::Repeated, file, Some(seq), "stands in the log twice");
            return;
        };
        let gap = self.gaps.swap_remove(at);
        if gap.first < seq {
            self.gaps.push(Gap { first: gap.first, last: seq - 1, file: gap.file.clone() });
        }
        if seq < gap.last {
            self.gaps.push(Gap { first: seq + 1, last: gap.last, file: gap.file });
        }
        self.report.add(Fault::Reordered, file, Some(seq), "stands after lines that were written later");
    }

    fn finish(mut self) -> Report {
        self.gaps.sort_by_key(|gap| gap.first);
        for gap in std::mem::take(&mut self.gaps) {
            self.report.add_range(Fault::Missing, &gap.file, Some(gap.first), Some(gap.last), "missing");
        }
        let last = self.expected.seq;
        match &self.head {
            Some(head) if head.seq > last => {
                let detail = format!("missing at the end: the head names line {}, the log ends at {last}", head.seq);
                self.report.add_range(Fault::Cut, "head", Some(last + 1), Some(head.seq), detail);
            }
            None if last > 0 && !self.report.findings.iter().any(|finding| finding.fault == Fault::Head) => {
                self.report.add(Fault::Head, "head", None, "missing: a cut tail could not be seen");
            }
            _ => {}
        }
        self.report.last_seq = last;
        self.report.last_hash = self.expected.hash;
        self.report.intact = self.report.findings.is_empty();
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::log::Log;

    /// A log of ten lines in segments of about three; its lines, by file.
    fn log() -> (tempfile::TempDir, Vec<(u64, Vec<String>)>) {
        let home = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open_rolling_at(home.path(), 600).unwrap();
        for _ in 0..10 {
            let mut batch = log.batch();
            batch.push("2026-01-01T00:00:00.000000Z", "gateway", br#""event":"test""#);
            log.commit(batch, false).unwrap();
            log.write_head().unwrap();
        }
        let read = |first: &u64| {
            let text = std::fs::read_to_string(segment::path(home.path(), *first)).unwrap();
            (*first, text.lines().map(str::to_owned).collect())
        };
        let files = segment::list(home.path()).unwrap().iter().map(read).collect();
        (home, files)
    }

    /// What is found after an edit: fault, first and last line.
    fn found(edit: impl FnOnce(&mut Vec<(u64, Vec<String>)>)) -> Vec<(Fault, Option<u64>, Option<u64>)> {
        let (home, mut files) = log();
        edit(&mut files);
        for first in segment::list(home.path()).unwrap() {
            std::fs::remove_file(segment::path(home.path(), first)).unwrap();
        }
        for (first, lines) in files {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(segment::path(home.path(), first), text).unwrap();
        }
        let report = verify(home.path()).unwrap();
        assert_eq!(report.intact, report.findings.is_empty());
        report.findings.iter().map(|finding| (finding.fault, finding.seq, finding.last_seq)).collect()
    }

    /// Seals a line anew, so that only its successor can tell that it was changed.
    fn forge(line: &str) -> String {
        let json = line.get(65..).unwrap().replace("test", "tess");
        format!("{} {json}", crate::audit::chain::sha256_hex(json.as_bytes()))
    }

    /// An untouched log has no findings.
    #[test]
    fn untouched() {
        assert_eq!(found(|_| {}), []);
    }

    /// Every change of every byte of a line is found, and named with the line or its successor.
    #[test]
    fn changed() {
        let (_home, files) = log();
        let length = files[1].1[1].len();
        let seq = files[1].0 + 1;
        for at in (0..length).step_by(7) {
            let findings = found(|files| {
                let mut bytes = files[1].1[1].clone().into_bytes();
                bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
                files[1].1[1] = String::from_utf8(bytes).unwrap();
            });
            assert!(!findings.is_empty(), "byte {at}");
            assert!(findings.iter().all(|(_, first, _)| first.is_none_or(|first| first <= seq + 10)), "{findings:?}");
        }
        assert_eq!(
            found(|files| files[1].1[1] = files[1].1[1].replace("test", "tess")),
            [(Fault::Changed, Some(seq), None)]
        );
        assert_eq!(found(|files| files[1].1[1] = forge(&files[1].1[1])), [(Fault::Changed, Some(seq + 1), None)]);
    }

    /// The last line has no successor, but a head.
    #[test]
    fn last_line_changed() {
        let forge_last = |files: &mut Vec<(u64, Vec<String>)>| {
            let line = files.last_mut().unwrap().1.last_mut().unwrap();
            *line = forge(line);
        };
        assert_eq!(found(forge_last), [(Fault::Head, Some(10), None)]);
    }

    /// A line that is too long to be one of ours is named, and those after it are read.
    #[test]
    fn overlong() {
        let long = "x".repeat(crate::audit::chain::MAX_LINE + 5);
        let mut last = 0;
        let added = |files: &mut Vec<(u64, Vec<String>)>| {
            last = files.last().unwrap().0;
            files.last_mut().unwrap().1.insert(0, long);
        };
        let findings = found(added);
        assert_eq!(findings[0], (Fault::Changed, Some(last), None), "{findings:?}");
        assert!(findings.iter().all(|(fault, ..)| *fault != Fault::Cut), "{findings:?}");
    }

    /// Missing lines are named, alone, together, as a whole file, and at the front.
    #[test]
    fn missing() {
        assert_eq!(found(|files| drop(files[0].1.remove(1))), [(Fault::Missing, Some(2), Some(2))]);
        let (first, next) = {
            let (_home, files) = log();
            (files[1].0, files[2].0)
        };
        assert_eq!(found(|files| drop(files.remove(1))), [(Fault::Missing, Some(first), Some(next - 1))]);
        assert_eq!(found(|files| drop(files.remove(0))), [(Fault::Missing, Some(1), Some(first - 1))]);
    }

    /// Lines that changed places are named as reordered, a copied line as repeated.
    #[test]
    fn reordered() {
        assert_eq!(found(|files| files[0].1.swap(1, 2)), [(Fault::Reordered, Some(2), None)]);
        let copy = |files: &mut Vec<(u64, Vec<String>)>| {
            let line = files[0].1[0].clone();
            files[0].1.push(line);
        };
        assert_eq!(found(copy), [(Fault::Repeated, Some(1), None)]);
    }

    /// A cut tail is seen by the head.
    #[test]
    fn cut() {
        assert_eq!(found(|files| drop(files.last_mut().unwrap().1.pop())), [(Fault::Cut, Some(10), Some(10))]);
        let last = {
            let (_home, files) = log();
            files.last().unwrap().0
        };
        assert_eq!(found(|files| drop(files.pop())), [(Fault::Cut, Some(last), Some(10))]);
        let (home, _) = log();
        std::fs::remove_file(home.path().join("head")).unwrap();
        assert_eq!(verify(home.path()).unwrap().findings[0].fault, Fault::Head);
    }
}
