//! The list of a folder on the server: JSON that is read entry by entry, so that a long list takes no
//! more memory than a short one.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::sidecar::{NAME_BYTES_MAX, is_reserved};

/// The longest list that is read, in bytes.
const LIST_BYTES_MAX: u64 = 512 << 20;

/// The most entries of a list.
const ENTRIES_MAX: u64 = 1_000_000;

/// The longest entry, and the most there may be around all of them, in bytes.
const ENTRY_BYTES_MAX: u64 = 64 << 10;

/// How a reader says that a limit is exceeded.
const LIMIT_EXCEEDED: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// An entry of a folder on the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its name. Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// A file's length; `None` for a folder.
    pub bytes: Option<u64>,
    /// When it was last changed, as an HTTP date.
    pub modified: String,
    /// The link to it from its folder, if the server gives one. It has every byte of the name.
    pub href: Option<String>,
    /// Whether it is a symbolic link on the server.
    #[serde(default, rename = "link")]
    pub is_link: bool,
}

/// What a name in a list is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A file here can have it.
    Plain(OsString),
    /// It is reserved for temporary files and sidecars, here and on the server.
    Reserved(OsString),
    /// It is none: it would lead elsewhere, or no disk has such a name.
    Unsafe,
}

impl Entry {
    /// Whether it is a folder.
    pub(crate) fn is_folder(&self) -> bool {
        self.bytes.is_none()
    }

    /// Its name as a file here can have it, byte for byte. A server may say anything, so only a plain
    /// name is one: no path, no other server, no step up.
    pub(crate) fn file_name(&self) -> FileName {
        let name = match &self.href {
            None => Some(self.name.clone().into_bytes()),
            Some(href) => name_in_link(href, self.is_folder()),
        };
        match name.as_deref() {
            None | Some(b"" | b"." | b"..") => FileName::Unsafe,
            Some(name) if name.contains(&b'/') || name.contains(&0) => FileName::Unsafe,
            Some(name) if name.len() > NAME_BYTES_MAX => FileName::Unsafe,
            Some(name) if is_reserved(name) => {
                FileName::Reserved(OsStr::from_bytes(name).to_owned())
            }
            Some(name) => FileName::Plain(OsStr::from_bytes(name).to_owned()),
        }
    }
}

/// The name in a link that leads to an entry of the same folder.
fn name_in_link(href: &str, is_folder: bool) -> Option<Vec<u8>> {
    let name = href.strip_prefix("./");
    // Without the dot, a colon ends a scheme.
    let name = name.or_else(|| (!href.contains(':')).then_some(href))?;
    let name = match is_folder {
        true => name.strip_suffix('/').unwrap_or(name),
        false => name,
    };
    let is_plain = !name.contains(['/', '?', '#']);
    is_plain.then(|| percent_decode_str(name).collect())
}

/// Why a list could not be read to its end.
#[derive(Debug)]
pub(crate) enum ListError<E> {
    /// The stream failed.
    Io(io::Error),
    /// The reply is not a list.
    NotAList,
    /// The list, or an entry of it, exceeds a limit.
    TooLong,
    /// The receiver of the entries has failed.
    Stopped(E),
}

/// Reads a list, and hands out each entry. Returns whether the server says that it is complete.
pub(crate) fn read<E>(
    input: impl Read,
    each: impl FnMut(Entry) -> Result<(), E>,
) -> Result<bool, ListError<E>> {
    let limits = Limits {
        list_bytes: Cell::new(LIST_BYTES_MAX),
        entries: ENTRIES_MAX,
        entry_bytes: Cell::new(ENTRY_BYTES_MAX),
    };
    read_limited(input, limits, each)
}

fn read_limited<E>(
    input: impl Read,
    limits: Limits,
    mut each: impl FnMut(Entry) -> Result<(), E>,
) -> Result<bool, ListError<E>> {
    let mut entries_left = limits.entries;
    let mut stopped = None;
    // The buffer is outside the limits, so these count whole buffers.
    let input = BufReader::new(Limited {
        input,
        limits: &limits,
    });
    let mut json = serde_json::Deserializer::from_reader(input);
    let list = List {
        limits: &limits,
        each: |entry| {
            let handed = match entries_left.checked_sub(1) {
                None => Err(ListError::TooLong),
                Some(left) => {
                    entries_left = left;
                    each(entry).map_err(ListError::Stopped)
                }
            };
            stopped = handed.err();
            stopped.is_none()
        },
    };
    let read = json
        .deserialize_map(list)
        .and_then(|is_complete| json.end().map(|()| is_complete));
    match (read, stopped) {
        (_, Some(error)) => Err(error),
        (Ok(is_complete), None) => Ok(is_complete),
        (Err(error), None) if error.io_error_kind() == Some(LIMIT_EXCEEDED) => {
            Err(ListError::TooLong)
        }
        (Err(error), None) if error.is_io() => Err(ListError::Io(error.into())),
        (Err(_), None) => Err(ListError::NotAList),
    }
}

