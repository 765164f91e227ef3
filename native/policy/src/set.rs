//! Policies that are loaded together.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::check::{self, PolicyNames};
use crate::compile::{self, Policy};
use crate::diagnostic::{Diagnostic, Diagnostics, Findings, Place, Reported};
use crate::read;
use crate::source::{self, Source};
use crate::yaml;

/// Policies in the order in which they were loaded; at least one.
#[derive(Debug)]
pub struct PolicySet {
    pub(crate) policies: Vec<Policy>,
    pub(crate) starter: bool,
    pub(crate) fingerprint: String,
}

impl PolicySet {
    /// Whether this is the built-in starter.
    pub fn is_starter(&self) -> bool {
        self.starter
    }

    /// The names of the policies.
    pub fn names(&self) -> Vec<&str> {
        self.policies.iter().map(|policy| policy.name.as_str()).collect()
    }

    /// SHA-256 over the sources' texts, hexadecimal: equal for equal texts in equal order, whatever the files' names.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Parses, checks and compiles the policies of all sources: all or nothing.
///
/// The diagnostics are all that could be found, source by source, each in the order of its places. After a syntax error
/// nothing further can be said about that source.
pub fn load(sources: &[Source<'_>]) -> Result<PolicySet, Diagnostics> {
    let mut names = PolicyNames::default();
    let mut policies = Vec::new();
    let mut diagnostics = Vec::new();
    for source in sources {
        match load_source(source, &mut names) {
            Ok(loaded) => policies.extend(loaded),
            Err(reported) => diagnostics.extend(reported),
        }
    }
    if sources.is_empty() {
        let mut findings = Findings::new("(no file)");
        findings.report(Place::START, "", "there is no policy to load");
        diagnostics = findings.into_diagnostics();
    }
    if diagnostics.is_empty() {
        Ok(PolicySet { policies, starter: false, fingerprint: fingerprint(sources.iter().map(|source| source.text)) })
    } else {
        Err(Diagnostics(diagnostics))
    }
}

fn load_source(source: &Source<'_>, names: &mut PolicyNames) -> Result<Vec<Policy>, Vec<Diagnostic>> {
    let mut findings = Findings::new(source.name);
    let mut policies: Vec<Result<Policy, Reported>> = Vec::new();
    if source::is_readable(source.text, &mut findings) {
        let documents = yaml::parse(source.text, &mut findings);
        if documents.is_empty() && findings.is_empty() {
            findings.report(Place::START, "", "there is no policy in this file");
        }
        for root in &documents {
            policies.push(read::document(root, &mut findings).and_then(|draft| {
                if let Ok(name) = &draft.name {
                    names.add(name, source.name, &mut findings);
                }
                check::rule_ids(&draft, &mut findings);
                compile::compile(draft.finish()?, &mut findings)
            }));
        }
    }
    match policies.into_iter().collect() {
        Ok(policies) if findings.is_empty() => Ok(policies),
        Ok(_) | Err(Reported { .. }) => Err(findings.into_diagnostics()),
    }
}

pub(crate) fn fingerprint<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        // Each text's length first, so that a text cannot be moved from one source to the next.
        hash.update(text.len().to_string());
        hash.update("\n");
        hash.update(text);
    }
    let mut hexadecimal = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    hexadecimal
}
