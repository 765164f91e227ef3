//! A command line of `aasm` that asks for help, or that cannot be understood.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Error};

use crate::arguments::Arguments;
use crate::output;

/// Shows the help that was asked for, or says in one line what is wrong and what to type instead.
pub fn answer(error: &Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::MissingSubcommand
    ) {
        let _ = error.print();
    } else {
        let place = place(Arguments::command(), std::env::args_os().skip(1));
        output::error(sentence(&problem(error), near(error).as_deref(), &place));
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The command that was named, as far as it is one: `aasm audit verify`.
fn place(mut command: Command, words: impl Iterator<Item = OsString>) -> String {
    let mut path = command.get_name().to_owned();
    for word in words.take_while(|word| !word.as_encoded_bytes().starts_with(b"-")) {
        let Some(next) = command.find_subcommand(&word).cloned() else { break };
        path.push(' ');
        path.push_str(next.get_name());
        command = next;
    }
    path
}

fn sentence(problem: &str, near: Option<&str>, place: &str) -> String {
    match near {
        Some(near) => format!("{problem}, did you mean {near}? see: {place} --help"),
        None => format!("{problem}; see: {place} --help"),
    }
}

fn words(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

fn problem(error: &Error) -> String {
    let first = |kind| words(error, kind).into_iter().next().unwrap_or_default();
    // `--mode <MODE>` is told from its value by the name alone.
    let option = first(ContextKind::InvalidArg).split(' ').next().unwrap_or_default().to_owned();
    let valid = words(error, ContextKind::ValidValue);
    match error.kind() {
        ErrorKind::UnknownArgument if option.starts_with('-') => format!("unknown option {option}"),
        ErrorKind::UnknownArgument => format!("unexpected argument {option}"),
        ErrorKind::InvalidSubcommand => format!("unknown command {}", first(ContextKind::InvalidSubcommand)),
        ErrorKind::InvalidValue if first(ContextKind::InvalidValue).is_empty() => format!("{option} needs a value"),
        ErrorKind::InvalidValue if !valid.is_empty() => format!("{option} must be one of: {}", valid.join(", ")),
        _ => {
            let text = error.render().to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
            lines.strip_prefix("error: ").unwrap_or(&lines).to_owned()
        }
    }
}

/// What was probably meant: the last of what clap found is the nearest.
fn near(error: &Error) -> Option<String> {
    [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(|kind| words(error, kind).pop())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn said(line: &str) -> String {
        let error = Arguments::try_parse_from(line.split(' ')).err().unwrap();
        sentence(&problem(&error), near(&error).as_deref(), "aasm")
    }

    /// One line names the place, and the near name where there is one.
    #[test]
    fn problems() {
        for (line, expected) in [
            ("aasm stauts", "unknown command stauts, did you mean status? see: aasm --help"),
            ("aasm frobnicate", "unknown command frobnicate; see: aasm --help"),
            ("aasm start --prot 1", "unknown option --prot, did you mean --port? see: aasm --help"),
            ("aasm status --xyz", "unknown option --xyz; see: aasm --help"),
            ("aasm status now", "unexpected argument now; see: aasm --help"),
            ("aasm start --port", "--port needs a value; see: aasm --help"),
            ("aasm start --mode x", "--mode must be one of: local; see: aasm --help"),
            (
                "aasm start --min-enforcement enforced",
                "--min-enforcement must be one of: enforce, observe, disabled, did you mean enforce? see: aasm --help",
            ),
            (
                "aasm start --port 99999",
                "invalid value '99999' for '--port <PORT>': 99999 is not in 0..=65535; see: aasm --help",
            ),
        ] {
            assert_eq!(said(line), expected);
        }
    }

    /// The help that is pointed to is that of the command that was named.
    #[test]
    fn places() {
        let place = |line: &str| place(Arguments::command(), line.split(' ').map(OsString::from));
        assert_eq!(place("audit verify --jsn"), "aasm audit verify");
        assert_eq!(place("audit verfy"), "aasm audit");
        assert_eq!(place("--jsn status"), "aasm");
    }
}
