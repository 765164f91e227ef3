//! What is wrong with a policy, and where.

use std::fmt;

use serde::Serialize;

/// How many diagnostics one file may have; a last one says how many more there were.
pub const MAX_DIAGNOSTICS: usize = 100;

/// How many characters of the offending text a diagnostic shows.
const MAX_TEXT: usize = 80;

/// One thing wrong with a policy, at one place. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// The offending text, shortened; empty where something is missing.
    pub text: String,
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(formatter, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// Everything wrong with a set of policies, by file and place; never empty. Displays as one line for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            diagnostic.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A position in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    pub const START: Place = Place { line: 1, column: 1 };
}

/// Proof that a finding was reported: who holds one has no value to give, and the load fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported(());

/// Collects what is wrong with one file.
#[derive(Debug)]
pub(crate) struct Findings {
    file: String,
    diagnostics: Vec<(Place, Diagnostic)>,
}

impl Findings {
    pub fn new(file: &str) -> Findings {
        Findings { file: file.to_owned(), diagnostics: Vec::new() }
    }

    /// Reports one thing wrong; `text` is what stands there.
    pub fn report(&mut self, place: Place, text: &str, message: impl Into<String>) -> Reported {
        self.add(place, text, message.into(), None)
    }

    /// Reports a word that is not known, with what was probably meant.
    pub fn suggest(
        &mut self,
        place: Place,
        text: &str,
        message: impl Into<String>,
        suggestion: Option<&str>,
    ) -> Reported {
        self.add(place, text, message.into(), suggestion.map(str::to_owned))
    }

    fn add(&mut self, place: Place, text: &str, message: String, suggestion: Option<String>) -> Reported {
        let Place { line, column } = place;
        let file = self.file.clone();
        let text = shorten(text, MAX_TEXT);
        self.diagnostics.push((place, Diagnostic { file, line, column, text, message, suggestion }));
        Reported(())
    }

    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The findings in the order of their places, cut after [`MAX_DIAGNOSTICS`].
    pub fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|(place, _)| *place);
        let total = self.diagnostics.len();
        let cut = self.diagnostics.get(MAX_DIAGNOSTICS).map(|(place, _)| *place);
        let mut diagnostics: Vec<Diagnostic> =
            self.diagnostics.into_iter().take(MAX_DIAGNOSTICS).map(|(_, diagnostic)| diagnostic).collect();
        if let Some(Place { line, column }) = cut {
            let message = format!("and {} more from here on; correct those above first", total - MAX_DIAGNOSTICS);
            diagnostics.push(Diagnostic {
                file: self.file,
                line,
                column,
                text: String::new(),
                message,
                suggestion: None,
            });
        }
        diagnostics
    }
}

/// The first `most` characters, on one line, with an ellipsis when that is not all.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}
