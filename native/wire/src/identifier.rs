//! The forms of identifiers.

/// `agent_id` and `team_id`: 1 to 128 of letters, digits, `_`, `.`, `-`.
pub fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `run_id`: `run-` and 16 lower-case hexadecimal digits.
pub fn is_run_id(text: &str) -> bool {
    text.strip_prefix("run-").is_some_and(|digits| digits.len() == 16 && is_hex(digits))
}

/// `instance_id` and `event_id`: 32 lower-case hexadecimal digits.
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && is_hex(text)
}

/// `sha256:` and 64 lower-case hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && is_hex(digits))
}

/// Only lower-case hexadecimal digits.
pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The unix milliseconds in the first 12 digits of an event id.
pub fn event_millis(event_id: &str) -> Option<u64> {
    event_id.get(..12).and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 15)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Identifiers are accepted in exactly the forms of the contract.
    #[test]
    fn forms() {
        assert!(is_name("support-bot.v2_x"));
        assert!(!is_name("") && !is_name("a b") && !is_name("é") && !is_name(&"a".repeat(129)));
        assert!(is_run_id("run-0123456789abcdef"));
        assert!(!is_run_id("run-0123456789ABCDEF") && !is_run_id("run-0123"));
        assert!(is_id(&"0a".repeat(16)) && !is_id(&"0A".repeat(16)));
        assert_eq!(event_millis("0000000003e8aaaaaaaaaaaaaaaaaaaa"), Some(1000));
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    }
}
