//! Records of agents, as lines of the log.

use aasm_wire::identifier::{is_digest, is_id, is_name, is_run_id};
use aasm_wire::terms::{CODES, DECIDERS, DECISIONS, EnforcementMode, OUTCOMES};
use aasm_wire::v1::{Phase, Record};

use crate::audit::chain::sha256_hex;
use crate::audit::entry::{EVENTS, Loss};
use crate::audit::{Begin, End, Entry};
use crate::clock::rfc3339_nanos;
use crate::session::Session;

/// Who sends a record.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// The instance itself.
    Session(&'a Session),
    /// Somebody else; the record's writer is dead.
    Adopted,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A record is kept even when a text of it is too long; the text is cut, visibly.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn one_of(field: &str, value: &str, set: &[&str]) -> Result<(), String> {
    if set.contains(&value) { Ok(()) } else { Err(format!("{field} must be one of: {}", set.join(", "))) }
}

fn holds(holds: bool, message: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message.to_owned()) }
}

/// The line of a record; why there is none.
pub fn entry(record: Record, origin: Origin<'_>) -> Result<Entry, String> {
    holds(is_name(&record.agent_id), "agent_id is not an agent's name")?;
    holds(is_id(&record.instance_id), "instance_id must be 32 hexadecimal digits")?;
    holds(record.run_id.is_empty() || is_run_id(&record.run_id), "run_id must be `run-` and 16 hexadecimal digits")?;
    if let Origin::Session(session) = origin {
        let own = record.instance_id == session.instance_id && record.agent_id == session.agent_id;
        holds(own, "the record is of another instance, and the batch is not marked adopted")?;
        let run = session.run_id.as_deref().unwrap_or_default();
        holds(record.run_id == run, "the record is of another run than the session")?;
    }
    let adopted = matches!(origin, Origin::Adopted);
    if record.phase() != Phase::Loss {
        holds(is_id(&record.event_id), "event_id must be 32 hexadecimal digits")?;
    }
    match record.phase() {
        Phase::Begin => begin(record, adopted),
        Phase::End => end(record, adopted),
        Phase::Loss => Ok(loss(record)),
        Phase::Unspecified => Err("phase must be BEGIN, END or LOSS".to_owned()),
    }
}

fn begin(record: Record, adopted: bool) -> Result<Entry, String> {
    let call = record.call.ok_or("a BEGIN needs a call")?;
    let verdict = record.verdict.ok_or("a BEGIN needs a verdict")?;
    holds(!call.tool.is_empty(), "call.tool is empty")?;
    holds(
        call.digest.is_empty() || is_digest(&call.digest),
        "call.digest must be `sha256:` and 64 hexadecimal digits",
    )?;
    let parent = &call.parent_event_id;
    holds(parent.is_empty() || is_id(parent), "call.parent_event_id must be 32 hexadecimal digits")?;
    one_of("call.kind", &call.kind, &["tool"])?;
    one_of("verdict.decision", &verdict.decision, &DECISIONS)?;
    one_of("verdict.code", &verdict.code, &CODES)?;
    one_of("verdict.decided_by", &verdict.decided_by, &DECIDERS)?;
    let mode = EnforcementMode::parse(&verdict.enforcement_mode);
    holds(mode.is_some(), "verdict.enforcement_mode must be one of: enforce, observe, disabled")?;
    Ok(Entry::begin(&Begin {
        event_id: record.event_id,
        agent_id: record.agent_id,
        instance_id: record.instance_id,
        run_id: some(record.run_id),
        call_id: cut(call.call_id, 512),
        attempt: call.attempt.max(1),
        kind: call.kind,
        tool: cut(call.tool, 1024),
        framework: some(cut(call.framework, 128)),
        server: some(cut(call.server, 1024)),
        agent_name: some(cut(call.agent_name, 512)),
        parent_event_id: some(call.parent_event_id),
        digest: some(call.digest),
        arguments_bytes: call.arguments_bytes,
        cwd: some(cut(call.cwd, 4096)),
        decision: verdict.decision,
        reason: cut(verdict.reason, 8192),
        rule: some(cut(verdict.rule, 512)),
        policy: some(cut(verdict.policy, 512)),
        revision: some(cut(verdict.revision, 128)),
        code: verdict.code,
        decided_by: verdict.decided_by,
        enforcement_mode: verdict.enforcement_mode,
        evaluated: verdict.evaluated,
        via: EVENTS.to_owned(),
        adopted,
        agent_time: rfc3339_nanos(record.time_unix_nanos),
    }))
}

fn end(record: Record, adopted: bool) -> Result<Entry, String> {
    let outcome = record.outcome.ok_or("an END needs an outcome")?;
    one_of("outcome.status", &outcome.status, &OUTCOMES)?;
    Ok(Entry::end(&End {
        event_id: record.event_id,
        agent_id: record.agent_id,
        instance_id: record.instance_id,
        run_id: some(record.run_id),
        outcome: outcome.status,
        error_type: some(cut(outcome.error_type, 512)),
        duration_nanos: (outcome.duration_nanos > 0).then_some(outcome.duration_nanos),
        result_digest: some(cut(outcome.result_digest, 128)),
        adopted,
        agent_time: rfc3339_nanos(record.time_unix_nanos),
    }))
}

fn loss(record: Record) -> Entry {
    // A loss without an id of its own is known by who reported it and when.
    let event_id = if is_id(&record.event_id) {
        record.event_id
    } else {
        digest_id(&format!("{} {} {}", record.instance_id, record.time_unix_nanos, record.lost))
    };
    Entry::loss(&Loss {
        event_id: Some(event_id),
        agent_id: Some(record.agent_id),
        instance_id: Some(record.instance_id),
        run_id: some(record.run_id),
        lost: Some(record.lost),
        detail: "records that the agent could not keep".to_owned(),
    })
}

/// An identifier that is the same for the same text.
pub fn digest_id(text: &str) -> String {
    sha256_hex(text.as_bytes()).chars().take(32).collect()
}

/// An END for a call whose process died.
pub fn unknown_end(event_id: String, agent_id: String, instance_id: String, run_id: Option<String>) -> Entry {
    Entry::end(&End {
        event_id,
        agent_id,
        instance_id,
        run_id,
        outcome: aasm_wire::terms::UNKNOWN.to_owned(),
        adopted: true,
        ..End::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text is cut at a character, and one sees that it was.
    #[test]
    fn cuts_at_characters() {
        assert_eq!(cut("aé".to_owned(), 2), "a…");
        assert_eq!(cut("aé".to_owned(), 3), "aé");
    }

    /// A record without its parts, or of another instance, is rejected with the reason.
    #[test]
    fn rejections() {
        let record = Record {
            event_id: "0".repeat(32),
            phase: Phase::Begin.into(),
            agent_id: "a".into(),
            instance_id: "1".repeat(32),
            ..Record::default()
        };
        assert_eq!(entry(record.clone(), Origin::Adopted).unwrap_err(), "a BEGIN needs a call");
        let ended = Record { phase: Phase::End.into(), ..record.clone() };
        assert_eq!(entry(ended, Origin::Adopted).unwrap_err(), "an END needs an outcome");
        assert!(entry(Record { event_id: String::new(), ..record }, Origin::Adopted).is_err());
        assert!(entry(Record::default(), Origin::Adopted).is_err());
    }
}
