//! Where the log ends: found at start without reading more than its last segment's last lines.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::chain::{Line, Link, MAX_LINE};
use super::segment::{self, LineReader, Next};

/// Where the next line goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    pub link: Link,
    /// When the last line was written, in microseconds.
    pub time: Option<i64>,
    /// The segment to append to, by its first sequence number; `None` before the first line.
    pub segment: Option<u64>,
    pub length: u64,
    /// What was found and mended, in words.
    pub notes: Vec<String>,
}

/// Finds the end of the log. Half a line at the end was never acknowledged and is cut off; anything else that does not fit
/// is kept beside the log, so that a crash and a tamperer leave the same evidence.
pub fn recover(directory: &Path) -> io::Result<Tail> {
    let mut notes = Vec::new();
    let mut segments = segment::list(directory)?;
    while let Some(first) = segments.pop() {
        if let Some((Last { link, time }, length)) = end_of(directory, first, &mut notes)? {
            return Ok(Tail { link, time, segment: Some(first), length, notes });
        }
        // A segment without a whole line: the gateway died while it began one.
        std::fs::remove_file(segment::path(directory, first))?;
        notes.push(format!("segment {} held no whole line and was removed", segment::file_name(first)));
    }
    Ok(Tail { link: Link::origin(), time: None, segment: None, length: 0, notes })
}

/// The last line, as far as the log's end needs it.
struct Last {
    link: Link,
    time: Option<i64>,
}

impl Last {
    fn of(line: &Line<'_>) -> Self {
        let time = line.stamp().and_then(|(time, _)| crate::clock::parse(time));
        Self { link: Link { seq: line.seq, hash: line.hash.to_owned() }, time }
    }
}

fn end_of(directory: &Path, first: u64, notes: &mut Vec<String>) -> io::Result<Option<(Last, u64)>> {
    let opened = OpenOptions::new().read(true).write(true).open(segment::path(directory, first));
    let file =
        opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", segment::file_name(first))))?;
    let length = file.metadata()?.len();
    let Some(end) = last_newline(&file, length)?.map(|at| at + 1) else {
        return if length == 0 { Ok(None) } else { scan(directory, first, &file, notes) };
    };
    let start = last_newline(&file, end - 1)?.map_or(0, |at| at + 1);
    let mut line = vec![0; usize::try_from(end - 1 - start).unwrap_or(0)];
    file.read_exact_at(&mut line, start)?;
    match Line::parse(&line).filter(Line::is_intact) {
        Some(line) => {
            let last = Last::of(&line);
            if end < length {
                file.set_len(end)?;
                file.sync_data()?;
                notes.push(format!(
                    "{} ended in {} bytes of a line that was never acknowledged; they were cut off",
                    segment::file_name(first),
                    length - end
                ));
            }
            Ok(Some((last, end)))
        }
        None => scan(directory, first, &file, notes),
    }
}

/// The last line does not fit: keeps every line from the first up to the one that does not, and sets the rest aside.
fn scan(directory: &Path, first: u64, file: &File, notes: &mut Vec<String>) -> io::Result<Option<(Last, u64)>> {
    let mut reader = LineReader::open(directory, first, 0)?;
    let (mut buffer, mut last) = (Vec::new(), None);
    while let Next::Line { .. } = reader.read(&mut buffer)? {
        let Some(line) = Line::parse(&buffer).filter(Line::is_intact) else { break };
        last = Some((Last::of(&line), reader.offset()));
    }
    let end = last.as_ref().map_or(0, |(_, end)| *end);
    let length = file.metadata()?.len();
    if end == 0 && length <= MAX_LINE as u64 && memchr::memchr(b'\n', &read_range(file, 0, length)?).is_none() {
        return Ok(None);
    }
    let aside = directory.join(format!("{first:020}.cut-{}", crate::clock::now_micros()));
    let mut source = File::open(segment::path(directory, first))?;
    io::Seek::seek(&mut source, io::SeekFrom::Start(end))?;
    let mut target =
        std::os::unix::fs::OpenOptionsExt::mode(OpenOptions::new().write(true).create_new(true), 0o600).open(&aside)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()?;
    file.set_len(end)?;
    file.sync_data()?;
    notes.push(format!(
        "{} did not fit its chain after byte {end}; {} bytes were set aside in {}",
        segment::file_name(first),
        length - end,
        aside.display()
    ));
    Ok(last)
}

