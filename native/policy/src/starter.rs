//! What applies while nobody has written a policy.

use crate::compile::Policy;
use crate::document::Effect;
use crate::names::Names;
use crate::set::{PolicySet, fingerprint};

/// The name that verdicts of the starter carry.
pub(crate) const NAME: &str = "starter";

impl PolicySet {
    /// The built-in starter: allows everything, so that all there is to see is the record. Its verdicts carry the code
    /// `starter`.
    pub fn starter() -> PolicySet {
        let policy = Policy {
            name: NAME.to_owned(),
            default: Some(Effect::Allow),
            rules: Vec::new(),
            denies: Names::default(),
            allows: Names::default(),
        };
        PolicySet { policies: vec![policy], starter: true, fingerprint: fingerprint(std::iter::once("starter 1")) }
    }
}
