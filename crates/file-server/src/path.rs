//! Request targets to paths below the root.
//!
//! A target is decoded exactly once, and what comes out is a list of plain names: no `.`, no `..`,
//! no slash that was not there before, no NUL. Such a path cannot climb. That it does not walk out
//! through a symbolic link either is for the tree to see to, when it opens the path.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

/// The longest name, in bytes; that of Linux, checked here because the kernel only gets round to
/// it when the folder exists.
const NAME_BYTES_MAX: usize = 255;

/// A path below the root, made of plain names; without any it is the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePath {
    path: PathBuf,
    has_final_slash: bool,
}

/// Why a target names no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathError {
    /// A `%` without two hexadecimal digits behind it.
    BadEncoding,
    /// A slash in a name.
    EncodedSlash,
    /// A NUL in a name.
    Nul,
    /// A name that is `.` or `..`.
    DotSegment,
    /// A name no file can have.
    NameTooLong,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadEncoding => "a '%' in the path has no two hexadecimal digits behind it",
            Self::EncodedSlash => "a name in the path holds an encoded slash",
            Self::Nul => "a name in the path holds a NUL",
            Self::DotSegment => "the path holds a '.' or '..' segment",
            Self::NameTooLong => "a name in the path is over 255 bytes",
        })
    }
}

const _: () = assert!(NAME_BYTES_MAX == 255, "the sentence above says 255");

impl std::error::Error for PathError {}

impl TreePath {
    /// Decodes the path of a request's target, which starts with a slash. Empty segments mean
    /// nothing, and names need not be UTF-8.
    ///
    /// # Errors
    /// If it is malformed, or not made of plain names.
    pub fn decode(encoded: &str) -> Result<Self, PathError> {
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

    /// The path of a file in this folder, by the name that a browser gives it, which may have
    /// folders of its own in front.
    ///
    /// # Errors
    /// If that is no plain name.
    pub fn child(&self, name: &str) -> Result<Self, PathError> {
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        match name.as_bytes() {
            b"" | b"." | b".." => Err(PathError::DotSegment),
            name if name.contains(&0) => Err(PathError::Nul),
            name if name.len() > NAME_BYTES_MAX => Err(PathError::NameTooLong),
            _ => Ok(Self {
                path: self.path.join(name),
                has_final_slash: false,
            }),
        }
    }

    /// The path, relative to the root; empty for the root itself.
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// Whether a slash stands at the end, so that only a folder can be meant.
    pub fn has_final_slash(&self) -> bool {
        self.has_final_slash
    }
}

fn decode_name(segment: &str) -> Result<Cow<'_, [u8]>, PathError> {
    let mut escapes = segment.as_bytes().split(|b| *b == b'%').skip(1);
    // The package leaves a broken escape as it is, which would be a second spelling of "%25".
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
    fn what_only_looks_dangerous_is_a_name() {
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
}
