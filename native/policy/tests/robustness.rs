//! No input makes the engine panic, hang, or load something that it did not understand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use aasm_policy::{
    Call, Decision, Diagnostics, Kind, MAX_DEPTH, MAX_DIAGNOSTICS, MAX_PATTERNS, MAX_SOURCE_BYTES, MAX_TOOL, PolicySet,
    Source, Verdict, evaluate, load,
};
use proptest::prelude::*;
use serde_json::value::RawValue;

const HEAD: &str = "apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: p}\n";

const WHOLE: &str = r#"apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: support-bot, description: "what the support bot may do"}
default: deny
rules:
  - id: read-only-files
    on: tool
    match: {tool: [read_file, "search_*", 'v[0-9]']}
    effect: allow
  - id: no-deletes
    on: tool
    match:
      tool: delete_*
    effect: deny
    reason: >
      Files are never
      deleted.
---
apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: other}
default: allow
"#;

fn load_text(text: &str) -> Result<PolicySet, Diagnostics> {
    load(&[Source { name: "policy.yaml", text }])
}

fn ask(sets: &[&PolicySet], tool: &str) -> Verdict {
    let args = RawValue::from_string("{}".to_owned()).unwrap();
    evaluate(sets, &Call { kind: Kind::Tool, tool, framework: Some("langchain"), server: None, args: &args })
}

/// What must be true of every answer of the loader.
fn is_sound(text: &str) -> Result<(), TestCaseError> {
    match load_text(text) {
        Ok(set) => {
            prop_assert!(!set.names().is_empty());
            prop_assert_eq!(set.fingerprint().len(), 64);
            ask(&[&set], "read_file");
        }
        Err(Diagnostics(diagnostics)) => {
            prop_assert!(!diagnostics.is_empty());
            prop_assert!(diagnostics.len() <= MAX_DIAGNOSTICS + 1);
            let places: Vec<_> = diagnostics.iter().map(|diagnostic| (diagnostic.line, diagnostic.column)).collect();
            prop_assert!(places.is_sorted(), "{:?}", places);
            let lines = text.split('\n').count();
            for diagnostic in &diagnostics {
                prop_assert!((1..=lines).contains(&diagnostic.line), "{:?}", diagnostic);
                prop_assert!(diagnostic.column >= 1 && !diagnostic.message.contains('\n'), "{:?}", diagnostic);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text is loaded or refused.
    #[test]
    fn any_text_has_an_answer(text in any::<String>()) {
        is_sound(&text)?;
    }

    /// Text of YAML's own characters reaches deeper into the parser.
    #[test]
    fn any_yaml_has_an_answer(text in "[-a:?,{}\\[\\]&*!|>'\"%@` \t\r\n#~0.<é\u{feff}\u{85}]{0,60}") {
        is_sound(&text)?;
        is_sound(&format!("{HEAD}rules:\n{text}"))?;
        is_sound(&format!("{HEAD}default: deny\nrules:\n  - id: r\n    {text}"))?;
    }

    /// A valid document with characters changed, added or removed is loaded or refused.
    #[test]
    fn a_mutated_policy_has_an_answer(
        edits in prop::collection::vec((any::<prop::sample::Index>(), "[-a:?,{}\\[\\]&*!|>'\"%\\\\ \t\n#~0]{0,3}", 0..4_usize), 1..6)
    ) {
        let mut letters: Vec<char> = WHOLE.chars().collect();
        for (at, insert, remove) in edits {
            let start = at.index(letters.len());
            let end = (start + remove).min(letters.len());
            letters.splice(start..end, insert.chars());
        }
        is_sound(&letters.into_iter().collect::<String>())?;
    }

    /// A policy cut off anywhere is loaded or refused.
    #[test]
    fn a_cut_policy_has_an_answer(at in 0..WHOLE.len()) {
        is_sound(&WHOLE[..at])?;
    }

    /// Any pattern is refused or compiles, and any name can be asked about.
    #[test]
    fn any_pattern_has_an_answer(pattern in "[a-c*?{},!\\[\\]\\-^/.\\\\é]{1,24}", name in any::<String>()) {
        let quoted = pattern.replace('\\', "\\\\");
        let text = format!("{HEAD}default: allow\nrules: [{{id: r, on: tool, match: {{tool: \"{quoted}\"}}, effect: deny}}]");
        if let Ok(set) = load_text(&text) {
            ask(&[&set], &name);
        }
    }

    /// Small policies decide as their meaning says, and a rule that is refused as dead would never have decided.
    #[test]
    fn small_policies_mean_what_they_say(rules in prop::collection::vec((any::<bool>(), "[a./*?]{1,3}"), 1..5)) {
        let mut text = format!("{HEAD}rules:\n");
        for (number, (allow, pattern)) in rules.iter().enumerate() {
            let effect = if *allow { "allow" } else { "deny" };
            let _ = writeln!(text, "  - {{id: \"{number}\", on: tool, match: {{tool: \"{pattern}\"}}, effect: {effect}}}");
        }
        let loaded = load_text(&text);
        for name in names_of("a./", 4) {
            let first = |wanted: bool| {
                rules.iter().position(|(allow, pattern)| *allow == wanted && matches(pattern.as_bytes(), name.as_bytes()))
            };
            let decided_by = first(false).or(first(true)).map(|number| number.to_string());
            match &loaded {
                Ok(set) => prop_assert_eq!(ask(&[set], &name).rule, decided_by, "{}\n{}", name, text),
                Err(refused) => {
                    for dead in refused.0.iter().filter_map(|diagnostic| diagnostic.message.strip_prefix("rule `")) {
                        prop_assert_ne!(dead.split('`').next(), decided_by.as_deref(), "{}\n{}\n{}", name, text, refused);
                    }
                }
            }
        }
    }

    /// Adding a policy never turns a denial into anything milder.
    #[test]
    fn policies_only_tighten(defaults in prop::collection::vec(any::<bool>(), 1..5), extra in any::<bool>()) {
        let sets: Vec<PolicySet> = defaults.iter().map(|allow| default_only(*allow)).collect();
        let before: Vec<&PolicySet> = sets.iter().collect();
        let more = default_only(extra);
        let after: Vec<&PolicySet> = before.iter().copied().chain([&more]).collect();
        prop_assert!(ask(&after, "x").decision >= ask(&before, "x").decision);
    }
}

/// What `*` and `?` mean.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        ([first, rest @ ..], [letter, name @ ..]) => (*first == b'?' || first == letter) && matches(rest, name),
        _ => false,
    }
}

/// Every text of the letters up to a length.
fn names_of(letters: &str, longest: usize) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut last = names.clone();
    for _ in 0..longest {
        last = last.iter().flat_map(|name| letters.chars().map(move |letter| format!("{name}{letter}"))).collect();
        names.extend(last.iter().cloned());
    }
    names
}

