//! What stands in a folder: a page for people, JSON for scripts.
//!
//! `rows` are the names; `page` is what stands around them. A long list is made while it is sent.

mod rows;

use std::fmt::Write;
use std::io;
use std::mem;

use cli::escape::Escaped;
use cli::exit::with_causes;
use daemon::http::{Content, Pieces, Response, Stream};
use percent_encoding::percent_decode_str;
use proto::http::{RequestHead, Status};
use serde_json::json;

use crate::error::FilesError;
use crate::files::{Entries, Order};
use crate::page::{self, Page, UploadRules};

/// The order that a request asks for: `?sort=name|size|time`, with `&desc` the other way round.
pub(crate) fn order(request: &RequestHead) -> Order {
    let mut columns =
        parameters(request).filter_map(|one| rows::column(one.strip_prefix("sort=")?));
    Order {
        column: columns.next().unwrap_or_default(),
        // A form cannot send a name without a value.
        is_descending: parameters(request).any(|one| matches!(one, "desc" | "desc=")),
    }
}

/// The reply to a request for a folder: JSON if that was asked for, by `?json` or by `Accept`, and
/// else a page.
///
/// # Errors
/// Those of the entries.
pub(crate) fn response(
    request: &RequestHead,
    entries: Entries,
    order: Order,
    uploads: Option<UploadRules>,
) -> Result<Response, FilesError> {
    let form = match wants_json(request) {
        true => Form::Json { separator: "\n" },
        false => {
            let page = Page::new(request.path, uploads);
            Form::Page { page, order }
        }
    };
    let path = percent_decode_str(request.path).decode_utf8_lossy();
    let mut listing = Listing {
        path: path.into_owned(),
        entries,
        form,
        start: Vec::new(),
    };
    let mut start = listing.form.start(&listing.path).into_bytes();
    let has_more = listing.put_batch(&mut start)?;
    let mut response = match listing.form {
        Form::Page { .. } => page::response(Status::Ok, Vec::new()),
        Form::Json { .. } => {
            Response::new(Status::Ok, "application/json", Vec::new()).with_field("Vary", "Accept")
        }
    };
    response.body = match has_more {
        false => Content::Bytes(start),
        true => Content::Stream(Stream::new(Listing { start, ..listing })),
    };
    Ok(response)
}

fn parameters<'r>(request: &RequestHead<'r>) -> impl Iterator<Item = &'r str> {
    request.query.unwrap_or_default().split('&')
}

/// Whether the list of a folder is asked for, and not its index page: `?json`.
pub(crate) fn is_asked_for(request: &RequestHead) -> bool {
    parameters(request).any(|one| one == "json")
}

/// Whether JSON is asked for by name, and a page not rather; a browser asks for pages, and other
/// programs for anything.
fn wants_json(request: &RequestHead) -> bool {
    let json = page::quality(request, b"application/json");
    is_asked_for(request) || json > 0.0 && json >= page::quality(request, b"text/html")
}

/// What a list is written as.
enum Form {
    Page {
        page: Page,
        order: Order,
    },
    Json {
        /// What stands in front of the next element.
        separator: &'static str,
    },
}

impl Form {
    fn start(&self, path: &str) -> String {
        match self {
            Self::Page { page, order } => {
                let (start, headings) = (page.start(), rows::headings(*order));
                let way_up = if page.is_root() { "" } else { rows::WAY_UP };
                format!("{start}<table>\n{headings}{way_up}")
            }
            Self::Json { .. } => format!("{{\"path\":{},\"entries\":[", json!(path)),
        }
    }

    fn end(&self, is_complete: bool) -> String {
        match self {
            Self::Page { page, .. } => {
                let rest = if is_complete { "" } else { rows::REST };
                format!("</table>\n{rest}{}", page.end())
            }
            Self::Json { .. } => format!("\n],\"complete\":{is_complete}}}\n"),
        }
    }
}

/// A list that is being written.
struct Listing {
    /// The folder's path, decoded.
    path: String,
    entries: Entries,
    form: Form,
    /// What was written before it was known that it is not all of it.
    start: Vec<u8>,
}

impl Listing {
    /// Appends the next batch; returns whether there is another.
    fn put_batch(&mut self, out: &mut Vec<u8>) -> Result<bool, FilesError> {
        let mut text = String::new();
        for entry in self.entries.batch()? {
            match &mut self.form {
                Form::Page { .. } => text.push_str(&rows::row(&entry)),
                Form::Json { separator } => {
                    text.push_str(mem::replace(separator, ",\n"));
                    // A string takes all that is written to it.
                    let _ = write!(text, "{}", rows::element(&entry));
                }
            }
        }
        let is_at_end = self.entries.is_at_end();
        if is_at_end {
            text.push_str(&self.form.end(self.entries.is_complete()));
        }
        out.extend_from_slice(text.as_bytes());
        Ok(!is_at_end)
    }
}

impl Pieces for Listing {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if !self.start.is_empty() {
            *out = mem::take(&mut self.start);
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
    use crate::path::TreePath;

    const UPLOADS: Option<UploadRules> = Some(UploadRules {
        bytes_max: 10,
        create_only: false,
        needs_password: false,
    });

    /// What is answered to a request for a folder with these files: its type, and its text.
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
        let mut response = response(&request, entries, order, UPLOADS).unwrap();
        let text = match response.body {
            Content::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        let content_type = response.fields.remove(0).1;
        (content_type.into_owned(), String::from_utf8(text).unwrap())
    }

    #[test]
    fn the_order_is_what_was_asked_for() {
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
    fn json_is_for_who_asks() {
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
