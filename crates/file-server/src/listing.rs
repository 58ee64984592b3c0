//! What stands in a folder: a page for people, JSON for scripts.
//!
//! `rows` are the names; `page` is what stands around them.

mod rows;

use std::cmp::Ordering;

use daemon::http::Response;
use percent_encoding::percent_decode_str;
use proto::http::{RequestHead, Status};
use serde_json::json;

use crate::files::Entry;
use crate::page::{self, Page, UploadRules};

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
    uploads: Option<UploadRules>,
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
    match has("json") || page::accepts(request, b"application/json") {
        true => {
            let text = to_json(&path, &entries);
            Response::new(Status::Ok, "application/json", text).with_field("Vary", "Accept")
        }
        false => {
            let page = Page::new(request.path, uploads);
            let text = to_page(&page, &entries, key, is_descending);
            page::response(Status::Ok, text)
        }
    }
}

fn to_json(path: &str, entries: &[Entry]) -> String {
    let entries: Vec<_> = entries.iter().map(rows::element).collect();
    format!("{}\n", json!({"path": path, "entries": entries}))
}

fn to_page(page: &Page, entries: &[Entry], key: Key, is_descending: bool) -> String {
    let mut text = page.start();
    text.push_str("<table>\n<tr>");
    for (column, name) in Key::ALL {
        // A second click on a column turns the order round.
        let (order, arrow) = match (column == key, is_descending) {
            (true, false) => ("&amp;desc", " \u{2191}"),
            (true, true) => ("", " \u{2193}"),
            (false, _) => ("", ""),
        };
        text.push_str(&format!(
            "<th><a href=\"?sort={name}{order}\">{}{arrow}</a></th>",
            if column == Key::Time {
                "time (UTC)"
            } else {
                name
            }
        ));
    }
    text.push_str("</tr>\n");
    if !page.is_root() {
        text.push_str("<tr><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n");
    }
    text.extend(entries.iter().map(rows::row));
    text.push_str("</table>\n");
    text.push_str(page.end());
    text
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

    const UPLOADS: Option<UploadRules> = Some(UploadRules { bytes_max: 10 });

    fn listed(target: &str, accept: &str, entries: Vec<Entry>) -> (String, String) {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let response = response(&request, entries, UPLOADS);
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
}
