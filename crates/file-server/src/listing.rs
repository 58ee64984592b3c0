//! The list of a folder: a page for people, JSON for scripts.
//!
//! `rows` writes the entries, `page` the frame around them. A long list is made while it is sent.

mod rows;

use std::fmt::Write;
use std::io;
use std::mem;

use cli::escape::Escaped;
use cli::exit::with_causes;
use daemon::http::page::quality;
use daemon::http::{Content, PieceStream, Pieces, Response};
use percent_encoding::percent_decode_str;
use proto::http::{RequestHead, Status};
use serde_json::json;

use crate::error::FilesError;
use crate::files::{Entries, Order};
use crate::page::{self, Offers};

/// The order that a request asks for: `?sort=name|size|time`, and `&desc` for descending.
pub(crate) fn order(request: &RequestHead) -> Order {
    let mut columns =
        parameters(request).filter_map(|one| rows::column(one.strip_prefix("sort=")?));
    Order {
        column: columns.next().unwrap_or_default(),
        // A form cannot send a name without a value.
        is_descending: parameters(request).any(|one| matches!(one, "desc" | "desc=")),
    }
}

/// The reply to a request for a folder: JSON for `?json` or `Accept: application/json`, otherwise a
/// page.
///
/// # Errors
/// Those of the entries.
pub(crate) fn response(
    request: &RequestHead,
    entries: Entries,
    order: Order,
    offers: Offers,
) -> Result<Response, FilesError> {
    let path = percent_decode_str(request.path).decode_utf8_lossy();
    let (format, start, mut response) = match wants_json(request) {
        true => {
            let start = format!("{{\"path\":{},\"entries\":[", json!(path));
            let response = Response::new(Status::Ok, "application/json", Vec::new());
            let response = response.with_field("Vary", "Accept");
            (Format::Json { separator: "\n" }, start, response)
        }
        false => {
            let start = page::folder_start(request.path, offers);
            let headings = rows::headings(order);
            let way_up = match page::is_root(request.path) {
                true => "",
                false => rows::WAY_UP,
            };
            let start = format!("{start}<table>\n{headings}{way_up}");
            (Format::Page, start, page::response(Status::Ok, Vec::new()))
        }
    };
    let mut listing = Listing {
        path: path.into_owned(),
        entries,
        format,
        first: Vec::new(),
    };
    let mut first = start.into_bytes();
    response.body = match listing.put_batch(&mut first)? {
        false => Content::Bytes(first),
        true => Content::Stream(PieceStream::new(Listing { first, ..listing })),
    };
    Ok(response)
}

fn parameters<'r>(request: &RequestHead<'r>) -> impl Iterator<Item = &'r str> {
    request.query.unwrap_or_default().split('&')
}

/// Whether the request asks for the list, even if there is an index page: `?json`.
pub(crate) fn is_asked_for(request: &RequestHead) -> bool {
    parameters(request).any(|one| one == "json")
}

/// Whether the request prefers JSON, by name, to a page. A browser asks for pages, and other programs
/// accept anything.
fn wants_json(request: &RequestHead) -> bool {
    let json = quality(request, b"application/json");
    is_asked_for(request) || json > 0.0 && json >= quality(request, b"text/html")
}

/// The format of a list.
enum Format {
    Page,
    Json {
        /// The text before the next element.
        separator: &'static str,
    },
}

/// A list that is being sent.
struct Listing {
    /// The folder's path, decoded.
    path: String,
    entries: Entries,
    format: Format,
    /// The first piece, which was made before the reply's head.
    first: Vec<u8>,
}

impl Listing {
    /// Appends the next batch; returns whether there is another.
    fn put_batch(&mut self, out: &mut Vec<u8>) -> Result<bool, FilesError> {
        let mut text = String::new();
        for entry in self.entries.batch()? {
            match &mut self.format {
                Format::Page => text.push_str(&rows::row(&entry)),
                Format::Json { separator } => {
                    text.push_str(mem::replace(separator, ",\n"));
                    // A string takes all that is written to it.
                    let _ = write!(text, "{}", rows::element(&entry));
                }
            }
        }
        let is_at_end = self.entries.is_at_end();
        if is_at_end {
            let is_complete = self.entries.is_complete();
            text.push_str(&match self.format {
                Format::Page if is_complete => format!("</table>\n{}", page::END),
                Format::Page => format!("</table>\n{}{}", rows::REST, page::END),
                Format::Json { .. } => format!("\n],\"complete\":{is_complete}}}\n"),
            });
        }
        out.extend_from_slice(text.as_bytes());
        Ok(!is_at_end)
    }
}

