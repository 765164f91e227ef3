//! From a call to a verdict.

use crate::call::{Call, Kind};
use crate::compile::Policy;
use crate::diagnostic::shorten;
use crate::document::Effect;
use crate::set::PolicySet;
use crate::verdict::{Decision, Verdict};

/// The longest tool name that is compared with patterns, in bytes; a call with a longer one is denied.
pub const MAX_TOOL: usize = 512;

/// How many characters of a tool's name a reason shows.
const MAX_SHOWN: usize = 128;

/// What a model can do about a denial.
const OTHER_WAY: &str = "Use another tool or ask the user.";

/// One policy's answer, before it is put into words.
#[derive(Clone, Copy)]
struct Answer<'p> {
    effect: Effect,
    /// Position of the rule; without one, the policy's default decides.
    rule: Option<usize>,
    policy: &'p Policy,
    starter: bool,
}

/// The strictest verdict of all policies in all sets; of equally strict ones, that of the first policy.
///
/// Within a policy, deny wins over allow whatever the order of the rules, and the first rule of an effect is named.
/// Without any policy, the call is denied.
pub fn evaluate(sets: &[&PolicySet], call: &Call<'_>) -> Verdict {
    if call.tool.len() > MAX_TOOL {
        return too_long(call);
    }
    // The starter forbids nothing: beside a policy that someone wrote, that one's answer is the one to name.
    let starter_alone = sets.iter().all(|set| set.starter);
    let speaking = sets.iter().filter(|set| starter_alone || !set.starter);
    let mut strictest: Option<Answer<'_>> = None;
    for (policy, starter) in speaking.flat_map(|set| set.policies.iter().map(|policy| (policy, set.starter))) {
        let answer = answer(policy, starter, call);
        if strictest.is_none_or(|so_far| severity(answer.effect) > severity(so_far.effect)) {
            strictest = Some(answer);
        }
    }
    match strictest {
        Some(answer) => answer.into_verdict(call),
        None => no_policy(call),
    }
}

fn severity(effect: Effect) -> Decision {
    match effect {
        Effect::Allow => Decision::Allow,
        Effect::Deny => Decision::Deny,
    }
}

fn answer<'p>(policy: &'p Policy, starter: bool, call: &Call<'_>) -> Answer<'p> {
    let ruled = match call.kind {
        Kind::Tool => {
            let denied = policy.denies.first(call.tool).map(|rule| (Effect::Deny, Some(rule)));
            denied.or_else(|| policy.allows.first(call.tool).map(|rule| (Effect::Allow, Some(rule))))
        }
        // No rule can speak of these yet, so the default decides.
        Kind::Llm | Kind::Network | Kind::Exec | Kind::File | Kind::Spawn => None,
    };
    let (effect, rule) = ruled.unwrap_or((policy.default.unwrap_or(Effect::Deny), None));
    Answer { effect, rule, policy, starter }
}

impl Answer<'_> {
    fn into_verdict(self, call: &Call<'_>) -> Verdict {
        let subject = subject(call);
        let policy = &self.policy.name;
        let rule = self.rule.and_then(|position| self.policy.rules.get(position));
        let reason = match (self.effect, rule) {
            (Effect::Deny, Some(rule)) => {
                let because = because(rule.reason.as_deref());
                format!("{subject} is denied by rule `{}` of policy `{policy}`{because} {OTHER_WAY}", rule.id)
            }
            (Effect::Deny, None) => format!("{subject} is denied: no rule of policy `{policy}` allows it. {OTHER_WAY}"),
            (Effect::Allow, Some(rule)) => {
                let because = because(rule.reason.as_deref());
                format!("{subject} is allowed by rule `{}` of policy `{policy}`{because}", rule.id)
            }
            (Effect::Allow, None) if self.starter => {
                format!("{subject} is allowed by the built-in starter policy: no other policy is loaded.")
            }
            (Effect::Allow, None) => format!("{subject} is allowed by the default of policy `{policy}`."),
        };
        let code = match rule {
            _ if self.starter => "starter",
            Some(_) => "rule",
            None => "default",
        };
        Verdict {
            decision: severity(self.effect),
            reason,
            rule: rule.map(|rule| rule.id.clone()),
            policy: Some(policy.clone()),
            code,
        }
    }
}

/// The end of a sentence: the rule's own reason, or a full stop.
fn because(reason: Option<&str>) -> String {
    match reason {
        Some(reason) if reason.ends_with(['.', '!', '?']) => format!(": {reason}"),
        Some(reason) => format!(": {reason}."),
        None => ".".to_owned(),
    }
}

fn subject(call: &Call<'_>) -> String {
    let what = match call.kind {
        Kind::Tool => "Tool",
        Kind::Llm => "Model",
        Kind::Network => "Network access",
        Kind::Exec => "Program",
        Kind::File => "File access",
        Kind::Spawn => "Agent",
    };
    format!("{what} `{}`", shorten(call.tool, MAX_SHOWN))
}

fn too_long(call: &Call<'_>) -> Verdict {
    let reason = format!(
        "{} is denied: its name has {} bytes, more than the {MAX_TOOL} that a policy compares. {OTHER_WAY}",
        subject(call),
        call.tool.len()
    );
    Verdict { decision: Decision::Deny, reason, rule: None, policy: None, code: "policy_error" }
}

fn no_policy(call: &Call<'_>) -> Verdict {
    let reason = format!("{} is denied: no policy is loaded. Ask the user to load one.", subject(call));
    Verdict { decision: Decision::Deny, reason, rule: None, policy: None, code: "default" }
}
