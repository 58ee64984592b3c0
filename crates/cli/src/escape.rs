//! Text made safe for a line of a log and for a terminal: one record is always exactly one line, and
//! data from a peer never controls a terminal.

use std::fmt::{self, Write};
use std::mem;
use std::str;

/// Shows a text with everything that could break a line or control a terminal as an escape.
///
/// A backslash becomes `\\`, a line feed `\n`, a carriage return `\r`, a tab `\t`, and any other
/// control or formatting character `\u{..}` with its code point in hex, so the original can be
/// recovered from the line.
///
/// ```
/// assert_eq!(cli::escape::Escaped("two\nlines").to_string(), r"two\nlines");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, |c| c == '\\' || is_active(c))
    }
}

/// Shows a sentence to a person: as [`Escaped`], but a backslash stays as it is, so that a text can be
/// escaped twice.
///
/// ```
/// assert_eq!(cli::escape::Sentence("C:\\ \x1b[31m").to_string(), r"C:\ \u{1b}[31m");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Sentence<'a>(pub &'a str);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, is_active)
    }
}

fn escape(out: &mut impl Write, text: &str, needs_escape: impl Fn(char) -> bool) -> fmt::Result {
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        if !needs_escape(c) {
            continue;
        }
        out.write_str(&text[plain..at])?;
        match c {
            '\\' => out.write_str(r"\\")?,
            '\n' => out.write_str(r"\n")?,
            '\r' => out.write_str(r"\r")?,
            '\t' => out.write_str(r"\t")?,
            other => write!(out, "\\u{{{:x}}}", other as u32)?,
        }
        plain = at + c.len_utf8();
    }
    out.write_str(&text[plain..])
}

fn escape_byte(out: &mut impl Write, byte: u8) -> fmt::Result {
    write!(out, "\\x{byte:02x}")
}

/// Whether a character does something instead of being seen: control characters, ends of lines and
/// paragraphs, and those that change the direction of text or are invisible. The two joiners (U+200C
/// and U+200D) are part of words in many languages, and stay.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
        )
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
        // Tags, a second, invisible alphabet.
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// Shows bytes that should be text: [`Escaped`], with a byte that is not UTF-8 as `\xNN`, and at most
/// the first `bytes_max` of them.
#[derive(Debug, Clone, Copy)]
pub struct EscapedBytes<'a> {
    /// What to show.
    pub bytes: &'a [u8],
    /// How many bytes are shown; `…` stands for the rest.
    pub bytes_max: usize,
}

impl fmt::Display for EscapedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(self.bytes_max)];
        for chunk in shown.utf8_chunks() {
            Escaped(chunk.valid()).fmt(f)?;
            for byte in chunk.invalid() {
                escape_byte(f, *byte)?;
            }
        }
        if shown.len() < self.bytes.len() {
            f.write_char('…')?;
        }
        Ok(())
    }
}

/// Makes a stream of bytes safe for a terminal, piece by piece: [`Escaped`], but line feeds, tabs and
/// backslashes stay, and a byte that is not UTF-8 becomes `\xNN`.
#[derive(Debug, Default)]
pub struct TextEscaper {
    /// The beginning of a character whose rest is in the next piece.
    cut: Vec<u8>,
}

impl TextEscaper {
    /// Returns the text to show for the next piece.
    pub fn add(&mut self, piece: &[u8]) -> String {
        let mut bytes = mem::take(&mut self.cut);
        bytes.extend_from_slice(piece);
        let mut shown = String::new();
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            show_text(&mut shown, chunk.valid());
            let is_last = chunks.peek().is_none();
            let is_cut = str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
            if is_last && is_cut {
                self.cut = chunk.invalid().to_vec();
            } else {
                show_bytes(&mut shown, chunk.invalid());
            }
        }
        shown
    }

    /// Returns the text to show for a character whose rest does not come.
    pub fn end(&mut self) -> String {
        let mut shown = String::new();
        show_bytes(&mut shown, &mem::take(&mut self.cut));
        shown
    }
}

/// Appends a text of many lines, escaped. Line feeds and tabs stay.
pub fn show_text(shown: &mut String, text: &str) {
    let needs_escape = |c| is_active(c) && !matches!(c, '\n' | '\t');
    escape(shown, text, needs_escape).expect("writing to a string cannot fail");
}

fn show_bytes(shown: &mut String, bytes: &[u8]) {
    for byte in bytes {
        escape_byte(shown, *byte).expect("writing to a string cannot fail");
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
        check("plain ünïcode 👩\u{200d}🚀", "plain ünïcode 👩\u{200d}🚀");
        check("a\nb\r\nc", r"a\nb\r\nc");
        check("tab\there", r"tab\there");
        check("\x1b[31mred\0", r"\u{1b}[31mred\u{0}");
        check(r"back\slash", r"back\\slash");
        check("\u{85}\u{2028}\u{202e}", r"\u{85}\u{2028}\u{202e}");
    }

    #[test]
    fn what_is_not_seen_is_shown() {
        for c in [
            '\u{61c}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{200b}',
            '\u{feff}',
            '\u{9b}',
            '\u{7f}',
            '\u{e0041}',
        ] {
            check(&c.to_string(), &format!("\\u{{{:x}}}", c as u32));
        }
    }

    #[test]
    fn a_sentence_is_escaped_once() {
        let once = Sentence("a\\b\x1b\n").to_string();
        assert_eq!(once, r"a\b\u{1b}\n");
        assert_eq!(Sentence(&once).to_string(), once);
    }

    #[test]
    fn bytes_are_cut_and_shown() {
        let show = |bytes, bytes_max| EscapedBytes { bytes, bytes_max }.to_string();
        assert_eq!(show(b"ok\xff\n", 10), r"ok\xff\n");
        assert_eq!(show(b"longer than that", 6), "longer…");
    }

    #[test]
    fn a_text_may_be_cut_anywhere() {
        let text = "a\tä\\\n\x1b[31m😀\u{61c}".as_bytes();
        let text = [text, b"\xff\xe2\x82"].concat();
        for cut in 0..text.len() {
            let mut escaper = TextEscaper::default();
            let mut shown = escaper.add(&text[..cut]);
            shown += &escaper.add(&text[cut..]);
            shown += &escaper.end();
            let want = concat!("a\tä\\\n", r"\u{1b}[31m😀\u{61c}", r"\xff\xe2\x82");
            assert_eq!(shown, want, "{cut}");
        }
    }
}
