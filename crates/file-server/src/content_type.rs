//! The `Content-Type` of a file: by its name, and if that does not tell, by its contents.
//!
//! A browser shows what is called text, and offers other files for download. No type that is guessed
//! from contents makes it run something: only a name can do that.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proto::http::response::Field;

/// The longest file that is examined as a whole, in bytes.
const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// The part of a longer file that is examined, in bytes: each request for a range examines it again. A
/// file that is UTF-8 so far counts as UTF-8.
const BEGINNING_BYTES: u64 = 64 * 1024;

/// A file is examined in pieces of this size, in bytes. The first one shows of most files that they are
/// no text.
const PIECE_BYTES: usize = 8 * 1024;

const PLAIN: &str = "text/plain";
const UNKNOWN: &str = "application/octet-stream";

/// Files with these extensions are for people to read, if they are text. Their registered types are
/// others, which browsers do not show; `.ts` and `.mts` may also be videos.
const READ_BY_PEOPLE: &str = "\
    bat coffee csh dart f f77 f90 for gmi gv hbs json5 jsx latex less litcoffee lua man \
    me mkd ms mts nfo org p pas pde pgn php pl pm roff rs sass scss sfv sh sql srt tcl \
    tex texi toml tr ts yaml yml";

/// Types that are newer than the table of `mime_guess`, or have changed.
const NEWER: [(&str, &str); 5] = [
    ("cjs", "text/javascript"),
    ("mjs", "text/javascript"),
    ("mts", "video/mp2t"),
    // Browsers show none that does not come as compressed.
    ("svgz", "application/gzip"),
    ("ts", "video/mp2t"),
];

/// The `Content-Type` of a file at this path.
///
/// # Errors
/// Those of reading it.
pub(crate) fn content_type(path: &Path, file: &File) -> io::Result<Field> {
    let kind = path.extension().and_then(|kind| kind.to_str());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let newer = NEWER.iter().find(|(newer, _)| *newer == kind);
    let named = newer.map(|(_, named)| *named);
    let named = named.or_else(|| mime_guess::from_path(path).first_raw());
    let named = named.filter(|named| *named != UNKNOWN);
    let is_for_people = named.is_none() || READ_BY_PEOPLE.split(' ').any(|other| other == kind);
    let content_type = match named {
        // A page declares its encoding itself, and a charset here would override that.
        Some("text/html") => "text/html".into(),
        Some(named) if !is_for_people && !named.starts_with("text/") => named.into(),
        named => match (examine(file)?, named) {
            (Looks::Binary, named) => named.unwrap_or(UNKNOWN).into(),
            (looks, Some(named)) if !is_for_people => looks.with_charset(named),
            (looks, _) => looks.with_charset(PLAIN),
        },
    };
    Ok(("Content-Type", content_type))
}

/// The kind of text in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// UTF-8.
    Utf8,
    /// Text in another encoding.
    OtherText,
    /// No text in any encoding of single bytes.
    Binary,
}

