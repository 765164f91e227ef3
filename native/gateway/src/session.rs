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

/// Microseconds after which an instance that says nothing is looked up in `state.db` again.
const IDLE: i64 = 3_600_000_000;

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

    /// Whose token it is; its instance may have left.
    pub fn open(&self, token: &str) -> Result<Session, SessionError> {
        self.read(token).ok_or(SessionError::Invalid)
    }

    /// Whether an instance was heard of lately and has not left; it is heard of now.
    pub fn is_live(&self, instance_id: &str) -> bool {
        let live = self.live();
        let Some(seen) = live.get(instance_id) else { return false };
        seen.store(clock::now_micros(), Ordering::Relaxed);
        true
    }

    /// Takes an instance in that was not heard of lately, unless it has left. Asks `state.db`, so it may block.
    pub fn admit(&self, instance_id: &str, state: &State) -> Result<(), SessionError> {
        standing(instance_id, state)?;
        self.live().insert(instance_id.to_owned(), Arc::new(AtomicI64::new(clock::now_micros())));
        // It may have left between the question and the note; who leaves is forgotten after it is written down.
        standing(instance_id, state).inspect_err(|_| self.forget(instance_id))
    }

    /// An instance has left or is lost.
    pub fn forget(&self, instance_id: &str) {
        self.live().remove(instance_id);
    }

    /// Which instances were heard of since then; those that were not for long enough are forgotten, not gone.
    pub fn seen_since(&self, since: i64) -> Vec<(String, i64)> {
        let mut seen = self.seen();
        let idle = clock::now_micros() - IDLE;
        self.live().retain(|_, seen| seen.load(Ordering::Relaxed) > idle);
        seen.retain(|(_, seen)| *seen >= since);
        seen
    }

    /// When instances were last heard of.
    pub fn seen(&self) -> Vec<(String, i64)> {
        self.live().iter().map(|(instance_id, seen)| (instance_id.clone(), seen.load(Ordering::Relaxed))).collect()
    }

    fn read(&self, token: &str) -> Option<Session> {
        let (payload, seal) = token.strip_prefix(PREFIX).filter(|_| token.len() <= LONGEST)?.split_once('.')?;
        mac(&self.key, payload.as_bytes())?.verify_slice(&unhex(seal)?).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<AtomicI64>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standing(instance_id: &str, state: &State) -> Result<(), SessionError> {
    match state.standing(instance_id)? {
        Standing::Unknown => Err(SessionError::Invalid),
        Standing::Left => Err(SessionError::Ended),
        Standing::Lost => Ok(state.revive(instance_id)?),
        Standing::Active => Ok(()),
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
        assert_eq!(Sessions::new("one").read(&token), Some(session()));
        assert_eq!(Sessions::new("two").read(&token), None);
    }

    /// Who has left is not taken in again, whatever its token says; who registers anew is.
    #[test]
    fn leavers_stay_out() {
        let home = tempfile::tempdir().unwrap();
        let state = State::open(&home.path().join("state.db")).unwrap();
        let sessions = Sessions::new("one");
        assert!(matches!(sessions.admit("i", &state), Err(SessionError::Invalid)));
        let agent = serde_json::from_value(serde_json::json!({
            "agent_id": "a", "instance_id": "i", "sdk_version": "0", "python_version": "3", "pid": 1, "host": "h"
        }))
        .unwrap();
        state.register(&agent, EnforcementMode::Enforce, None).unwrap();
        assert!(sessions.admit("i", &state).is_ok() && sessions.is_live("i"));
        state.depart("i", false).unwrap();
        sessions.forget("i");
        assert!(matches!(sessions.admit("i", &state), Err(SessionError::Ended)));
        assert!(!sessions.is_live("i"));
    }

    proptest! {
        /// A token with any one character changed is no token.
        #[test]
        fn no_character_may_change(at in 0_usize..200, with in "[a-zA-Z0-9_.-]") {
            let sessions = Sessions::new("one");
            let token = sessions.issue(&session()).unwrap();
            let at = at % token.len();
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(sessions.read(&changed).is_some(), changed == token);
        }
    }
}
