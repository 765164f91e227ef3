//! Sessions: tokens that prove what an instance registered as, without a table, so that they survive a restart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aasm_wire::identifier::hex;
use aasm_wire::terms::EnforcementMode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::proof::{mac, unhex};
use crate::state::{Standing, State, StateError};

const PREFIX: &str = "aasm_se_";

/// A longer token is not ours.
const LONGEST: usize = 4096;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub agent_id: String,
    pub instance_id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub team_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent_agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub depth: Option<u32>,
    /// The effective one at registration.
    pub enforcement_mode: EnforcementMode,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the session token is not one of this gateway; register again")]
    Invalid,
    #[error("the instance has left; register again")]
    Ended,
    #[error(transparent)]
    State(#[from] StateError),
}

/// Makes and checks tokens, and knows which instances were heard of lately.
pub struct Sessions {
    key: Vec<u8>,
    live: Mutex<HashMap<String, Arc<AtomicI64>>>,
}

impl Sessions {
    pub fn new(secret: &str) -> Self {
        let key = mac(secret.as_bytes(), b"aasm-session-v1").map(|mac| mac.finalize().into_bytes().to_vec());
        Self { key: key.unwrap_or_default(), live: Mutex::default() }
    }

    pub fn issue(&self, session: &Session) -> Option<String> {
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(session).ok()?);
        let seal = hex(&mac(&self.key, payload.as_bytes())?.finalize().into_bytes());
        self.live().insert(session.instance_id.clone(), Arc::new(AtomicI64::new(clock::now_micros())));
        Some(format!("{PREFIX}{payload}.{seal}"))
    }

    /// Whose token it is, if its instance has not left.
    pub fn authenticate(&self, token: &str, state: &State) -> Result<Session, SessionError> {
        let session = self.open(token).ok_or(SessionError::Invalid)?;
        if let Some(seen) = self.live().get(&session.instance_id) {
            seen.store(clock::now_micros(), Ordering::Relaxed);
            return Ok(session);
        }
        match state.standing(&session.instance_id)? {
            Standing::Unknown => return Err(SessionError::Invalid),
            Standing::Left => return Err(SessionError::Ended),
            Standing::Lost => state.revive(&session.instance_id)?,
            Standing::Active => {}
        }
        self.live().insert(session.instance_id.clone(), Arc::new(AtomicI64::new(clock::now_micros())));
        Ok(session)
    }

    /// An instance has left or is lost.
    pub fn forget(&self, instance_id: &str) {
        self.live().remove(instance_id);
    }

    /// When instances were last heard of.
    pub fn seen(&self) -> Vec<(String, i64)> {
        self.live().iter().map(|(instance_id, seen)| (instance_id.clone(), seen.load(Ordering::Relaxed))).collect()
    }

    fn open(&self, token: &str) -> Option<Session> {
        let (payload, seal) = token.strip_prefix(PREFIX).filter(|_| token.len() <= LONGEST)?.split_once('.')?;
        mac(&self.key, payload.as_bytes())?.verify_slice(&unhex(seal)?).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<AtomicI64>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session() -> Session {
        Session {
            agent_id: "a".into(),
            instance_id: "i".into(),
            run_id: None,
            team_id: None,
            parent_agent_id: None,
            depth: Some(2),
            enforcement_mode: EnforcementMode::Observe,
        }
    }

    /// A token reads back with the same secret and with no other.
    #[test]
    fn bound_to_the_secret() {
        let token = Sessions::new("one").issue(&session()).unwrap();
        assert_eq!(Sessions::new("one").open(&token), Some(session()));
        assert_eq!(Sessions::new("two").open(&token), None);
    }

    proptest! {
        /// A token with any one character changed is no token.
        #[test]
        fn no_character_may_change(at in 0_usize..200, with in "[a-zA-Z0-9_.-]") {
            let sessions = Sessions::new("one");
            let token = sessions.issue(&session()).unwrap();
            let at = at % token.len();
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(sessions.open(&changed).is_some(), changed == token);
        }
    }
}
