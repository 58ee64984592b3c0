//! The parameters of a field, as in `form-data; name="a"; filename="b"` (RFC 9110 section 5.6.6).
//!
//! File names that are not ASCII are written in several ways: RFC 8187, RFC 2231, and what browsers and
//! curl do instead. This module understands all of them, and refuses parameters that are ambiguous.

use percent_encoding::percent_decode;

use super::head;

/// The most pieces of a file name. Each is searched for among all parameters.
const PIECES_MAX: usize = 64;

/// Parameters in their order, none of their values decoded.
#[derive(Debug)]
pub(super) struct Parameters<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Parameters<'a> {
    /// The parameters of a whole field value; `None` if one is malformed, because then the others are
    /// ambiguous. A parameter without `=` is skipped.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parameters = Vec::new();
        // The kind comes before the first parameter.
        let mut rest = value.splitn(2, |b| *b == b';').nth(1).unwrap_or_default();
        loop {
            rest = rest.trim_ascii_start();
            let name_end = rest.iter().position(|b| matches!(b, b'=' | b';'));
            match name_end.map(|at| (rest[..at].trim_ascii_end(), rest[at], &rest[at + 1..])) {
                Some((name, b'=', after)) => {
                    let (value, after) = split_value(after.trim_ascii_start())?;
                    if name.is_empty() || !name.iter().all(|b| head::is_token_byte(*b)) {
                        return None;
                    }
                    parameters.push((name, value));
                    rest = after;
                }
                Some((_, _, after)) => rest = after,
                None => return Some(Self(parameters)),
            }
        }
    }

    /// The first value with this name; names ignore case.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        let has_name = |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
        let found = self.0.iter().find(|(found, _)| has_name(found));
        found.map(|(_, value)| *value)
    }

    /// The file name that these parameters of a `Content-Disposition` give, which may be empty; `None` if
    /// they give none. Of several, the one that names its encoding wins.
    ///
    /// # Errors
    /// If the only one has an unknown encoding.
    pub(super) fn file_name(&self) -> Result<Option<Vec<u8>>, Undecodable> {
        let extended = self.get("filename*").and_then(|value| {
            let mut encoded = Encoded::default();
            encoded.add_first(value).and_then(|()| encoded.decode())
        });
        let name = extended
            .or_else(|| self.continued_file_name())
            .or_else(|| self.get("filename").map(unescape));
        let is_one = |(name, _): &(&[u8], _)| name.to_ascii_lowercase().starts_with(b"filename*");
        match name {
            None if self.0.iter().any(is_one) => Err(Undecodable),
            name => Ok(name),
        }
    }

    /// A name in pieces: `filename*0="..."` or `filename*0*=UTF-8''...`, and so on (RFC 2231 section 3).
    /// Mail software writes long names like this.
    fn continued_file_name(&self) -> Option<Vec<u8>> {
        let mut encoded = Encoded::default();
        for at in 0..=PIECES_MAX {
            let plain = self.get(&format!("filename*{at}"));
            match (self.get(&format!("filename*{at}*")), plain) {
                (Some(value), _) if at == 0 => encoded.add_first(value)?,
                (Some(value), _) => encoded.bytes.extend(percent_decode(value)),
                (None, Some(value)) => encoded.bytes.extend(unescape(value)),
                (None, None) if at == 0 => return None,
                (None, None) => return encoded.decode(),
            }
        }
        None
    }
}

/// A file name in an unknown charset, or not in the charset that it names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

/// The value that `text` starts with, without its quotes, and what follows it.
fn split_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
        return Some((text[..end].trim_ascii_end(), &text[end..]));
    };
    let mut end = 0;
    while *quoted.get(end)? != b'"' {
        end += if is_escape(&quoted[end..]) { 2 } else { 1 };
    }
    let after = quoted[end + 1..].trim_ascii_start();
    let is_last = matches!(after.first(), None | Some(b';'));
    is_last.then_some((&quoted[..end], after))
}

/// Whether a backslash escapes the byte after it. Paths from browsers hold other backslashes, which stand
/// for themselves.
fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'\\', b'"' | b'\\', ..])
}

/// A quoted value without its escapes. Some senders put a backslash in front of quotes and backslashes;
/// browsers and newer programs write a quote as `%22` and line ends as `%0D` and `%0A`, and percent-encode
/// no other byte (WHATWG HTML, "Multipart form data").
fn unescape(mut value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len());
    while let Some(first) = value.first() {
        let (byte, length) = match value {
            [b'%', b'2', b'2', ..] => (b'"', 3),
            [b'%', b'0', b'D', ..] => (b'\r', 3),
            [b'%', b'0', b'A', ..] => (b'\n', 3),
            [_, escaped, ..] if is_escape(value) => (*escaped, 2),
            _ => (*first, 1),
        };
        bytes.push(byte);
        value = &value[length..];
    }
    bytes
}

/// A value in the charset that it names.
#[derive(Default)]
struct Encoded<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
}

impl<'a> Encoded<'a> {
    /// Adds `charset'language'percent-encoded`.
    fn add_first(&mut self, value: &'a [u8]) -> Option<()> {
        let mut parts = value.splitn(3, |b| *b == b'\'');
        let (charset, _, text) = (parts.next()?, parts.next()?, parts.next()?);
        self.charset = charset;
        self.bytes.extend(percent_decode(text));
        Some(())
    }

