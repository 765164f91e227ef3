//! What a plain scalar is, by the core schema of YAML 1.2.

use crate::yaml::Value;

/// The value of a scalar without quotes.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Value::Bool(text.to_owned()),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, 8);
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return digits(hexadecimal, 16);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let whole_exponent = exponent.is_none_or(|text| digits(text.strip_prefix(['-', '+']).unwrap_or(text), 10));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = digits(whole, 10) || (whole.is_empty() && !fraction.is_empty());
    has_digits && (fraction.is_empty() || digits(fraction, 10)) && whole_exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain scalars are read as YAML 1.2 does, not 1.1: only `true` and `false` are booleans.
    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for text in ["on", "off", "yes", "no", "y", "n", "Yes", "1:30", "2026-01-01", "1_000", "0b1", "<<", "e5", "."] {
            assert!(matches!(plain(text), Value::Text(_)), "{text}");
        }
        for text in ["1", "-1", "+1.5", "1.", ".5", "1e3", "1.5E-7", "010", "0o17", "0xFF", ".inf", "-.Inf", ".nan"] {
            assert!(matches!(plain(text), Value::Number(_)), "{text}");
        }
        for text in ["", "~", "null", "NULL"] {
            assert!(matches!(plain(text), Value::Null), "{text}");
        }
        assert!(matches!(plain("TRUE"), Value::Bool(_)));
    }
}
