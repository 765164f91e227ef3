//! From a checked document to what is evaluated.

use crate::check;
use crate::diagnostic::{Findings, Reported};
use crate::document::{Document, Effect};
use crate::names::Names;

/// How many patterns the rules of one policy may have.
pub const MAX_PATTERNS: usize = 10_000;

/// A policy, ready to be asked.
#[derive(Debug)]
pub(crate) struct Policy {
    pub name: String,
    pub default: Option<Effect>,
    pub rules: Vec<CompiledRule>,
    pub denies: Names,
    pub allows: Names,
}

#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub id: String,
    pub reason: Option<String>,
}

/// Compiles a document, and refuses rules that would never decide.
pub(crate) fn compile(document: Document, findings: &mut Findings) -> Result<Policy, Reported> {
    let count: usize = document.rules.iter().map(|rule| rule.tools.value.len()).sum();
    if count > MAX_PATTERNS {
        let message = format!("the rules have {count} patterns, more than the {MAX_PATTERNS} that a policy may have");
        return Err(findings.report(document.rules_place, "", message));
    }
    let denies = names(&document, Effect::Deny, findings)?;
    let allows = names(&document, Effect::Allow, findings)?;
    check::dead_rules(&document, &denies, &allows, findings);
    let Document { name, default, rules, .. } = document;
    let rules = rules.into_iter().map(|rule| CompiledRule { id: rule.id.value, reason: rule.reason }).collect();
    Ok(Policy { name: name.value, default, rules, denies, allows })
}

fn names(document: &Document, effect: Effect, findings: &mut Findings) -> Result<Names, Reported> {
    let rules = document.rules.iter().enumerate().filter(|(_, rule)| rule.effect == effect);
    let patterns = rules.flat_map(|(position, rule)| rule.tools.value.iter().map(move |pattern| (position, pattern)));
    Names::new(patterns).map_err(|error| {
        let message = format!("the patterns are too complex together; use fewer, or simpler ones ({})", error.kind());
        findings.report(document.rules_place, "", message)
    })
}
