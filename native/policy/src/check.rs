//! What can only be seen with several things side by side: names given twice, rules that never decide.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use crate::diagnostic::Findings;
use crate::document::{Document, Draft, Effect, Placed, Rule};
use crate::names::Names;
use crate::pattern::{Pattern, Shape};

/// The names of the policies of a set and where each stands, for messages.
#[derive(Debug, Default)]
pub(crate) struct PolicyNames(HashMap<String, String>);

impl PolicyNames {
    /// Reports a name that another policy of the set has.
    pub fn add(&mut self, name: &Placed<String>, file: &str, findings: &mut Findings) {
        match self.0.entry(name.value.clone()) {
            Entry::Vacant(slot) => {
                slot.insert(format!("{file}:{}", name.place.line));
            }
            Entry::Occupied(first) => {
                let message = format!("another policy is named `{}`, in {}", name.value, first.get());
                findings.report(name.place, &name.value, message);
            }
        }
    }
}

/// Reports rules of one document that have the same id.
pub(crate) fn rule_ids(draft: &Draft, findings: &mut Findings) {
    let Ok(rules) = &draft.rules else { return };
    let mut seen = HashMap::new();
    for id in rules.value.iter().flatten().flat_map(|rule| &rule.id) {
        match seen.entry(&id.value) {
            Entry::Vacant(slot) => {
                slot.insert(id.place);
            }
            Entry::Occupied(first) => {
                let message = format!("another rule has the id `{}`, in line {}", id.value, first.get().line);
                findings.report(id.place, &id.value, message);
            }
        }
    }
}

/// Reports rules that can never decide: an allow of which all is denied, and a rule of which earlier ones with the same
/// effect have all. What nobody would notice being ignored is refused.
pub(crate) fn dead_rules(document: &Document, denies: &Names, allows: &Names, findings: &mut Findings) {
    let denies = Cover::new(document, Effect::Deny, denies);
    let allows = Cover::new(document, Effect::Allow, allows);
    for (position, rule) in document.rules.iter().enumerate() {
        let id = &rule.id.value;
        let message = match rule.effect {
            Effect::Allow => denies
                .of(rule, usize::MAX)
                .map(|by| format!("rule `{id}` never allows anything: all of it is denied by {by}, and deny wins"))
                .or_else(|| allows.of(rule, position).map(|by| never_decides(id, &by))),
            Effect::Deny => denies.of(rule, position).map(|by| never_decides(id, &by)),
        };
        if let Some(message) = message {
            let text = rule.tools.value.first().map_or("", |pattern| &pattern.text);
            findings.report(rule.tools.place, text, message);
        }
    }
}

fn never_decides(id: &str, by: &str) -> String {
    format!("rule `{id}` never decides: {by} above has the same effect on all of it; remove `{id}` or move it up")
}

/// Which rule of one effect covers a pattern, as far as that can be seen from the patterns' shapes.
struct Cover<'d> {
    rules: &'d [Rule],
    names: &'d Names,
    first: HashMap<&'d str, usize>,
    prefixes: HashMap<&'d str, usize>,
    suffixes: HashMap<&'d str, usize>,
}

impl<'d> Cover<'d> {
    fn new(document: &'d Document, effect: Effect, names: &'d Names) -> Cover<'d> {
        let (mut first, mut prefixes, mut suffixes) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (position, rule) in document.rules.iter().enumerate().filter(|(_, rule)| rule.effect == effect) {
            for pattern in &rule.tools.value {
                first.entry(pattern.text.as_str()).or_insert(position);
                match &pattern.shape {
                    Shape::Prefix(prefix) => {
                        prefixes.entry(prefix.as_str()).or_insert(position);
                    }
                    Shape::Suffix(suffix) => {
                        suffixes.entry(suffix.as_str()).or_insert(position);
                    }
                    Shape::Everything | Shape::Exact | Shape::Other => {}
                }
            }
        }
        Cover { rules: &document.rules, names, first, prefixes, suffixes }
    }

    /// The rules before `limit` that together cover all of `rule`, in words; none if something of it is left.
    fn of(&self, rule: &Rule, limit: usize) -> Option<String> {
        let mut by = BTreeSet::new();
        for pattern in &rule.tools.value {
            by.insert(self.position(pattern).filter(|position| *position < limit)?);
        }
        let mut ids = by.iter().filter_map(|position| self.rules.get(*position)).map(|rule| &rule.id.value);
        let first = ids.next()?;
        match ids.count() {
            0 => Some(format!("rule `{first}`")),
            others => Some(format!("rule `{first}` with {others} more")),
        }
    }

    fn position(&self, pattern: &Pattern) -> Option<usize> {
        let everything = self.first.get("*").copied();
        let same = self.first.get(pattern.text.as_str()).copied();
        let wider = match &pattern.shape {
            Shape::Exact => self.names.first(&pattern.text),
            Shape::Prefix(prefix) => {
                prefix.char_indices().filter_map(|(end, _)| self.prefixes.get(prefix.get(..end)?).copied()).min()
            }
            Shape::Suffix(suffix) => {
                let starts = suffix.char_indices().skip(1).map(|(start, _)| start);
                starts.filter_map(|start| self.suffixes.get(suffix.get(start..)?).copied()).min()
            }
            Shape::Everything | Shape::Other => None,
        };
        [everything, same, wider].into_iter().flatten().min()
    }
}