impl Looks {
    /// A type of text, with the charset if it is known.
    fn with_charset(self, kind: &'static str) -> Cow<'static, str> {
        match self {
            Self::Utf8 => format!("{kind}; charset=utf-8").into(),
            Self::OtherText | Self::Binary => kind.into(),
        }
    }
}

fn examine(file: &File) -> io::Result<Looks> {
    let bytes_max = match file.metadata()?.len() {
        0..=WHOLE_BYTES_MAX => WHOLE_BYTES_MAX,
        _ => BEGINNING_BYTES,
    };
    let mut buffer = [0; PIECE_BYTES];
    let (mut at, mut kept) = (0, 0);
    let (mut is_utf8, mut has_control) = (true, false);
    while at <= bytes_max {
        let bytes = match file.read_at(&mut buffer[kept..], at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let piece = &buffer[..kept + bytes];
        at += bytes as u64;
        has_control |= piece.iter().any(|byte| is_control(*byte));
        kept = match std::str::from_utf8(piece) {
            Ok(_) => 0,
            // The next piece has the rest of the character.
            Err(error) if error.error_len().is_none() && bytes > 0 => {
                piece.len() - error.valid_up_to()
            }
            Err(_) => {
                is_utf8 = false;
                0
            }
        };
        if piece.contains(&0) || has_control && !is_utf8 {
            return Ok(Looks::Binary);
        }
        if bytes == 0 {
            break;
        }
        let start = piece.len() - kept;
        buffer.copy_within(start..start + kept, 0);
    }
    Ok(if is_utf8 {
        Looks::Utf8
    } else {
        Looks::OtherText
    })
}

/// Whether a byte is a control character that no text has.
fn is_control(byte: u8) -> bool {
    byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[track_caller]
    fn check(name: &str, bytes: &[u8], want: &str) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let (_, got) = content_type(name.as_ref(), &file).unwrap();
        let shown = &bytes[..bytes.len().min(20)];
        assert_eq!(got, want, "{name}: {}", shown.escape_ascii());
    }

    const UTF8: &str = "text/plain; charset=utf-8";

    #[test]
    fn types_go_by_the_name() {
        check("a.txt", b"text", UTF8);
        check("a.CSS", b"a {}", "text/css; charset=utf-8");
        check("a.jpg", b"text", "image/jpeg");
        check("a.b.png", b"text", "image/png");
        check("a.tar.gz", b"text", "application/gzip");
        check("a.svgz", b"\x1f\x8b", "application/gzip");
        check("a.json", b"{}", "application/json");
        check("a.xml", b"<a/>", "text/xml; charset=utf-8");
        for script in ["a.js", "a.mjs", "a.cjs"] {
            check(script, b"1", "text/javascript; charset=utf-8");
        }
    }

    #[test]
    fn the_charset_is_given_if_it_is_known() {
        check("a.html", b"text", "text/html");
        check("a.htm", b"\xe4", "text/html");
        check("a.txt", "ä".as_bytes(), UTF8);
        check("a.txt", b"", UTF8);
        check("a.txt", b"\x08\x1b[1m", UTF8);
        check("a.txt", b"\xe4", "text/plain");
        check("a.txt", b"cut off: \xc3", "text/plain");
        check("a.txt", b"\xff\xfea\0", "text/plain");
        check("a.xml", b"\xe4", "text/xml");
        // A character may lie across two pieces, and a wrong byte may come late.
        for length in [PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES - 1] {
            let text = "x".repeat(length) + "ä€🦀";
            check("a.txt", text.as_bytes(), UTF8);
            check("a.txt", &[text.as_bytes(), b"\xe4"].concat(), "text/plain");
        }
        let most = vec![b'x'; WHOLE_BYTES_MAX as usize - 1];
        check("a.txt", &[&most, &b"\xe4"[..]].concat(), "text/plain");
    }

    #[test]
    fn the_beginning_of_a_long_file_decides() {
        let mut long = vec![b'x'; WHOLE_BYTES_MAX as usize + 1];
        long[2 * BEGINNING_BYTES as usize] = 0xe4;
        check("a.txt", &long, UTF8);
        // A character that is cut off at the end of the examined part is not wrong.
        let end = BEGINNING_BYTES as usize;
        for start in end - 1..end + 2 {
            long[start - 1..=start].copy_from_slice("ä".as_bytes());
            check("a.txt", &long, UTF8);
            long[start - 1..=start].fill(b'x');
        }
        long[end - 1] = 0xe4;
        check("a.txt", &long, "text/plain");
    }

    #[test]
    fn files_for_people_are_shown() {
        for name in [
            "README",
            "LICENSE",
            "Makefile",
            ".gitignore",
            ".html",
            "a.sh",
            "a.jsonl",
            "a.toml",
            "a.yml",
            "a.rs",
            "a.java",
            "a.sql",
            "a.ts",
            "a.mts",
            "a.tsx",
            "a.unheard-of",
        ] {
            check(name, b"text\n", UTF8);
            check(name, b"\xe4\n", PLAIN);
        }
        check("a", b"", UTF8);
    }

    #[test]
    fn binary_files_are_not_shown() {
        check("a", b"\x7fELF\0", UNKNOWN);
        check("a.java", b"\0", UNKNOWN);
        check("a", b"\x1f\x8b\x08\xff", UNKNOWN);
        check("a.sh", b"\0", "application/x-sh");
        check("a.ts", b"\x47\x40\0\x10", "video/mp2t");
        check("a.mts", b"\x47\x40\0\x10", "video/mp2t");
    }
}
