//! Lines for people and programs at the other end of a pipe, which may be closed: that is no reason to panic.

use std::fmt::{self, Display};
use std::io::{Write, stderr, stdout};

pub fn line(text: impl Display) {
    let _ = writeln!(stdout(), "{text}");
}

/// What ends its own last line.
pub fn text(text: &[u8]) {
    let _ = stdout().write_all(text);
}

pub fn error(text: impl Display) {
    let _ = writeln!(stderr(), "aasm: {}", plain(&text.to_string()));
}

/// The text without the numbers that the standard library puts behind the system's messages.
fn plain(text: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut parts = text.split(NUMBER);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => kept.push_str(rest),
            _ => kept.extend([NUMBER, part]),
        }
    }
    kept
}

/// So many of something whose plural takes an s.
pub struct Counted(pub u64, pub &'static str);

impl Display for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        write!(formatter, "{count} {noun}{}", if *count == 1 { "" } else { "s" })
    }
}

/// A span of time as people say it: its two largest units.
pub struct Span(pub u64);

impl Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(seconds) = self;
        match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, seconds) => write!(formatter, "{seconds} s"),
            (0, 0, minutes, seconds) => write!(formatter, "{minutes} min {seconds} s"),
            (0, hours, minutes, _) => write!(formatter, "{hours} h {minutes} min"),
            (days, hours, _, _) => write!(formatter, "{days} d {hours} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One is singular, everything else is plural.
    #[test]
    fn counted() {
        let said: Vec<_> = [0, 1, 2].map(|count| Counted(count, "line").to_string()).into();
        assert_eq!(said, ["0 lines", "1 line", "2 lines"]);
    }

    /// Numbers of errors are for programs; text that only looks like one stays.
    #[test]
    fn numbers_of_errors() {
        assert_eq!(plain("/x: No such file (os error 2); do this"), "/x: No such file; do this");
        assert_eq!(plain("/a (os error b)/c: Full (os error 28)"), "/a (os error b)/c: Full");
    }

    /// Time is told in its two largest units.
    #[test]
    fn span() {
        let said: Vec<_> = [0, 59, 60, 3_600, 90_000].map(|seconds| Span(seconds).to_string()).into();
        assert_eq!(said, ["0 s", "59 s", "1 min 0 s", "1 h 0 min", "1 d 1 h"]);
    }
}