fn default_only(allow: bool) -> PolicySet {
    load_text(&format!("{HEAD}default: {}\n", if allow { "allow" } else { "deny" })).unwrap()
}

/// The document that the tests above mutate is itself valid.
#[test]
fn the_whole_policy_loads() {
    let set = load_text(WHOLE).unwrap();
    assert_eq!(set.names(), ["support-bot", "other"]);
    assert!(!set.is_starter());
}

/// The largest inputs that can be thought of are answered within a bound.
#[test]
fn large_inputs_take_bounded_time() {
    let size = MAX_SOURCE_BYTES - 4096;
    let mut inputs: Vec<(&str, String)> =
        ["[", "{", "- ", "? ", "a: ", "&a ", "*a ", "!", "a\n", "---\n", "%A\n", "\"", "\n"]
            .into_iter()
            .map(|part| ("repeated", part.repeat(size / part.len())))
            .collect();
    let mut fields = HEAD.to_owned();
    for number in 0..size / 12 {
        let _ = writeln!(fields, "efct{number}: x");
    }
    inputs.push(("unknown fields", fields.get(..size).unwrap_or(&fields).to_owned()));
    inputs.push(("one field twice", format!("{HEAD}{}", "a: b\n".repeat(size / 5))));
    inputs.push(("bad rules", format!("{HEAD}rules:\n{}", "- {}\n".repeat(size / 5))));
    inputs.push(("long name", format!("{HEAD}default: deny\n{}: x\n", "e".repeat(size))));
    inputs.push(("long list", format!("{HEAD}rules: [{{match: {{tool: [{}]}}}}]", "'*a*',".repeat(size / 6))));
    inputs.push(("deep", format!("{HEAD}scope: {}", "[".repeat(MAX_DEPTH))));
    for (what, text) in &inputs {
        let start = Instant::now();
        let Err(diagnostics) = load_text(text) else { panic!("{what} was loaded") };
        assert!(diagnostics.0.len() <= MAX_DIAGNOSTICS + 1, "{what}");
        assert!(start.elapsed() < Duration::from_secs(20), "{what} took {:?}", start.elapsed());
    }
}

