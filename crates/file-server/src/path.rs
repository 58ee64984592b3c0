//! Request targets become paths below the root.
//!
//! A target is decoded exactly once, into plain names: no `.`, no `..`, no new slash, no NUL. Such a
//! path cannot climb out of the root. Why it cannot leave through a symbolic link either is in
//! `files/root.rs`, which opens it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::error::PathError;

/// The longest name, in bytes, as in Linux. The kernel checks it only if the folder exists.
const NAME_BYTES_MAX: usize = 255;

const _: () = assert!(NAME_BYTES_MAX == 255, "the text of PathError says 255");

/// An extension is shorter than this, in bytes. Whatever is longer is part of the name.
const EXTENSION_BYTES_MAX: usize = 32;

/// A path below the root, made of plain names; without any it is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TreePath {
    path: PathBuf,
    has_final_slash: bool,
}

impl TreePath {
    /// Decodes the path of a request's target, which starts with a slash. Empty segments are skipped,
    /// and names need not be UTF-8.
    ///
    /// # Errors
    /// If it is malformed, or not made of plain names.
    pub(crate) fn decode(encoded: &str) -> Result<Self, PathError> {
        let mut path = PathBuf::new();
        for segment in encoded.split('/') {
            let name = decode_name(segment)?;
            if !name.is_empty() {
                path.push(OsStr::from_bytes(&name));
            }
        }
        Ok(Self {
            path,
            has_final_slash: encoded.ends_with('/'),
        })
    }

    /// The path of a file in this folder. `name` is the name that a browser gives it; the folders of
    /// the browser's machine may stand in front, and are dropped. It need not be UTF-8.
    ///
    /// # Errors
    /// If the rest is no plain name.
    pub(crate) fn child(&self, name: &[u8]) -> Result<Self, PathError> {
        let name = name.rsplit(|b| matches!(b, b'/' | b'\\')).next();
        match name.unwrap_or_default() {
            b"" => Err(PathError::NoName),
            b"." | b".." => Err(PathError::DotSegment),
            name if name.contains(&0) => Err(PathError::Nul),
            name if name.len() > NAME_BYTES_MAX => Err(PathError::NameTooLong),
            name => Ok(Self {
                path: self.path.join(OsStr::from_bytes(name)),
                has_final_slash: false,
            }),
        }
    }

    /// The path with a number in the name: `image (1).jpg` for `image.jpg`. A name that would get too
    /// long loses its end.
    pub(crate) fn numbered(&self, number: u32) -> Self {
        let name = self.path.file_name().unwrap_or_default();
        let extension = Path::new(name).extension().unwrap_or_default();
        let dotted = match extension.len() {
            0 | EXTENSION_BYTES_MAX.. => 0,
            bytes => bytes + 1,
        };
        let (stem, dotted) = name.as_bytes().split_at(name.len() - dotted);
        let number = format!(" ({number})");
        let mut stem_bytes = stem.len().min(NAME_BYTES_MAX - number.len() - dotted.len());
        // Not in the middle of a character.
        while stem.get(stem_bytes).is_some_and(|byte| byte & 0xc0 == 0x80) && stem_bytes > 1 {
            stem_bytes -= 1;
        }
        let name = [&stem[..stem_bytes], number.as_bytes(), dotted].concat();
        Self {
            path: self.path.with_file_name(OsStr::from_bytes(&name)),
            has_final_slash: false,
        }
    }

    /// The path, relative to the root; empty for the root itself.
    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }

    /// Whether it ends in a slash, so that only a folder can be meant.
    pub(crate) fn has_final_slash(&self) -> bool {
        self.has_final_slash
    }
}

