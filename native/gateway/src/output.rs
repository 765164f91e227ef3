//! Lines for people and programs at the other end of a pipe, which may be closed: that is no reason to panic.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

pub fn line(text: impl Display) {
    let _ = writeln!(stdout(), "{text}");
}

pub fn error(text: impl Display) {
    let _ = writeln!(stderr(), "aasm: {text}");
}