/// A policy with as many patterns as allowed loads, or is refused as too complex; one more pattern is refused.
#[test]
fn the_bound_on_patterns_holds() {
    let rules = |count: usize, pattern: &dyn Fn(usize) -> String| {
        let mut text = format!("{HEAD}rules:\n");
        for number in 0..count {
            let _ = writeln!(
                text,
                "  - {{id: r{number}, on: tool, match: {{tool: \"{}\"}}, effect: deny}}",
                pattern(number)
            );
        }
        text
    };
    let set = load_text(&rules(MAX_PATTERNS, &|number| format!("tool{number:05}_*"))).unwrap();
    assert_eq!(ask(&[&set], "tool09999_x").rule.as_deref(), Some("r9999"));
    let refused = load_text(&rules(MAX_PATTERNS + 1, &|number| format!("t{number}"))).unwrap_err();
    assert!(refused.to_string().contains("more than the 10000"), "{refused}");
    let start = Instant::now();
    let complex = load_text(&rules(5000, &|number| format!("{{a,b}}*{number:05}*[!x-z]?")));
    match complex {
        Ok(set) => assert_eq!(ask(&[&set], &"a".repeat(MAX_TOOL)).decision, Decision::Deny),
        Err(refused) => assert!(refused.to_string().contains("too complex together"), "{refused}"),
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

/// A source over the bound is refused before it is parsed.
#[test]
fn the_bound_on_a_source_holds() {
    let text = format!("{HEAD}default: deny\n#{}", "x".repeat(MAX_SOURCE_BYTES));
    let refused = load_text(&text).unwrap_err();
    assert!(refused.to_string().starts_with("policy.yaml:1:1: this file has 10"), "{refused}");
}

/// A file with more findings than anyone reads says how many there are.
#[test]
fn findings_are_cut_with_a_count() {
    let refused = load_text(&format!("{HEAD}rules:\n{}", "  - 1\n".repeat(150))).unwrap_err();
    assert_eq!(refused.0.len(), MAX_DIAGNOSTICS + 1);
    let last = refused.0.last().unwrap();
    assert_eq!((last.line, last.message.as_str()), (105, "and 50 more from here on; correct those above first"));
}

/// Without any policy, and for names that no pattern is compared with, the answer is deny.
#[test]
fn what_cannot_be_judged_is_denied() {
    let none = ask(&[], "x");
    assert_eq!((none.decision, none.code), (Decision::Deny, "default"));
    assert!(load(&[]).is_err());
    let starter = PolicySet::starter();
    let long = ask(&[&starter], &"x".repeat(MAX_TOOL + 1));
    assert_eq!((long.decision, long.code), (Decision::Deny, "policy_error"));
    assert!(long.reason.chars().count() < 400);
}

/// The starter allows and says so; beside another policy, that one is named.
#[test]
fn the_starter_allows_in_its_own_name() {
    let starter = PolicySet::starter();
    assert!(starter.is_starter());
    assert_eq!(starter.names(), ["starter"]);
    let verdict = ask(&[&starter], "read_file");
    assert_eq!((verdict.decision, verdict.code, verdict.rule.as_deref()), (Decision::Allow, "starter", None));
    assert_eq!(ask(&[&starter, &default_only(false)], "x").code, "default");
    assert_eq!(ask(&[&default_only(true), &starter], "x").policy.as_deref(), Some("p"));
    assert_eq!(ask(&[&starter, &default_only(true)], "x").policy.as_deref(), Some("p"));
}

/// Equal texts have equal fingerprints, whatever the files are called; anything else differs.
#[test]
fn a_fingerprint_names_the_texts() {
    let one = format!("{HEAD}default: deny\n");
    let two = one.replace("name: p", "name: q");
    let print = |sources: &[(&str, &str)]| {
        let sources: Vec<Source<'_>> = sources.iter().map(|(name, text)| Source { name, text }).collect();
        load(&sources).unwrap().fingerprint().to_owned()
    };
    assert_eq!(print(&[("a", &one)]), print(&[("b", &one)]));
    let joined = format!("{one}---\n{two}");
    let distinct = [
        print(&[("a", &one)]),
        print(&[("a", &two)]),
        print(&[("a", &one), ("b", &two)]),
        print(&[("a", &two), ("b", &one)]),
        print(&[("a", &joined)]),
        PolicySet::starter().fingerprint().to_owned(),
    ];
    let unique: std::collections::BTreeSet<_> = distinct.iter().collect();
    assert_eq!(unique.len(), distinct.len());
}

/// Sets are shared between the threads of a gateway.
#[test]
fn sets_can_be_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<PolicySet>();
    shared::<Diagnostics>();
}
