//! Text made safe to stand in a line of a log: one record is always exactly one line.

use std::fmt::{self, Write};

/// Shows `0` with everything that could break a line, or drive a terminal, written as an escape.
///
/// A backslash becomes `\\`, a line feed `\n`, a carriage return `\r`, a tab `\t`, and any other
/// control character, line separator or direction mark `\u{..}` with its code point in hex, so
/// the original can be recovered from the line.
///
/// ```
/// assert_eq!(proto::escape::Escaped("two\nlines").to_string(), r"two\nlines");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = 0;
        for (at, c) in self.0.char_indices() {
            if !needs_escape(c) {
                continue;
            }
            f.write_str(&self.0[plain..at])?;
            match c {
                '\\' => f.write_str(r"\\")?,
                '\n' => f.write_str(r"\n")?,
                '\r' => f.write_str(r"\r")?,
                '\t' => f.write_str(r"\t")?,
                other => write!(f, "\\u{{{:x}}}", other as u32)?,
            }
            plain = at + c.len_utf8();
        }
        f.write_str(&self.0[plain..])
    }
}

fn needs_escape(c: char) -> bool {
    c == '\\'
        || c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Shows bytes that ought to be text: [`Escaped`], with what is not UTF-8 as `\xNN`, and no more
/// than the first `bytes_max` of them.
#[derive(Debug, Clone, Copy)]
pub struct EscapedBytes<'a> {
    /// What to show.
    pub bytes: &'a [u8],
    /// How many bytes of it at the most; `...` stands for the rest.
    pub bytes_max: usize,
}

impl fmt::Display for EscapedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(self.bytes_max)];
        for chunk in shown.utf8_chunks() {
            Escaped(chunk.valid()).fmt(f)?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if shown.len() < self.bytes.len() {
            f.write_char('…')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(Escaped(text).to_string(), want);
    }

    #[test]
    fn one_text_is_one_line() {
        check("", "");
        check("plain ünïcode 😀", "plain ünïcode 😀");
        check("a\nb\r\nc", r"a\nb\r\nc");
        check("tab\there", r"tab\there");
        check("\x1b[31mred\0", r"\u{1b}[31mred\u{0}");
        check(r"back\slash", r"back\\slash");
        check("\u{85}\u{2028}\u{202e}", r"\u{85}\u{2028}\u{202e}");
    }

    #[test]
    fn bytes_are_cut_and_shown() {
        let show = |bytes, bytes_max| EscapedBytes { bytes, bytes_max }.to_string();
        assert_eq!(show(b"ok\xff\n", 10), r"ok\xff\n");
        assert_eq!(show(b"longer than that", 6), "longer…");
    }
}
