//! Conditional requests (RFC 9110 section 13): "only if I do not have it yet", "only if it is still
//! what I saw".

use super::date;
use super::request::RequestHead;

/// What tells one version of a file from another: its validators (RFC 9110 section 8.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// A strong entity tag, with its quotes.
    pub etag: String,
    /// When it was last changed, in seconds since 1970.
    pub modified: u64,
}

/// What ends the opaque part of the entity tag of a compressed form.
const GZIP: &[u8] = b"-gzip\"";

impl Version {
    /// The same version compressed by gzip: its bytes are others, so it has another entity tag (RFC 9110
    /// section 8.8.3.3).
    pub fn gzip(&self) -> Self {
        let opaque = self.etag.trim_end_matches('"');
        Self {
            etag: format!("{opaque}-gzip\""),
            modified: self.modified,
        }
    }
}

/// The result of a request's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Carry out the request.
    Go,
    /// The client has this version already (304).
    NotModified,
    /// The file is not the version that the client expects (412).
    Failed,
}

/// Evaluates the conditions of a request, in the order of RFC 9110 section 13.2.2. `current` is the
/// version that exists, if there is one.
pub fn judge(request: &RequestHead, current: Option<&Version>) -> Verdict {
    if !request.has_conditions() {
        return Verdict::Go;
    }
    let is_read = matches!(request.method, "GET" | "HEAD");
    let etag = current.map(|version| version.etag.as_str());
    // A write is to the file, whichever form of it the client has seen.
    let of_form = if is_read { whole } else { without_form };
    if request.has("if-match") {
        let is_same = |one: &[u8], other: &[u8]| is_same_strong(of_form(one), of_form(other));
        if !matches_any(request, "if-match", etag, is_same) {
            return Verdict::Failed;
        }
    } else if let (Some(since), Some(version)) = (date_of(request, "if-unmodified-since"), current)
        && version.modified > since
    {
        return Verdict::Failed;
    }
    if request.has("if-none-match") {
        let is_same = |one: &[u8], other: &[u8]| is_same_weak(of_form(one), of_form(other));
        return match matches_any(request, "if-none-match", etag, is_same) {
            true if is_read => Verdict::NotModified,
            true => Verdict::Failed,
            false => Verdict::Go,
        };
    }
    match (date_of(request, "if-modified-since"), current) {
        (Some(since), Some(version)) if is_read && version.modified <= since => {
            Verdict::NotModified
        }
        _ => Verdict::Go,
    }
}

/// How old a date must be to tell two versions apart, in seconds: within the second that it names there
/// may have been several versions (RFC 9110 section 8.8.2.2).
const STRONG_DATE_AGE_SECS: u64 = 60;

/// Whether a `Range` refers to the current version: `If-Range` says so, or is missing. The comparison is
/// strong, because parts of two versions make no file (RFC 9110 section 13.1.5). `now` is in seconds
/// since 1970.
pub fn range_is_current(request: &RequestHead, current: &Version, now: u64) -> bool {
    match request.single("if-range") {
        Some(tag @ ([b'"', ..] | [b'W', b'/', ..])) => is_same_strong(tag, current.etag.as_bytes()),
        Some(value) => {
            parse_date(value) == Some(current.modified)
                && current.modified.saturating_add(STRONG_DATE_AGE_SECS) <= now
        }
        // Several count as one that does not match.
        None => !request.has("if-range"),
    }
}

fn date_of(request: &RequestHead, name: &str) -> Option<u64> {
    parse_date(request.single(name)?)
}

fn parse_date(value: &[u8]) -> Option<u64> {
    date::parse(std::str::from_utf8(value).ok()?)
}

/// Whether one of the entity tags in a field is that of the current version; `*` matches any version.
fn matches_any(
    request: &RequestHead,
    name: &str,
    current: Option<&str>,
    is_same: impl Fn(&[u8], &[u8]) -> bool,
) -> bool {
    let Some(current) = current else {
        return false;
    };
    request
        .fields(name)
        .any(|value| value == b"*" || tags(value).any(|tag| is_same(tag, current.as_bytes())))
}

/// The entity tags of a list. A comma may stand inside a tag. Anything else than a tag ends the list.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        list = list.trim_ascii_start();
        while let [b',', rest @ ..] = list {
            list = rest.trim_ascii_start();
        }
        let quote = if list.starts_with(b"W/") { 2 } else { 0 };
        if list.get(quote) != Some(&b'"') {
            return None;
        }
        let end = list[quote + 1..].iter().position(|byte| *byte == b'"')?;
        let (tag, rest) = list.split_at(quote + end + 2);
        list = rest;
        Some(tag)
    })
}

fn whole(tag: &[u8]) -> &[u8] {
    tag
}

/// The part of a tag that all forms of a version share.
fn without_form(tag: &[u8]) -> &[u8] {
    let plain = || tag.strip_suffix(b"\"");
    tag.strip_suffix(GZIP).or_else(plain).unwrap_or(tag)
}

