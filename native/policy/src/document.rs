//! The document, typed.

use crate::diagnostic::{Place, Reported};
use crate::pattern::Pattern;

#[derive(Debug)]
pub(crate) struct Document {
    pub name: Placed<String>,
    pub default: Option<Effect>,
    pub rules: Vec<Rule>,
    pub rules_place: Place,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub id: Placed<String>,
    pub effect: Effect,
    pub tools: Placed<Vec<Pattern>>,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Placed<T> {
    pub value: T,
    pub place: Place,
}

/// What could be read of a document; the rest was reported.
#[derive(Debug)]
pub(crate) struct Draft {
    pub name: Result<Placed<String>, Reported>,
    pub default: Result<Option<Effect>, Reported>,
    pub rules: Result<Placed<Vec<Result<RuleDraft, Reported>>>, Reported>,
}

#[derive(Debug)]
pub(crate) struct RuleDraft {
    pub id: Result<Placed<String>, Reported>,
    pub effect: Result<Effect, Reported>,
    pub tools: Result<Placed<Vec<Pattern>>, Reported>,
    pub reason: Result<Option<String>, Reported>,
    pub on: Result<(), Reported>,
}

impl Draft {
    /// The document, if everything in it could be read.
    pub fn finish(self) -> Result<Document, Reported> {
        let rules = self.rules?;
        let rules_place = rules.place;
        let rules =
            rules.value.into_iter().map(|rule| rule.and_then(RuleDraft::finish)).collect::<Result<Vec<_>, _>>()?;
        Ok(Document { name: self.name?, default: self.default?, rules, rules_place })
    }
}

impl RuleDraft {
    fn finish(self) -> Result<Rule, Reported> {
        self.on?;
        Ok(Rule { id: self.id?, effect: self.effect?, tools: self.tools?, reason: self.reason? })
    }
}
