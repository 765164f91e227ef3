//! The wall clock, and RFC 3339.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

/// Microseconds since 1970.
pub fn now_micros() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
pub fn now_secs() -> i64 {
    now_micros() / 1_000_000
}

/// RFC 3339 in UTC with six digits of a second, so that texts of equal length sort as times do.
pub fn rfc3339(micros: i64) -> String {
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    DateTimePrinter::new().precision(Some(6)).timestamp_to_string(&time)
}

/// Nanoseconds since 1970 as RFC 3339; `None` for 0, which is what an unset field reads as.
pub fn rfc3339_nanos(nanos: u64) -> Option<String> {
    (nanos > 0).then(|| rfc3339(i64::try_from(nanos / 1000).unwrap_or(i64::MAX)))
}

/// Microseconds of an RFC 3339 time or of unix seconds.
pub fn parse(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some((seconds * 1e6) as i64);
    }
    text.parse::<Timestamp>().ok().map(|time| time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written reads back; both forms of a query's time are understood.
    #[test]
    fn round_trip() {
        assert_eq!(rfc3339(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
        assert_eq!(parse("2023-11-14T22:13:20.123456Z"), Some(1_700_000_000_123_456));
        assert_eq!(parse("2023-11-14T23:13:20+01:00"), Some(1_700_000_000_000_000));
        assert_eq!(parse("1700000000"), Some(1_700_000_000_000_000));
        assert_eq!(parse("yesterday"), None);
        assert_eq!(rfc3339_nanos(0), None);
    }
}