fn decode_name(segment: &str) -> Result<Cow<'_, [u8]>, PathError> {
    let mut escapes = segment.as_bytes().split(|b| *b == b'%').skip(1);
    // `percent_decode_str` leaves a broken escape as it is: a second spelling of "%25".
    if !escapes.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit)) {
        return Err(PathError::BadEncoding);
    }
    let name = Cow::from(percent_decode_str(segment));
    match &*name {
        b"." | b".." => Err(PathError::DotSegment),
        name if name.contains(&b'/') => Err(PathError::EncodedSlash),
        name if name.contains(&0) => Err(PathError::Nul),
        name if name.len() > NAME_BYTES_MAX => Err(PathError::NameTooLong),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use super::PathError::*;
    use super::*;

    #[track_caller]
    fn check(encoded: &str, want: Result<&[u8], PathError>) {
        let decoded = TreePath::decode(encoded);
        let path = decoded.map(|decoded| decoded.path);
        let want = want.map(|path| PathBuf::from(OsStr::from_bytes(path)));
        assert_eq!(path, want, "{encoded}");
        // What was accepted is made of plain names, whatever it was made from.
        for component in path.iter().flat_map(|path| path.components()) {
            assert!(matches!(component, Component::Normal(_)), "{encoded}");
        }
    }

    #[test]
    fn plain_names_are_decoded_once() {
        check("/", Ok(b""));
        check("/a", Ok(b"a"));
        check("/a/b.txt", Ok(b"a/b.txt"));
        check("/a%20b", Ok(b"a b"));
        check("/%61%62", Ok(b"ab"));
        check("/ä", Ok("ä".as_bytes()));
        check("/%c3%A4", Ok("ä".as_bytes()));
        check("/a+b", Ok(b"a+b"));
        check("/%252e%252e/x", Ok(b"%2e%2e/x"));
        check("/%25", Ok(b"%"));
        check("/a%252fb", Ok(b"a%2fb"));
        check("/%2500", Ok(b"%00"));
    }

    #[test]
    fn empty_segments_mean_nothing() {
        check("//", Ok(b""));
        check("///etc/passwd", Ok(b"etc/passwd"));
        check("/a//b", Ok(b"a/b"));
        check("//host/share", Ok(b"host/share"));
        check("/a/", Ok(b"a"));
        check("", Ok(b""));
    }

    #[test]
    fn no_path_climbs() {
        for climbing in [
            "/..",
            "/../",
            "/../etc/passwd",
            "/../../../../etc/passwd",
            "/a/../b",
            "/a/..",
            "/a/../../b",
            "//../b",
            "/.",
            "/./a",
            "/a/./b",
            "/a/.",
            "/%2e%2e/etc/passwd",
            "/%2E%2E/etc/passwd",
            "/.%2e/etc/passwd",
            "/%2e./etc/passwd",
            "/%2e",
            "/a/%2e%2e/%2e%2e/b",
            "/a/%2e/b",
            "..",
            "../etc/passwd",
        ] {
            check(climbing, Err(DotSegment));
        }
    }

    #[test]
    fn a_name_holds_no_slash_and_no_nul() {
        check("/..%2fetc", Err(EncodedSlash));
        check("/..%2Fetc", Err(EncodedSlash));
        check("/%2e%2e%2fetc%2fpasswd", Err(EncodedSlash));
        check("/%2f", Err(EncodedSlash));
        check("/%2fetc/passwd", Err(EncodedSlash));
        check("/a%2fb", Err(EncodedSlash));
        check("/a%00", Err(Nul));
        check("/a.txt%00.jpg", Err(Nul));
        check("/%00", Err(Nul));
        check("/..%00", Err(Nul));
        check("/..%00/%2e%2e", Err(Nul));
    }

    #[test]
    fn broken_escapes_are_refused() {
        for broken in [
            "/%",
            "/a%",
            "/%2",
            "/%zz",
            "/%2x",
            "/%%",
            "/%%32",
            "/%u002e",
            "/% 20",
            "/%-1",
            "/%+2f",
            "/%ä",
            "/%2\u{e4}",
            "/a/%/b",
            "/%2/e",
            "/%c0%a",
        ] {
            check(broken, Err(BadEncoding));
        }
    }

    #[test]
    fn a_name_that_only_looks_dangerous_is_accepted() {
        check("/...", Ok(b"..."));
        check("/..a", Ok(b"..a"));
        check("/a..", Ok(b"a.."));
        check("/%2e%2e%2e", Ok(b"..."));
        check("/..%5c..%5cetc", Ok(b"..\\..\\etc"));
        check("/..\\..\\etc", Ok(b"..\\..\\etc"));
        check("/..%20", Ok(b".. "));
        check("/..%0a", Ok(b"..\n"));
        check("/c:/windows", Ok(b"c:/windows"));
        check("/file:///etc/passwd", Ok(b"file:/etc/passwd"));
        check("/~root", Ok(b"~root"));
        check("/%c0%ae%c0%ae/etc", Ok(b"\xc0\xae\xc0\xae/etc"));
        check("/%c0%af", Ok(b"\xc0\xaf"));
        check("/%ff", Ok(b"\xff"));
        check("/．．/etc", Ok("．．/etc".as_bytes()));
        check("/..;/etc", Ok(b"..;/etc"));
        check("/$(id)", Ok(b"$(id)"));
        check("/-rf", Ok(b"-rf"));
    }

    #[test]
    fn names_have_a_longest() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        check(
            &format!("/a/{longest}"),
            Ok(format!("a/{longest}").as_bytes()),
        );
        check(&format!("/{longest}x/a"), Err(NameTooLong));
        let encoded = "%78".repeat(NAME_BYTES_MAX);
        check(&format!("/{encoded}"), Ok(longest.as_bytes()));
    }

    #[test]
    fn a_final_slash_is_remembered() {
        for (encoded, want) in [("/", true), ("/a/", true), ("/a", false), ("/a//", true)] {
            assert_eq!(TreePath::decode(encoded).unwrap().has_final_slash(), want);
        }
    }

    #[track_caller]
    fn check_child(name: &str, want: Result<&str, PathError>) {
        let child = TreePath::decode("/in/").unwrap().child(name.as_bytes());
        let path = child.map(|child| child.path.to_str().unwrap().to_owned());
        assert_eq!(path, want.map(|name| format!("in/{name}")), "{name}");
    }

    #[test]
    fn the_folders_of_another_machine_do_not_count() {
        check_child("f.txt", Ok("f.txt"));
        check_child(r"C:\Users\me\f.txt", Ok("f.txt"));
        check_child(r"a\b.txt", Ok("b.txt"));
        check_child("/home/me/f.txt", Ok("f.txt"));
        check_child(r"..\../f.txt", Ok("f.txt"));
        for none in ["", "a/", r"a\"] {
            check_child(none, Err(NoName));
        }
        for climbing in [".", "..", "a/..", r"..\.."] {
            check_child(climbing, Err(DotSegment));
        }
        check_child("a\0", Err(Nul));
        check_child(&"x".repeat(NAME_BYTES_MAX + 1), Err(NameTooLong));
    }

    #[test]
    fn a_second_file_of_a_name_gets_a_number() {
        let numbered = |name: &str, number| {
            let path = TreePath::decode("/in/").unwrap().child(name.as_bytes());
            let name = path.unwrap().numbered(number).path;
            let name = name.strip_prefix("in").unwrap();
            assert!(name.as_os_str().len() <= NAME_BYTES_MAX);
            name.to_str().unwrap().to_owned()
        };
        for (name, want) in [
            ("image.jpg", "image (7).jpg"),
            ("image", "image (7)"),
            ("image (1).jpg", "image (1) (7).jpg"),
            (".profile", ".profile (7)"),
            ("a.tar.gz", "a.tar (7).gz"),
            ("a.", "a. (7)"),
            ("ä.ö", "ä (7).ö"),
        ] {
            assert_eq!(numbered(name, 7), want);
        }
        let long = format!("{}.jpg", "ä".repeat(125));
        assert_eq!(numbered(&long, 7), format!("{} (7).jpg", "ä".repeat(123)));
        assert_eq!(numbered(&long, u32::MAX).len(), NAME_BYTES_MAX);
        let dotted = format!("a.{}", "x".repeat(250));
        assert_eq!(numbered(&dotted, 7), format!("a.{} (7)", "x".repeat(249)));
    }
}
