//! Patterns for tool names.
//!
//! `*` is any text, also `/` and `.`; `?` one character; `[a-z]`, `[!a-z]` one of a class; `{a,b}` either. Case counts.
//! A pattern matches the whole name. There is no escape: `[*]` is a star.

use globset::{Glob, GlobBuilder};

/// The longest pattern, in characters.
pub const MAX_PATTERN: usize = 256;

/// A checked pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub text: String,
    pub shape: Shape,
}

/// What kind of pattern it is; the simple ones can be compared with each other.
#[derive(Debug)]
pub(crate) enum Shape {
    /// `*`
    Everything,
    /// Without any wildcard.
    Exact,
    /// A fixed beginning and one `*` at the end.
    Prefix(String),
    /// One `*` and a fixed end.
    Suffix(String),
    Other,
}

impl Pattern {
    /// Checks a pattern; the error is a sentence.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        if text.is_empty() {
            return Err("a pattern must not be empty; `*` stands for every tool".to_owned());
        }
        if text.chars().nth(MAX_PATTERN).is_some() {
            return Err(format!("a pattern must not have more than {MAX_PATTERN} characters"));
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err("a pattern must be one line that neither begins nor ends with white space".to_owned());
        }
        if text.contains("**") {
            return Err("`**` is not allowed here: `*` already stands for any text, also `/` and `.`".to_owned());
        }
        if text.contains('\\') {
            return Err("`\\` is not allowed here: there is no escape, `[*]` stands for a star".to_owned());
        }
        if text.contains(['?', '[']) && !text.is_ascii() {
            // The library matches these byte by byte: see Names::first.
            return Err("`?` and `[…]` work only in patterns of ASCII characters; use `*` or list the names".to_owned());
        }
        match glob(text) {
            Ok(_) => Ok(Pattern { text: text.to_owned(), shape: shape(text) }),
            Err(error) => Err(format!("not a valid pattern: {}", error.kind())),
        }
    }

    pub fn glob(&self) -> Result<Glob, globset::Error> {
        match self.text.strip_suffix('.') {
            // The library knows paths: it finds `*.` by the extension, and sees none in names that end in `..`.
            Some(before) => glob(&format!("{before}[.]")),
            None => glob(&self.text),
        }
    }
}

fn glob(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text)
        .case_insensitive(false)
        .literal_separator(false)
        .backslash_escape(false)
        .empty_alternates(true)
        .build()
}

fn shape(text: &str) -> Shape {
    let fixed = |text: &str| !text.contains(['*', '?', '[', '{', '}']);
    match (text.strip_suffix('*'), text.strip_prefix('*')) {
        (Some(""), _) => Shape::Everything,
        (Some(prefix), _) if fixed(prefix) => Shape::Prefix(prefix.to_owned()),
        (_, Some(suffix)) if fixed(suffix) => Shape::Suffix(suffix.to_owned()),
        _ if fixed(text) => Shape::Exact,
        _ => Shape::Other,
    }
}