fn is_same_strong(one: &[u8], other: &[u8]) -> bool {
    one == other && !one.starts_with(b"W/")
}

fn is_same_weak(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    opaque(one) == opaque(other)
}

#[cfg(test)]
mod tests {
    use super::Verdict::*;
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn current() -> Version {
        Version {
            etag: "\"a,b\"".to_owned(),
            modified: 784_111_777,
        }
    }

    fn with_request<R>(method: &str, fields: &str, look: impl FnOnce(&RequestHead) -> R) -> R {
        let head = format!("{method} / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        look(&RequestHead::parse(head.as_bytes()).unwrap())
    }

    #[track_caller]
    fn check(method: &str, fields: &str, there: bool, want: Verdict) {
        let current = there.then(current);
        let verdict = with_request(method, fields, |request| judge(request, current.as_ref()));
        assert_eq!(verdict, want, "{method} {fields:?}");
    }

    #[test]
    fn only_if_i_do_not_have_it() {
        check("GET", "", true, Go);
        check("GET", "If-None-Match: \"a,b\"\r\n", true, NotModified);
        check("HEAD", "If-None-Match: W/\"a,b\"\r\n", true, NotModified);
        check(
            "GET",
            "If-None-Match: \"x\" , ,\"a,b\"\r\n",
            true,
            NotModified,
        );
        check("GET", "If-None-Match: \"a\", b\"\r\n", true, Go);
        check("GET", "If-None-Match: *\r\n", true, NotModified);
        check("GET", "If-None-Match: *\r\n", false, Go);
        check(
            "GET",
            &format!("If-Modified-Since: {DATE}\r\n"),
            true,
            NotModified,
        );
        check(
            "GET",
            &format!("If-Modified-Since: {LATER}\r\n"),
            true,
            NotModified,
        );
        check(
            "GET",
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
            true,
            Go,
        );
        check("GET", "If-Modified-Since: never\r\n", true, Go);
        // The date counts only without a tag.
        let both = format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {DATE}\r\n");
        check("GET", &both, true, Go);
    }

    #[test]
    fn only_if_it_is_still_what_i_saw() {
        check("PUT", "If-Match: \"a,b\"\r\n", true, Go);
        check("PUT", "If-Match: W/\"a,b\"\r\n", true, Failed);
        check("PUT", "If-Match: *\r\n", true, Go);
        check("PUT", "If-Match: *\r\n", false, Failed);
        check("PUT", "If-Match: \"x\"\r\n", true, Failed);
        check("PUT", "If-None-Match: *\r\n", true, Failed);
        check("PUT", "If-None-Match: *\r\n", false, Go);
        check("PUT", &format!("If-Unmodified-Since: {DATE}\r\n"), true, Go);
        let before = "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n";
        check("GET", before, true, Failed);
        check("PUT", &format!("If-Modified-Since: {DATE}\r\n"), true, Go);
    }

    #[test]
    fn a_compressed_form_has_a_tag_of_its_own_for_readers_alone() {
        let gzip = current().gzip();
        assert_eq!(gzip.etag, "\"a,b-gzip\"");
        check("GET", "If-None-Match: \"a,b-gzip\"\r\n", true, Go);
        check("GET", "If-Match: \"a,b-gzip\"\r\n", true, Failed);
        check("PUT", "If-Match: \"a,b-gzip\"\r\n", true, Go);
        check("PUT", "If-Match: W/\"a,b-gzip\"\r\n", true, Failed);
        check("PUT", "If-Match: \"a,b-gzip-gzip\"\r\n", true, Failed);
        check("PUT", "If-None-Match: \"a,b-gzip\"\r\n", true, Failed);
        let of_gzip =
            |fields: &str| with_request("GET", fields, |request| judge(request, Some(&gzip)));
        let both = "If-None-Match: \"a,b\", \"a,b-gzip\"\r\n";
        assert_eq!(of_gzip(both), NotModified);
        assert_eq!(of_gzip("If-None-Match: \"a,b\"\r\n"), Go);
    }

    #[test]
    fn a_range_goes_with_its_version() {
        let check_at = |now, fields: &str, want| {
            let is_current = with_request("GET", fields, |request| {
                range_is_current(request, &current(), now)
            });
            assert_eq!(is_current, want, "{fields:?} at {now}");
        };
        let modified = current().modified;
        let check = |fields: &str, want| check_at(modified + 60, fields, want);
        check("", true);
        check("If-Range: \"a,b\"\r\n", true);
        check("If-Range: W/\"a,b\"\r\n", false);
        check("If-Range: \"x\"\r\n", false);
        check(&format!("If-Range: {DATE}\r\n"), true);
        check(&format!("If-Range: {LATER}\r\n"), false);
        // There may have been another version within the same second.
        for now in [modified - 1, modified, modified + 59] {
            check_at(now, &format!("If-Range: {DATE}\r\n"), false);
            check_at(now, "If-Range: \"a,b\"\r\n", true);
        }
    }
}