fn read_range(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// The offset of the last newline before `before`, looking back no further than a line can be long.
fn last_newline(file: &File, before: u64) -> io::Result<Option<u64>> {
    let (mut end, floor) = (before, before.saturating_sub(MAX_LINE as u64 + 1));
    while end > floor {
        let start = end.saturating_sub(16 << 10).max(floor);
        if let Some(at) = memchr::memrchr(b'\n', &read_range(file, start, end)?) {
            return Ok(Some(start + at as u64));
        }
        end = start;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, lines: u64) -> (Vec<u8>, Vec<(Link, u64)>) {
        let (mut link, mut buffer, mut ends) = (Link::origin(), Vec::new(), Vec::new());
        for number in 0..lines {
            link.seal(&mut buffer, "t", "gateway", format!(r#""n":{number}"#).as_bytes());
            ends.push((link.clone(), buffer.len() as u64));
        }
        std::fs::write(segment::path(directory, 1), &buffer).unwrap();
        (buffer, ends)
    }

    /// Wherever the last line is cut, the log opens at the line before it, and the file ends there.
    #[test]
    fn every_cut_of_the_last_line() {
        let home = tempfile::tempdir().unwrap();
        let (whole, ends) = write(home.path(), 3);
        for cut in ends[1].1..whole.len() as u64 {
            std::fs::write(segment::path(home.path(), 1), &whole[..cut as usize]).unwrap();
            let tail = recover(home.path()).unwrap();
            assert_eq!((tail.link, tail.length), ends[1], "cut at {cut}");
            assert_eq!(tail.notes.is_empty(), cut == ends[1].1);
            assert_eq!(std::fs::read(segment::path(home.path(), 1)).unwrap(), &whole[..ends[1].1 as usize]);
        }
    }

    /// A damaged last line is not thrown away: the log goes on before it and the bytes are kept.
    #[test]
    fn damage_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let (mut whole, ends) = write(home.path(), 3);
        let at = whole.len() - 4;
        whole[at] ^= 1;
        std::fs::write(segment::path(home.path(), 1), &whole).unwrap();
        let tail = recover(home.path()).unwrap();
        assert_eq!((tail.link, tail.length), ends[1]);
        let aside =
            std::fs::read_dir(home.path()).unwrap().flatten().find(|e| e.file_name() != segment::file_name(1).as_str());
        assert_eq!(std::fs::read(aside.unwrap().path()).unwrap(), &whole[ends[1].1 as usize..]);
    }

    /// A segment that was only begun is removed, and the log goes on in the one before.
    #[test]
    fn an_empty_last_segment() {
        let home = tempfile::tempdir().unwrap();
        let (_, ends) = write(home.path(), 2);
        for begun in [&b""[..], b"0123 {\"seq\":3"] {
            std::fs::write(segment::path(home.path(), 3), begun).unwrap();
            let tail = recover(home.path()).unwrap();
            assert_eq!((tail.link, tail.length, tail.segment), (ends[1].0.clone(), ends[1].1, Some(1)));
        }
        assert_eq!(segment::list(home.path()).unwrap(), [1]);
    }

    /// An empty directory is a log before its first line.
    #[test]
    fn nothing_yet() {
        let home = tempfile::tempdir().unwrap();
        let tail = recover(home.path()).unwrap();
        assert_eq!((tail.link, tail.segment), (Link::origin(), None));
    }
}
