//! Patterns for names, as a shell has them: `*` is any text, `?` one character, and `[a-z]` one of
//! these, `[!a-z]` one of the others. A dot at the start of a name must stand in the pattern.
//!
//! Matching takes no more time than the product of both lengths, whatever the pattern is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A pattern for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    text: OsString,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    AnyText,
    OneOf {
        /// Inclusive.
        ranges: Vec<(Letter, Letter)>,
        is_negated: bool,
    },
    Literal(Letter),
}

/// A character, or a byte that is part of none: names need not be UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Letter {
    Char(char),
    Byte(u8),
}

impl NamePattern {
    /// The pattern in a name; `None` if it is a plain name.
    pub(crate) fn new(name: &OsStr) -> Option<Self> {
        let letters = letters(name);
        let mut parts = Vec::new();
        let mut rest = letters.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            rest = behind;
            parts.push(match first {
                Letter::Char('*') => Part::AnyText,
                Letter::Char('?') => Part::OneOf {
                    ranges: Vec::new(),
                    is_negated: true,
                },
                Letter::Char('[') => match set(behind) {
                    Some((set, behind)) => {
                        rest = behind;
                        set
                    }
                    // Without its end it stands for itself.
                    None => Part::Literal(*first),
                },
                letter => Part::Literal(*letter),
            });
        }
        let is_pattern = parts.iter().any(|part| !matches!(part, Part::Literal(_)));
        is_pattern.then(|| Self {
            text: name.to_owned(),
            parts,
        })
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &OsStr {
        &self.text
    }

    /// Whether a name matches.
    pub(crate) fn matches(&self, name: &OsStr) -> bool {
        let name = letters(name);
        let dot = Letter::Char('.');
        if name.first() == Some(&dot) && self.parts.first() != Some(&Part::Literal(dot)) {
            return false;
        }
        let (mut at, mut part) = (0, 0);
        // The last `*`, and where the text behind it began: only that one need be tried again.
        let mut again = None;
        while at < name.len() {
            match self.parts.get(part) {
                Some(Part::AnyText) => {
                    again = Some((part, at));
                    part += 1;
                    continue;
                }
                Some(one) if one.has(name[at]) => {
                    (at, part) = (at + 1, part + 1);
                    continue;
                }
                Some(_) | None => {}
            }
            let Some((star, start)) = again else {
                return false;
            };
            again = Some((star, start + 1));
            (at, part) = (start + 1, star + 1);
        }
        self.parts[part..].iter().all(|rest| *rest == Part::AnyText)
    }
}

impl Part {
    /// Whether it stands for this letter.
    fn has(&self, letter: Letter) -> bool {
        match self {
            Self::AnyText => false,
            Self::Literal(one) => *one == letter,
            Self::OneOf { ranges, is_negated } => {
                let mut ranges = ranges.iter();
                ranges.any(|(from, to)| (*from..=*to).contains(&letter)) != *is_negated
            }
        }
    }
}

/// The set whose `[` stands before these letters, and what stands behind its `]`.
fn set(letters: &[Letter]) -> Option<(Part, &[Letter])> {
    let (is_negated, letters) = match letters {
        [Letter::Char('!' | '^'), rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    // The first letter may be the bracket itself.
    let end = letters
        .iter()
        .skip(1)
        .position(|l| *l == Letter::Char(']'))?
        + 1;
    let (mut inside, behind) = (&letters[..end], &letters[end + 1..]);
    let mut ranges = Vec::new();
    while let Some((from, rest)) = inside.split_first() {
        let (to, rest) = match rest {
            [Letter::Char('-'), to, rest @ ..] => (to, rest),
            rest => (from, rest),
        };
        ranges.push((*from, *to));
        inside = rest;
    }
    let part = Part::OneOf { ranges, is_negated };
    Some((part, behind))
}

fn letters(name: &OsStr) -> Vec<Letter> {
    let mut letters = Vec::new();
    for chunk in name.as_bytes().utf8_chunks() {
        letters.extend(chunk.valid().chars().map(Letter::Char));
        letters.extend(chunk.invalid().iter().copied().map(Letter::Byte));
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        let pattern = NamePattern::new(OsStr::from_bytes(pattern)).unwrap();
        pattern.matches(OsStr::from_bytes(name))
    }

    #[track_caller]
    fn check(pattern: &str, right: &[&str], wrong: &[&str]) {
        for (names, want) in [(right, true), (wrong, false)] {
            for name in names {
                let got = matches(pattern.as_bytes(), name.as_bytes());
                assert_eq!(got, want, "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_pattern_matches_as_in_a_shell() {
        check("*", &["a", "a.b", "-"], &[".a", "."]);
        check("*.jpg", &["a.jpg", "a.b.jpg"], &["a.jpg2", "jpg", ".jpg"]);
        check(".*", &[".a", "."], &["a"]);
        check("?", &["a", "ä", "\u{1f600}"], &["", "ab", "."]);
        check("[?]*", &["?", "?a"], &["a"]);
        check("a*b*c", &["abc", "axxbxbxc"], &["ab", "acb"]);
        check("[a-c]x", &["ax", "cx"], &["dx", "x", "-x"]);
        check("[!a-c]x", &["dx", "äx"], &["ax", "x", ".x"]);
        check("[^a]", &["b"], &["a"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[a-]*", &["-", "a"], &["b"]);
        check("[a*", &["[a", "[ab"], &["a"]);
        check("*]", &["a]"], &["a"]);
        check("*x*", &["x", "axa"], &["a"]);
    }

    #[test]
    fn a_name_need_not_be_text() {
        assert!(matches(b"a?", b"a\xff"));
        assert!(matches(b"*\xff", b"a\xff"));
        assert!(!matches(b"?", b"\xff\xfe"));
        assert!(matches(b"[\xff]", b"\xff"));
    }

    #[test]
    fn a_plain_name_is_no_pattern() {
        for name in ["a", "a]b", "[a", "[]", ".", "a\\b", ""] {
            assert_eq!(NamePattern::new(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = "*a".repeat(120);
        let name = "a".repeat(254) + "b";
        assert!(!matches(pattern.as_bytes(), name.as_bytes()));
    }
}