impl Pieces for Listing {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if !self.first.is_empty() {
            *out = mem::take(&mut self.first);
            return Ok(true);
        }
        self.put_batch(out).map_err(|error| {
            let path = Escaped(&self.path);
            log::warn!("The list of {path} ends early: {}", with_causes(&error));
            io::Error::other(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::files::{Column, Files};
    use crate::page::UploadRules;
    use crate::path::TreePath;

    const OFFERS: Offers = Offers {
        archives: true,
        uploads: Some(UploadRules {
            bytes_max: 10,
            create_only: false,
            needs_password: false,
        }),
    };

    /// The type and the text of the reply to a request for a folder with these files.
    fn listed(target: &str, accept: &str, names: &[&str]) -> (String, String) {
        let root = tempfile::tempdir().unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let path = TreePath::decode(request.path).unwrap();
        let folder = root.path().join(path.as_path());
        fs::create_dir_all(&folder).unwrap();
        for name in names {
            let file = fs::File::create(folder.join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let files = Arc::new(Files::open(root.path(), 0, Duration::ZERO).unwrap());
        let order = order(&request);
        let entries = files.list(&path, order).unwrap();
        let mut response = response(&request, entries, order, OFFERS).unwrap();
        let text = match response.body {
            Content::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        let content_type = response.fields.remove(0).1;
        (content_type.into_owned(), String::from_utf8(text).unwrap())
    }

    #[test]
    fn the_order_is_the_one_of_the_request() {
        for (query, column, is_descending) in [
            ("", Column::Name, false),
            ("?sort=size", Column::Size, false),
            ("?sort=time&desc", Column::Time, true),
            ("?desc=&sort=name", Column::Name, true),
            ("?sort=mood", Column::Name, false),
        ] {
            let head = format!("GET /{query} HTTP/1.1\r\nHost: h\r\n\r\n");
            let order = order(&RequestHead::parse(head.as_bytes()).unwrap());
            let want = Order {
                column,
                is_descending,
            };
            assert_eq!(order, want, "{query}");
        }
    }

    #[test]
    fn json_is_for_requests_that_prefer_it() {
        const PAGE: &str = "text/html; charset=utf-8";
        for (target, accept, want) in [
            ("/", "text/html", PAGE),
            ("/", "*/*", PAGE),
            ("/?json", "*/*", "application/json"),
            ("/", "text/csv, Application/JSON;q=0.5", "application/json"),
            ("/", "application/json, text/html;q=0.9", "application/json"),
            ("/", "application/json, text/html", "application/json"),
            ("/", "application/json; q=0.9, text/html", PAGE),
            ("/", "application/json;q=0", PAGE),
            ("/", "application/json;q=inf, text/html", PAGE),
        ] {
            assert_eq!(listed(target, accept, &["a"]).0, want, "{target} {accept}");
        }
        let (_, json) = listed("/a%20b/?json", "*/*", &["x:<y>", "z"]);
        let entry = |href: &str, name: &str| {
            format!(
                "{{\"bytes\":0,\"href\":\"./{href}\",\"modified\":\"Thu, 01 Jan 1970 00:00:00 GMT\",\
                 \"name\":\"{name}\",\"type\":\"file\"}}"
            )
        };
        let (one, other) = (entry("x%3A%3Cy%3E", "x:<y>"), entry("z", "z"));
        assert_eq!(
            json,
            format!("{{\"path\":\"/a b/\",\"entries\":[\n{one},\n{other}\n],\"complete\":true}}\n")
        );
        let (_, json) = listed("/?json", "*/*", &[]);
        assert_eq!(
            json,
            "{\"path\":\"/\",\"entries\":[\n],\"complete\":true}\n"
        );
    }

    #[test]
    fn no_name_becomes_markup() {
        let evil = "<script>alert(\"1\")<\\script>&'.txt";
        let (_, page) = listed("/%3Cb%3E%22/", "text/html", &[evil]);
        assert_eq!(page.matches("<script").count(), 1, "ours: {page}");
        assert!(!page.contains("<b>"), "{page}");
        assert!(
            page.contains("&lt;script&gt;alert(&quot;1&quot;)"),
            "{page}"
        );
    }

    #[test]
    fn one_link_leads_to_an_entry_and_none_to_the_folder_itself() {
        let (_, page) = listed("/a/?sort=size", "text/html", &["x"]);
        let targets = page.split("href=\"").skip(1);
        let targets: Vec<_> = targets.filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(targets, ["../", "../", "./x"], "{page}");
    }
}
