//! Where a policy's text comes from, and what is refused before it is parsed.

use crate::diagnostic::{Findings, Place};

/// The longest text of one source, in bytes.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;

/// One policy file: `name` is what messages show as the file, `text` its content.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

/// Reports what makes a text no candidate for parsing; true if it can be parsed.
pub(crate) fn is_readable(text: &str, findings: &mut Findings) -> bool {
    if text.len() > MAX_SOURCE_BYTES {
        let message = format!(
            "this file has {} bytes, more than the {MAX_SOURCE_BYTES} that a policy file may have; split it",
            text.len()
        );
        findings.report(Place::START, "", message);
        return false;
    }
    let mut readable = true;
    for (line_index, line) in text.split('\n').enumerate() {
        // A carriage return only belongs to the end of a line; alone, editors and parsers count lines differently.
        for (column_index, character) in line.strip_suffix('\r').unwrap_or(line).chars().enumerate() {
            if !is_yaml_character(character, line_index == 0 && column_index == 0) {
                let place = Place { line: line_index + 1, column: column_index + 1 };
                let text = character.escape_unicode().to_string();
                findings.report(place, &text, format!("the character {} is not allowed here", name(character)));
                readable = false;
                // One message a line is enough for a file that is not text at all.
                break;
            }
        }
    }
    readable
}

/// Whether YAML 1.2 allows the character in a stream; a byte order mark may only begin it. Lines come without their ends.
fn is_yaml_character(character: char, first: bool) -> bool {
    match character {
        '\t' | '\u{85}' => true,
        '\u{feff}' => first,
        '\u{fffe}' | '\u{ffff}' => false,
        _ => !character.is_control(),
    }
}

fn name(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}
