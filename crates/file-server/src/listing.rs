//! What stands in a folder: a page for people, JSON for scripts.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::os::unix::ffi::OsStrExt;

use daemon::http::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use proto::http::{RequestHead, Status, date};
use serde_json::json;
use uuid::Uuid;

use crate::files::Entry;

/// What is escaped in a link: all but what RFC 3986 leaves unreserved.
pub(crate) const LINK_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How the entries are ordered: folders first, and then by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Size,
    Time,
}

impl Key {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Name, "name"),
        (Self::Size, "size"),
        (Self::Time, "time"),
    ];

    fn compare(self, one: &Entry, other: &Entry) -> Ordering {
        match self {
            Self::Name => one.name.cmp(&other.name),
            Self::Size => one.bytes.cmp(&other.bytes),
            Self::Time => one.modified.cmp(&other.modified),
        }
    }
}

/// The reply to a request for a folder: JSON if that was asked for, by `?json` or by `Accept`, and
/// else a page, ordered by `?sort=name|size|time`, with `&desc` the other way round.
pub(crate) fn response(
    request: &RequestHead,
    mut entries: Vec<Entry>,
    takes_uploads: bool,
) -> Response {
    let query = request.query.unwrap_or_default();
    let has = |name: &str| query.split('&').any(|part| part == name);
    let named = |(_, name): &(Key, &str)| has(&format!("sort={name}"));
    let key = Key::ALL
        .into_iter()
        .find(named)
        .map_or(Key::Name, |(key, _)| key);
    let is_descending = has("desc");
    entries.sort_by(|one, other| {
        let by_key = key.compare(one, other).then(Key::Name.compare(one, other));
        let by_key = if is_descending {
            by_key.reverse()
        } else {
            by_key
        };
        other.is_folder.cmp(&one.is_folder).then(by_key)
    });
    let path = percent_decode_str(request.path).decode_utf8_lossy();
    let response = match has("json") || accepts_json(request) {
        true => Response::new(Status::Ok, "application/json", to_json(&path, &entries)),
        false => {
            // Only the script that knows this word runs, whatever a name holds.
            let nonce = Uuid::new_v4().simple().to_string();
            let form = match takes_uploads {
                true => UPLOAD_FORM.replace("NONCE", &nonce),
                false => String::new(),
            };
            let page = to_page(&path, &entries, key, is_descending, &form);
            let response = Response::new(Status::Ok, "text/html; charset=utf-8", page);
            let policy = format!(
                "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; \
                 connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            );
            response.with_field("Content-Security-Policy", policy)
        }
    };
    response.with_field("Vary", "Accept")
}

/// Whether JSON is asked for by name; a browser asks for pages, and other programs for anything.
fn accepts_json(request: &RequestHead) -> bool {
    request.fields("accept").any(|value| {
        let mut members = value.split(|byte| *byte == b',');
        members.any(|member| {
            let kind = member.split(|byte| *byte == b';').next();
            kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
        })
    })
}

fn to_json(path: &str, entries: &[Entry]) -> String {
    let entry = |entry: &Entry| {
        json!({
            "name": entry.name.to_string_lossy(),
            "href": link(entry),
            "type": if entry.is_folder { "folder" } else { "file" },
            "bytes": if entry.is_folder { None } else { Some(entry.bytes) },
            "modified": date::format(entry.modified),
        })
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    format!("{}\n", json!({"path": path, "entries": entries}))
}

/// A link to an entry, from the page of its folder. The dot in front keeps a colon in the name from
/// ending a scheme.
fn link(entry: &Entry) -> String {
    let name = percent_encode(entry.name.as_bytes(), LINK_ESCAPES);
    let slash = if entry.is_folder { "/" } else { "" };
    format!("./{name}{slash}")
}

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:0 auto;padding:0 1em;color:#222;\
background:#fff}h1{font-size:1.2em;overflow-wrap:anywhere}table{width:100%;border-collapse:collapse}\
th,td{padding:.4em .5em;text-align:left;border-bottom:1px solid #ddd}\
td:first-child{overflow-wrap:anywhere}th:nth-child(2),td:nth-child(2){text-align:right;\
white-space:nowrap}td:nth-child(3){white-space:nowrap}a{color:#05c;text-decoration:none}a:hover{text-decoration:underline}\
@media(max-width:30em){th:nth-child(3),td:nth-child(3){display:none}}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}a{color:#7bf}\
th,td{border-color:#333}}";

/// Choose files or drop them: with scripts, one request and one progress bar for each; without, one
/// form for all.
const UPLOAD_FORM: &str = include_str!("upload.html");

fn to_page(path: &str, entries: &[Entry], key: Key, is_descending: bool, form: &str) -> String {
    let title = escape(path);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>\n<table>\n<tr>",
        breadcrumbs(path)
    );
    for (column, name) in Key::ALL {
        // A second click on a column turns the order round.
        let (order, arrow) = match (column == key, is_descending) {
            (true, false) => ("&amp;desc", " \u{2191}"),
            (true, true) => ("", " \u{2193}"),
            (false, _) => ("", ""),
        };
        page.push_str(&format!(
            "<th><a href=\"?sort={name}{order}\">{}{arrow}</a></th>",
            if column == Key::Time {
                "time (UTC)"
            } else {
                name
            }
        ));
    }
    page.push_str("</tr>\n");
    if !path.trim_matches('/').is_empty() {
        page.push_str("<tr><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n");
    }
    for entry in entries {
        let name = entry.name.to_string_lossy();
        let (slash, size) = match entry.is_folder {
            true => ("/", String::new()),
            false => ("", size(entry.bytes)),
        };
        page.push_str(&format!(
            "<tr><td><a href=\"{}\">{}{slash}</a></td><td>{size}</td><td>{}</td></tr>\n",
            link(entry),
            escape(&name),
            date::format_short(entry.modified)
        ));
    }
    page.push_str("</table>\n");
    page.push_str(form);
    page.push_str("</body>\n</html>\n");
    page
}

/// The path as links to every folder on the way to it.
fn breadcrumbs(path: &str) -> String {
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut crumbs = match names.len() {
        0 => "/".to_owned(),
        depth => format!("<a href=\"{}\">/</a>", "../".repeat(depth)),
    };
    for (at, name) in names.iter().enumerate() {
        let name = escape(name);
        crumbs.push_str(&match names.len() - 1 - at {
            0 => format!("{name}/"),
            up => format!("<a href=\"{}\">{name}/</a>", "../".repeat(up)),
        });
    }
    crumbs
}

/// A length as people read it: `999 B`, `4.4 KB`, `10 MB`.
fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KB", "MB", "GB", "TB"] {
        match size < 999.5 || unit == "TB" {
            true if unit == "B" || size >= 9.95 => return format!("{size:.0} {unit}"),
            true => return format!("{size:.1} {unit}"),
            false => size /= 1000.0,
        }
    }
    String::new()
}

/// Text as it stands in a page, between tags or quotes.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return text.into();
    }
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use daemon::http::Content;

    use super::*;

    fn entry(name: &str, bytes: u64, modified: u64, is_folder: bool) -> Entry {
        Entry {
            name: name.into(),
            is_folder,
            bytes,
            modified,
        }
    }

    fn entries() -> Vec<Entry> {
        vec![
            entry("b", 1, 9, false),
            entry("a", 2, 8, false),
            entry("c", 3, 7, false),
            entry("z", 0, 5, true),
        ]
    }

    fn listed(target: &str, accept: &str, entries: Vec<Entry>) -> (String, String) {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let response = response(&request, entries, true);
        match response.body {
            Content::Bytes(bytes) => (
                response.fields[0].1.to_string(),
                String::from_utf8(bytes).unwrap(),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check_order(query: &str, want: &str) {
        let (_, json) = listed(&format!("/{query}"), "application/json", entries());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let entries = json["entries"].as_array().unwrap();
        let names: String = entries
            .iter()
            .map(|e| e["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, want, "{query}");
    }

    #[test]
    fn folders_come_first_and_the_rest_as_asked() {
        check_order("", "zabc");
        check_order("?sort=size", "zbac");
        check_order("?sort=time", "zcab");
        check_order("?sort=size&desc", "zcab");
        check_order("?sort=mood", "zabc");
    }

    #[test]
    fn json_is_for_who_asks() {
        for (target, accept, want) in [
            ("/", "text/html", "text/html; charset=utf-8"),
            ("/", "*/*", "text/html; charset=utf-8"),
            ("/?json", "*/*", "application/json"),
            ("/", "text/csv, Application/JSON;q=0.5", "application/json"),
        ] {
            assert_eq!(
                listed(target, accept, entries()).0,
                want,
                "{target} {accept}"
            );
        }
        let (_, json) = listed("/a%20b/?json", "*/*", vec![entry("x:<y>", 5, 0, false)]);
        assert_eq!(
            json,
            "{\"entries\":[{\"bytes\":5,\"href\":\"./x%3A%3Cy%3E\",\
             \"modified\":\"Thu, 01 Jan 1970 00:00:00 GMT\",\"name\":\"x:<y>\",\
             \"type\":\"file\"}],\"path\":\"/a b/\"}\n"
        );
    }

    #[test]
    fn no_name_becomes_markup() {
        let evil = "<script>alert(\"1\")</script>&'.txt";
        let target = "/%3Cb%3E%22/";
        let (_, page) = listed(target, "text/html", vec![entry(evil, 1, 0, false)]);
        assert_eq!(page.matches("<script").count(), 1, "ours: {page}");
        assert!(!page.contains("<b>"), "{page}");
        assert!(
            page.contains("&lt;script&gt;alert(&quot;1&quot;)"),
            "{page}"
        );
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KB"),
            (4505, "4.5 KB"),
            (10_000, "10 KB"),
            (999_999, "1.0 MB"),
            (5_000_000_000, "5.0 GB"),
        ] {
            assert_eq!(size(bytes), want);
        }
    }

    #[test]
    fn the_way_back() {
        assert_eq!(breadcrumbs("/"), "/");
        assert_eq!(
            breadcrumbs("/a/b/"),
            "<a href=\"../../\">/</a><a href=\"../\">a/</a>b/"
        );
    }
}