/// How much may still be read.
struct Limits {
    list_bytes: Cell<u64>,
    entries: u64,
    entry_bytes: Cell<u64>,
}

/// A reader that fails at a limit.
struct Limited<'a, R> {
    input: R,
    limits: &'a Limits,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(out)?;
        for left in [&self.limits.list_bytes, &self.limits.entry_bytes] {
            let rest = left.get().checked_sub(bytes as u64);
            left.set(rest.ok_or(LIMIT_EXCEEDED)?);
        }
        Ok(bytes)
    }
}

/// The JSON object of a list.
struct List<'a, F> {
    limits: &'a Limits,
    /// Returns whether to continue.
    each: F,
}

impl<'de, F: FnMut(Entry) -> bool> Visitor<'de> for List<'_, F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        #[derive(Deserialize)]
        #[serde(field_identifier, rename_all = "lowercase")]
        enum Field {
            Entries,
            Complete,
            #[serde(other)]
            Other,
        }

        let mut entries = Some(Elements {
            limits: self.limits,
            each: self.each,
        });
        // Without this field the list is complete.
        let mut is_complete = true;
        while let Some(field) = map.next_key()? {
            match field {
                Field::Entries => {
                    let entries = entries.take();
                    map.next_value_seed(
                        entries.ok_or_else(|| A::Error::duplicate_field("entries"))?,
                    )?;
                }
                Field::Complete => is_complete = map.next_value()?,
                Field::Other => {
                    let _: IgnoredAny = map.next_value()?;
                }
            }
        }
        match entries {
            None => Ok(is_complete),
            Some(_) => Err(A::Error::missing_field("entries")),
        }
    }
}

/// The JSON array of the entries.
struct Elements<'a, F> {
    limits: &'a Limits,
    each: F,
}

