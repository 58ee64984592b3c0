//! Splits a line into words, quoted as in a shell: `'...'` and `"..."` hold spaces, and a backslash
//! escapes the next character. There are no variables, patterns or comments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What a backslash escapes between double quotes. Before all else it stands for itself.
const ESCAPED_IN_DOUBLE: &[u8] = b"$`\"\\";

/// The words of a line, which need not be UTF-8.
///
/// # Errors
/// A sentence, if a quote has no end or the line ends in a backslash.
pub(crate) fn split(line: &[u8]) -> Result<Vec<OsString>, &'static str> {
    let mut words = Vec::new();
    let mut word = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take().map(OsString::from_vec)),
            b'\\' => word.get_or_insert_with(Vec::new).push(
                bytes
                    .next()
                    .ok_or("there is nothing behind the last backslash")?,
            ),
            b'\'' | b'"' => quoted(byte, &mut bytes, word.get_or_insert_with(Vec::new))?,
            plain => word.get_or_insert_with(Vec::new).push(plain),
        }
    }
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

/// Appends what stands before the quote that ends it.
fn quoted(
    quote: u8,
    bytes: &mut impl Iterator<Item = u8>,
    word: &mut Vec<u8>,
) -> Result<(), &'static str> {
    const ENDLESS: &str = "a quote has no end";
    loop {
        let byte = bytes.next().ok_or(ENDLESS)?;
        if byte == quote {
            return Ok(());
        }
        if byte == b'\\' && quote == b'"' {
            let next = bytes.next().ok_or(ENDLESS)?;
            if !ESCAPED_IN_DOUBLE.contains(&next) {
                word.push(byte);
            }
            word.push(next);
        } else {
            word.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::*;

    const LINES: [&str; 12] = [
        "",
        " \t ",
        "a b\t c ",
        "'a b' \"c  d\" e\\ f",
        "a' 'b\" \"c\\ d",
        "'' \"\" a''b",
        r#"'it'"'"'s' "it's" it\'s"#,
        r#"'\n' "\n" \n"#,
        r#""\\" "\"" '"' '\' "\$a""#,
        "a#b \\# '#'",
        "\u{e4} '\u{e4} \u{1f600}'",
        "a\u{a0}b",
    ];

    #[test]
    fn words_are_those_of_a_shell() {
        for line in LINES {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("printf '<%s>' {line}")]);
            let shown = shell.output().unwrap().stdout;
            let words = split(line.as_bytes()).unwrap();
            let mut want: Vec<u8> = Vec::new();
            for word in &words {
                want.extend([b"<", word.as_bytes(), b">"].concat());
            }
            if words.is_empty() {
                want.extend(b"<>");
            }
            assert_eq!(shown, want, "{line}");
        }
    }

    #[test]
    fn a_name_need_not_be_text() {
        assert_eq!(
            split(b"\xff '\xfe '").unwrap(),
            [b"\xff".as_slice(), b"\xfe "].map(OsStr::from_bytes)
        );
    }

    #[test]
    fn what_has_no_end_is_refused() {
        for line in ["'", "a 'b", "\"", "\"a\\\"", "\"a\\", "a\\"] {
            assert!(split(line.as_bytes()).is_err(), "{line}");
        }
    }
}
