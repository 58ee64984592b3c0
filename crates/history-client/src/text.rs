//! The text of a note: what can be one.

use proto::history::NOTE_BYTES_MAX;

use crate::error::NotANote;

/// The same text, if it can be a note.
///
/// # Errors
/// If it cannot.
pub(crate) fn check_note(text: &str) -> Result<&str, NotANote> {
    match text.len() {
        0 => Err(NotANote::Empty),
        1..=NOTE_BYTES_MAX => Ok(text),
        _ => Err(NotANote::TooLong),
    }
}

/// The text in these bytes, if it can be a note.
///
/// # Errors
/// If it cannot.
pub(crate) fn note_of(bytes: &[u8]) -> Result<&str, NotANote> {
    // What is cut off at the limit may end inside a character.
    if bytes.len() > NOTE_BYTES_MAX {
        return Err(NotANote::TooLong);
    }
    check_note(str::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_a_text_that_is_neither_empty_nor_too_long() {
        let check = |bytes: &[u8], want: &str| {
            let got = note_of(bytes).map(str::to_owned);
            let got = got.unwrap_or_else(|error| cli::exit::with_causes(&error));
            assert_eq!(got, want);
        };
        let longest = "x".repeat(NOTE_BYTES_MAX);
        check(b"a\nb", "a\nb");
        check(longest.as_bytes(), &longest);
        check(b"", "the note is empty");
        let too_long = "the note exceeds 8192 bytes";
        check(&[longest.as_bytes(), b"x"].concat(), too_long);
        check(&[longest.as_bytes(), b"\xc3"].concat(), too_long);
        let not_text =
            "the note is not valid UTF-8: invalid utf-8 sequence of 1 bytes from index 1";
        check(b"a\xff", not_text);
    }
}
