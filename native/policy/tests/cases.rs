//! The cases of `tests/policy/cases`, which the native Python module is held to as well.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a case that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

use aasm_policy::{Call, Kind, Source, evaluate, load};
use serde::Deserialize;
use serde_json::value::RawValue;

/// One rule of the engine, with a policy that shows it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The rule, as a sentence.
    rule: String,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    policies: Vec<File>,
    /// The lines that refuse the policies; then there are no calls.
    #[serde(default)]
    refused: Vec<String>,
    #[serde(default)]
    calls: Vec<Expected>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    text: String,
}

/// A call and its verdict; what is not given is not compared, except the rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    kind: Option<Kind>,
    tool: String,
    decision: String,
    code: String,
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

#[test]
fn every_case_holds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/policy/cases");
    let mut failures = Vec::new();
    let mut rules = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let cases: Vec<Case> =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in cases {
            assert!(rules.insert(case.rule.clone()), "two cases say: {}", case.rule);
            failures.extend(check(&case).into_iter().map(|failure| format!("{}\n  {failure}", case.rule)));
        }
    }
    assert!(rules.len() > 50, "only {} cases were found", rules.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn check(case: &Case) -> Vec<String> {
    let mut sources: Vec<Source<'_>> =
        case.policies.iter().map(|file| Source { name: &file.name, text: &file.text }).collect();
    sources.extend(case.policy.iter().map(|text| Source { name: "policy.yaml", text }));
    assert_ne!(case.refused.is_empty(), case.calls.is_empty(), "either calls or refusals: {}", case.rule);
    match load(&sources) {
        Err(diagnostics) => {
            let lines: Vec<String> = diagnostics.to_string().lines().map(str::to_owned).collect();
            if lines == case.refused { Vec::new() } else { vec![format!("refused:\n  - {}", lines.join("\n  - "))] }
        }
        Ok(_) if !case.refused.is_empty() => vec!["was loaded".to_owned()],
        Ok(set) => case.calls.iter().filter_map(|expected| differs(expected, &set)).collect(),
    }
}

fn differs(expected: &Expected, set: &aasm_policy::PolicySet) -> Option<String> {
    let args: Box<RawValue> = RawValue::from_string("{}".to_owned()).unwrap();
    let kind = expected.kind.unwrap_or(Kind::Tool);
    let verdict = evaluate(&[set], &Call { kind, tool: &expected.tool, framework: None, server: None, args: &args });
    let same = verdict.decision.as_str() == expected.decision
        && verdict.code == expected.code
        && verdict.rule == expected.rule
        && expected.policy.as_ref().is_none_or(|policy| verdict.policy.as_ref() == Some(policy))
        && expected.reason.as_ref().is_none_or(|reason| verdict.reason == *reason);
    (!same).then(|| format!("{}: {verdict:?}", expected.tool))
}
