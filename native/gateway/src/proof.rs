//! Proofs with the home's secret: the gateway's to a caller, and a caller's to the gateway.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aasm_wire::identifier::{hex, is_hex};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// How far a caller's clock may be off.
const WINDOW: i64 = 300;

/// Nonces kept at most; with more requests than this in ten minutes, further ones wait.
const MOST_NONCES: usize = 100_000;

/// HMAC-SHA256. The key may have any length, so that there is no error to have.
pub fn mac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac)
}

/// What `/healthz` answers to a challenge.
pub fn health(secret: &str, challenge: &str, port: u16) -> Option<String> {
    let message = format!("aasm-health-v1\n{challenge}\n{port}");
    mac(secret.as_bytes(), message.as_bytes()).map(|mac| hex(&mac.finalize().into_bytes()))
}

/// Challenges and nonces: 16 to 64 hexadecimal digits.
pub fn is_nonce(text: &str) -> bool {
    (16..=64).contains(&text.len()) && is_hex(&text.to_ascii_lowercase())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofFault {
    Malformed,
    Expired,
    Wrong,
    Reused,
    TooMany,
}

/// A caller's proof that it can read the home: `T.N.M`.
pub struct Proof<'a> {
    time: i64,
    time_text: &'a str,
    nonce: &'a str,
    mac: &'a str,
}

impl<'a> Proof<'a> {
    /// Reads a proof whose time is right; whether it is true needs the body.
    pub fn parse(text: &'a str, now: i64) -> Result<Self, ProofFault> {
        let mut parts = text.split('.');
        let (Some(time_text), Some(nonce), Some(mac), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ProofFault::Malformed);
        };
        let time: i64 = time_text.parse().map_err(|_| ProofFault::Malformed)?;
        if !is_nonce(nonce) || mac.len() != 64 || !is_hex(mac) {
            return Err(ProofFault::Malformed);
        }
        if time.abs_diff(now) > WINDOW.unsigned_abs() {
            return Err(ProofFault::Expired);
        }
        Ok(Self { time, time_text, nonce, mac })
    }

    pub fn verify(
        &self,
        secret: &str,
        method: &str,
        path: &str,
        body: &[u8],
        nonces: &Nonces,
    ) -> Result<(), ProofFault> {
        let body = hex(&Sha256::digest(body));
        let message = format!("aasm-client-v1\n{method}\n{path}\n{}\n{}\n{body}", self.time_text, self.nonce);
        let expected = mac(secret.as_bytes(), message.as_bytes()).ok_or(ProofFault::Wrong)?;
        let given = unhex(self.mac).ok_or(ProofFault::Malformed)?;
        expected.verify_slice(&given).map_err(|_| ProofFault::Wrong)?;
        nonces.spend(self.nonce, self.time)
    }
}

/// The bytes of lower-case hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

/// The nonces that were used within the window.
#[derive(Default)]
pub struct Nonces {
    used: Mutex<HashMap<String, i64>>,
}

impl Nonces {
    fn spend(&self, nonce: &str, time: i64) -> Result<(), ProofFault> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MOST_NONCES {
            let now = crate::clock::now_secs();
            used.retain(|_, time| *time >= now - WINDOW);
            if used.len() >= MOST_NONCES {
                return Err(ProofFault::TooMany);
            }
        }
        match used.insert(nonce.to_ascii_lowercase(), time) {
            Some(_) => Err(ProofFault::Reused),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn proof(time: i64, nonce: &str, method: &str, path: &str, body: &[u8]) -> String {
        let body = hex(&Sha256::digest(body));
        let message = format!("aasm-client-v1\n{method}\n{path}\n{time}\n{nonce}\n{body}");
        let mac = mac(SECRET.as_bytes(), message.as_bytes()).unwrap().finalize().into_bytes();
        format!("{time}.{nonce}.{}", hex(&mac))
    }

    /// A proof holds once, for its method, path, body and time.
    #[test]
    fn holds_once() {
        let (nonces, nonce) = (Nonces::default(), "0123456789abcdef");
        let text = proof(1000, nonce, "POST", "/v1/runs", b"{}");
        let parsed = Proof::parse(&text, 1300).unwrap();
        assert_eq!(parsed.verify(SECRET, "POST", "/v1/runs", b"{ }", &nonces), Err(ProofFault::Wrong));
        assert_eq!(parsed.verify(SECRET, "POST", "/v1/agents", b"{}", &nonces), Err(ProofFault::Wrong));
        assert_eq!(parsed.verify(SECRET, "POST", "/v1/runs", b"{}", &nonces), Ok(()));
        assert_eq!(parsed.verify(SECRET, "POST", "/v1/runs", b"{}", &nonces), Err(ProofFault::Reused));
        assert_eq!(Proof::parse(&text, 1301).err(), Some(ProofFault::Expired));
        assert_eq!(Proof::parse("1.2.3", 1).err(), Some(ProofFault::Malformed));
    }

    /// The health proof is the HMAC that any other implementation computes.
    #[test]
    fn health_vector() {
        let expected = "3ec70cc065062e80d42ad0a397a4a943de70220daa8c7d40cdde944b10e4900e";
        assert_eq!(health("k", "00112233445566778899aabbccddeeff", 7391).unwrap(), expected);
    }
}