impl<'de, F: FnMut(Entry) -> bool> DeserializeSeed<'de> for Elements<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Entry) -> bool> Visitor<'de> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entries of a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
        while let Some(entry) = array.next_element()? {
            self.limits.entry_bytes.set(ENTRY_BYTES_MAX);
            if !(self.each)(entry) {
                return Err(A::Error::custom("the receiver has failed"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of a list that are handed out, and how it ends.
    fn read_all(json: impl Read) -> (Vec<Entry>, String) {
        let mut entries = Vec::new();
        let read = read(json, |entry| {
            entries.push(entry);
            match entries.len() {
                5 => Err("five"),
                _ => Ok(()),
            }
        });
        (entries, format!("{read:?}"))
    }

    #[track_caller]
    fn check(json: &str, names: &[&str], end: &str) {
        let (entries, ended) = read_all(json.as_bytes());
        let read: Vec<_> = entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!((read.as_slice(), &*ended), (names, end), "{json}");
    }

    #[track_caller]
    fn check_name(name: &str, href: &str, is_folder: bool, want: FileName) {
        let entry = Entry {
            name: name.to_owned(),
            bytes: (!is_folder).then_some(1),
            modified: String::new(),
            href: Some(href.to_owned()),
            is_link: false,
        };
        assert_eq!(entry.file_name(), want, "{href}");
        if href == name {
            let href = None;
            assert_eq!(Entry { href, ..entry }.file_name(), want, "{name}");
        }
    }

    #[test]
    fn a_name_is_the_one_in_the_link_byte_for_byte() {
        let plain = |name: &[u8]| FileName::Plain(OsStr::from_bytes(name).to_owned());
        check_name("a", "a", false, plain(b"a"));
        check_name("b", "./a", false, plain(b"a"));
        check_name("a", "./a/", true, plain(b"a"));
        check_name("\u{fffd}", "./%FF%0a%25", false, plain(b"\xff\n%"));
        check_name("a:b", "./a:b", false, plain(b"a:b"));
        check_name("..a", "..a", false, plain(b"..a"));
        check_name("...", "./%2e%2e%2e", false, plain(b"..."));
        check_name("a\\..", "a\\..", false, plain(b"a\\.."));
        check_name(".quartet", ".quartet", true, plain(b".quartet"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "a/b",
            "../a",
            "/",
            "//h/a",
            "a\0",
        ] {
            for is_folder in [true, false] {
                check_name(name, name, is_folder, FileName::Unsafe);
            }
        }
        for href in [
            "./",
            "./.",
            "./..",
            "./../a",
            "%2e%2e",
            ".%2E",
            "..%2fa",
            "%2fetc%2fpasswd",
            "a%00",
            "a/b",
            "a//",
            "http://h/a",
            "http:a",
            "//h/a",
            "?a",
            "a?b",
            "a#b",
        ] {
            for is_folder in [true, false] {
                check_name("a", href, is_folder, FileName::Unsafe);
            }
        }
        check_name("a", "../", true, FileName::Unsafe);
        check_name("a", "./a/", false, FileName::Unsafe);
        let long = "a".repeat(256);
        check_name(&long, &long, false, FileName::Unsafe);
        for name in [".quartet-upload-a", ".quartet-", ".Quartet-resume-a"] {
            check_name(name, name, false, FileName::Reserved(name.into()));
        }
    }

    const A: &str =
        r#"{"name":"a","bytes":7,"modified":"m","href":"./a","type":"file","new":[{}]}"#;
    const B: &str = r#"{"modified":"","name":"b","bytes":null}"#;

    #[test]
    fn entries_are_handed_out_in_their_order() {
        let (entries, _) = read_all(format!("{{\"entries\":[{A},{B}]}}").as_bytes());
        assert_eq!((entries[0].bytes, &*entries[0].modified), (Some(7), "m"));
        assert_eq!(entries[1].bytes, None);
        check(
            &format!("{{\"entries\":[{A},{B}]}}\n"),
            &["a", "b"],
            "Ok(true)",
        );
        check(
            &format!("{{\"complete\":false,\"x\":[[0]],\"entries\":[{B}],\"path\":\"/\"}}"),
            &["b"],
            "Ok(false)",
        );
        check("{\"entries\":[],\"complete\":true}", &[], "Ok(true)");
        let many = [A; 9].join(",");
        let five = "Err(Stopped(\"five\"))";
        check(&format!("{{\"entries\":[{many}]}}"), &["a"; 5], five);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for json in [
            "",
            "[]",
            "{}",
            "7",
            "[0],[0]",
            "{\"entries\":7}",
            "{\"entries\":[0]}",
            "{\"entries\":[[0]]}",
            "{\"entries\":[{\"\":0}]}",
            "{\"entries\":[],\"entries\":[]}",
            "{\"entries\":[],\"complete\":1}",
            "{\"entries\":[]}{",
            "{\"entries\":[",
        ] {
            check(json, &[], "Err(NotAList)");
        }
        check(
            &format!("{{\"entries\":[{A},{{}}]}}"),
            &["a"],
            "Err(NotAList)",
        );
        check(&format!("{{\"entries\":[{A}"), &["a"], "Err(NotAList)");
        let nested = format!("{{\"x\":{}", "[".repeat(10_000));
        check(&nested, &[], "Err(NotAList)");
    }

    #[test]
    fn nothing_is_longer_than_it_may_be() {
        let long = "x".repeat(2 * ENTRY_BYTES_MAX as usize);
        for json in [
            format!("{{\"{long}"),
            format!("{{\"x\":\"{long}"),
            format!("{{\"entries\":[{A},{{\"name\":\"{long}"),
            format!(
                "{{\"entries\":[{A},{{\"new\":[{}",
                "0,".repeat(long.len() / 2)
            ),
            " ".repeat(long.len() + 1),
        ] {
            let (entries, ended) = read_all(json.as_bytes());
            assert!(entries.len() <= 1);
            assert_eq!(ended, "Err(TooLong)", "{}", &json[..20]);
        }
    }

    #[test]
    fn a_list_that_exceeds_its_entries_or_bytes_is_too_long() {
        let long = format!("{{\"entries\":[{A}{}", format!(",{A}").repeat(1000));
        for (list_bytes, entries) in [(LIST_BYTES_MAX, 900), (64 << 10, ENTRIES_MAX)] {
            let limits = Limits {
                list_bytes: Cell::new(list_bytes),
                entries,
                entry_bytes: Cell::new(ENTRY_BYTES_MAX),
            };
            let mut handed_out = 0;
            let read = read_limited(long.as_bytes(), limits, |_| {
                handed_out += 1;
                Ok::<_, ()>(())
            });
            assert!(matches!(read, Err(ListError::TooLong)), "{read:?}");
            assert!((500..=900).contains(&handed_out), "{handed_out}");
        }
    }

    #[test]
    fn a_stream_that_fails_is_not_a_list_that_ends() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let start = format!("{{\"entries\":[{A},");
        let (entries, ended) = read_all(start.as_bytes().chain(Broken));
        assert_eq!(entries.len(), 1);
        assert!(ended.starts_with("Err(Io("), "{ended}");
    }
}