    /// The value in UTF-8, or as it is if it names no charset.
    fn decode(self) -> Option<Vec<u8>> {
        match self.charset.to_ascii_lowercase().as_slice() {
            b"" => Some(self.bytes),
            b"utf-8" | b"us-ascii" => String::from_utf8(self.bytes).ok().map(String::into_bytes),
            b"iso-8859-1" => {
                let text: String = self.bytes.into_iter().map(char::from).collect();
                Some(text.into_bytes())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parameters: &str, want: Option<&str>) {
        let value = format!("form-data; {parameters}");
        let parsed = Parameters::parse(value.as_bytes());
        let name = parsed.map(|parsed| parsed.file_name());
        let name = name.unwrap_or_else(|| panic!("malformed: {parameters}"));
        let name = name.unwrap_or_else(|_| panic!("undecodable: {parameters}"));
        let name = name.map(|name| String::from_utf8(name).unwrap());
        assert_eq!(name.as_deref(), want, "{parameters}");
    }

    #[test]
    fn parameters_are_written_in_many_ways() {
        check(r#"name="a"; filename="b.txt""#, Some("b.txt"));
        check(r#"filename="b.txt"; name="a""#, Some("b.txt"));
        check("name=a ;filename=b.txt ", Some("b.txt"));
        check(
            r#"name="a; filename=c"; FileName = "b.txt" ;"#,
            Some("b.txt"),
        );
        check(r#"odd; ; filename="b.txt""#, Some("b.txt"));
        check("name=a", None);
        check("", None);
        check(r#"name="a"; filename="""#, Some(""));
        check("filename=", Some(""));
        check(r#"filename="one"; filename="two""#, Some("one"));
    }

    #[test]
    fn a_backslash_escapes_quotes_and_backslashes_alone() {
        check(r#"filename="say \"hi\".txt""#, Some(r#"say "hi".txt"#));
        check(r#"filename="a\\b.txt""#, Some(r"a\b.txt"));
        check(r#"filename="a\\\"b.txt""#, Some(r#"a\"b.txt"#));
        check(r#"filename="a\b.txt""#, Some(r"a\b.txt"));
        check(
            r#"filename="C:\Users\me\f.txt""#,
            Some(r"C:\Users\me\f.txt"),
        );
        check(r"filename=C:\Users\me\f.txt", Some(r"C:\Users\me\f.txt"));
    }

    #[test]
    fn what_browsers_encode_is_decoded_and_nothing_else() {
        check(r#"filename="say %22hi%22.txt""#, Some(r#"say "hi".txt"#));
        check(r#"filename="a%0D%0Ab""#, Some("a\r\nb"));
        check(r#"filename="100%.txt""#, Some("100%.txt"));
        check(r#"filename="%2e%2F%0d%41%""#, Some("%2e%2F%0d%41%"));
        check(r#"filename="%2522""#, Some("%2522"));
        check(r#"filename="\\%22""#, Some(r#"\""#));
    }

    #[test]
    fn the_name_that_says_its_charset_wins() {
        check("filename*=UTF-8''na%C3%AFve%20a.txt", Some("naïve a.txt"));
        check("filename*=utf-8'en'%e2%82%ac", Some("€"));
        check("filename*=ISO-8859-1''caf%E9", Some("café"));
        check(r#"filename*="UTF-8''quoted""#, Some("quoted"));
        let word = r#"filename="=?utf-8?B?w6QudHh0?="; filename*=utf-8''%C3%A4.txt"#;
        check(word, Some("ä.txt"));
        check(
            r#"filename*=utf-8''%C3%A4.txt; filename="a.txt""#,
            Some("ä.txt"),
        );
        // What cannot be decoded is as good as missing.
        check(
            r#"filename*=utf-8''%E4.txt; filename="a.txt""#,
            Some("a.txt"),
        );
        check(r#"filename*=koi8-r''%C4; filename="a.txt""#, Some("a.txt"));
        check(r#"filename*=nothing; filename="a.txt""#, Some("a.txt"));
    }

    #[test]
    fn a_long_name_may_come_in_pieces() {
        check(r#"filename*0="a "; filename*1="b.txt""#, Some("a b.txt"));
        let split = "filename*1*=%A4; filename*0*=utf-8''%C3; filename*2=.txt; filename*4=no";
        check(split, Some("ä.txt"));
        check(r#"filename*1="b"; filename="a""#, Some("a"));
        let pieces =
            |count: usize| -> String { (0..count).map(|at| format!("filename*{at}=x;")).collect() };
        check(&pieces(PIECES_MAX), Some("x".repeat(PIECES_MAX).as_str()));
        let too_many = pieces(PIECES_MAX + 1);
        check(&format!("{too_many} filename=a"), Some("a"));
    }

    #[test]
    fn what_may_mean_many_things_means_none() {
        for malformed in [
            r#"filename="a.txt"#,
            r#"filename="a"b.txt""#,
            r#"filename="a.txt\""#,
            r#"filename="a.txt" b"#,
            r#"file name="a.txt""#,
            r#""a.txt"; filename=""b"#,
            r#"="a.txt""#,
        ] {
            let value = format!("form-data; {malformed}");
            let parsed = Parameters::parse(value.as_bytes());
            assert!(parsed.is_none(), "{malformed}: {parsed:?}");
        }
        for undecodable in [
            "filename*=koi8-r''%C4",
            "filename*=utf-8''%FF",
            "filename*=x",
            "filename*1=a",
        ] {
            let value = format!("form-data; {undecodable}");
            let parsed = Parameters::parse(value.as_bytes()).unwrap();
            assert_eq!(parsed.file_name(), Err(Undecodable), "{undecodable}");
        }
    }
}
