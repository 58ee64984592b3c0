//! Numbers that are written as decimal digits and nothing else: no sign, no space, no point.

use std::num::ParseIntError;

/// Reads a number.
///
/// # Errors
/// Of the kind [`PosOverflow`](std::num::IntErrorKind::PosOverflow) if the number exceeds 64 bits, of
/// another kind if `text` is not one or more digits.
pub fn parse(text: &[u8]) -> Result<u64, ParseIntError> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    // The standard library would accept a plus sign.
    let digits = if text.starts_with('+') { "" } else { text };
    digits.parse()
}

#[cfg(test)]
mod tests {
    use std::num::IntErrorKind;

    use super::*;

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(parse(b"0"), Ok(0));
        assert_eq!(parse(b"007"), Ok(7));
        assert_eq!(parse(b"18446744073709551615"), Ok(u64::MAX));
        let too_large = parse(b"18446744073709551616").unwrap_err();
        assert_eq!(too_large.kind(), &IntErrorKind::PosOverflow);
        for bad in ["", "+1", "-1", "-0", " 1", "1 ", "1.0", "0x1", "\u{0661}"] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert_ne!(error.kind(), &IntErrorKind::PosOverflow, "{bad:?}");
        }
        parse(b"\xff").unwrap_err();
    }
}
