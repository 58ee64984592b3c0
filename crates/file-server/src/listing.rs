//! The list of a folder: a page for people, JSON for scripts.
//!
//! `query` reads what a request asks for, `rows` writes the entries, and `page` the frame around them. A
//! list is made while it is sent.

mod query;
mod rows;

use std::fmt::Write;
use std::io;
use std::mem;

use cli::escape::Escaped;
use cli::exit::with_causes;
use daemon::http::{Content, PieceStream, Pieces, Response};
use percent_encoding::percent_decode_str;
use proto::http::{Refusal, RequestHead, Status};
use serde_json::json;

use crate::error::FilesError;
use crate::files::{Entries, PAGE_ENTRIES};
use crate::page::{self, FolderPage, Frame, Offers, Pager, grouped};

pub(crate) use query::{Query, is_asked_for};

/// The links to the other pages of a list, if there are any.
fn pager(entries: &Entries, query: &Query) -> Option<Pager> {
    let (page, names) = (entries.page()?, entries.names());
    let last = names.div_ceil(PAGE_ENTRIES);
    let link = |page| query.link(page);
    let (first_name, last_name) = ((page - 1) * PAGE_ENTRIES + 1, page * PAGE_ENTRIES);
    (last > 1).then(|| Pager {
        before: (page > 1).then(|| (link(1), link(page - 1))),
        range: format!(
            "{} to {} of {}",
            grouped(first_name),
            grouped(last_name.min(names)),
            grouped(names)
        ),
        behind: (page < last).then(|| (link(page + 1), link(last))),
    })
}

/// The reply to a request for a folder: JSON or a page.
///
/// # Errors
/// Those of the entries.
pub(crate) fn response(
    request: &RequestHead,
    entries: Entries,
    query: &Query,
    offers: Offers,
) -> Result<Response, Refusal> {
    let (mut listing, mut response) = begin(request, entries, query, offers)?;
    let mut first = mem::take(&mut listing.first);
    response.body = match listing.put_batch(&mut first)? {
        false => Content::Bytes(first),
        true => Content::Stream(PieceStream::new(Listing { first, ..listing })),
    };
    Ok(response)
}

/// A list up to its first entry, and the reply that it is the body of.
fn begin(
    request: &RequestHead,
    entries: Entries,
    query: &Query,
    offers: Offers,
) -> Result<(Listing, Response), Refusal> {
    let path = percent_decode_str(request.path).decode_utf8_lossy();
    let (format, start, response) = match query.is_json {
        true => {
            let start = format!("{{\"path\":{},\"entries\":[", json!(path));
            let response = Response::new(Status::Ok, "application/json", Vec::new());
            let response = response.with_field("Vary", "Accept");
            (Format::Json { separator: "\n" }, start, response)
        }
        false => {
            let is_start = query.search.is_empty() && entries.page() == Some(1);
            let page = FolderPage {
                frame: Frame::of_folder(request.path),
                offers,
                search: &query.search,
                sort: query.sort(),
                is_descending: query.order.is_descending,
                headings: rows::headings(query),
                names: entries.names(),
                all: query.without_search().link(1),
                has_way_up: is_start && !page::is_root(request.path),
                pager: pager(&entries, query),
                is_complete: entries.is_complete(),
            };
            let (start, end) = page.parts()?;
            let response = page::response(Status::Ok, Vec::new());
            (Format::Page { end }, start, response)
        }
    };
    let listing = Listing {
        path: path.into_owned(),
        entries,
        format,
        first: start.into_bytes(),
    };
    Ok((listing, response))
}

/// The format of a list.
enum Format {
    Page {
        /// The page behind the rows.
        end: String,
    },
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
                Format::Page { .. } => rows::put_row(&entry, &mut text),
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
            match &self.format {
                Format::Page { end } => text.push_str(end),
                Format::Json { .. } => {
                    let end = format!("\n],\"complete\":{is_complete}}}\n");
                    text.push_str(&end);
                }
            }
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
    use crate::files::Files;
    use crate::page::UploadRules;
    use crate::path::TreePath;

    const OFFERS: Offers = Offers {
        archives: true,
        manage: false,
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
        let query = Query::of(&request);
        let entries = files.list(&path, query.selection()).unwrap();
        let (mut listing, mut response) = begin(&request, entries, &query, OFFERS).unwrap();
        let (mut text, mut piece, mut has_more) = (Vec::new(), Vec::new(), true);
        while has_more {
            has_more = listing.next(&mut piece).unwrap();
            text.append(&mut piece);
        }
        let content_type = response.fields.remove(0).1;
        (content_type.into_owned(), String::from_utf8(text).unwrap())
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
            page.contains("&#60;script&#62;alert(&#34;1&#34;)"),
            "{page}"
        );
    }

    #[test]
    fn one_link_leads_to_an_entry_and_none_to_the_folder_itself() {
        let (_, page) = listed("/a/?sort=size", "text/html", &["x"]);
        let targets = page.split("<a href=\"").skip(1);
        let targets: Vec<_> = targets.filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(targets, ["../", "../", "./x"], "{page}");
    }

    #[test]
    fn a_search_is_shown_as_it_was_typed() {
        let (_, page) = listed(
            "/?search=%22%3CB%3E+%C3%84&sort=size",
            "text/html",
            &["ä", "\"<b> ä"],
        );
        assert!(page.contains("value=\"&#34;&#60;B&#62; Ä\""), "{page}");
        assert!(
            page.contains("1 name contains “&#34;&#60;B&#62; Ä”"),
            "{page}"
        );
        assert!(page.contains("href=\"./?sort=size\">Show all"), "{page}");
        assert_eq!(
            page.matches("<tr>").count(),
            2,
            "the heading and one name: {page}"
        );
        let (_, page) = listed("/a/?search=y", "text/html", &["x"]);
        assert!(page.contains("No name contains “y”"), "{page}");
        let (_, json) = listed("/?json&search=Y", "*/*", &["x", "y"]);
        assert!(json.contains("\"y\"") && !json.contains("\"x\""), "{json}");
    }

    #[test]
    fn a_long_list_has_pages_and_its_json_none() {
        let names: Vec<_> = (0..2001).map(|number| format!("{number:04}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let links = |page: &str| -> Vec<String> {
            let pages = page.split("<nav class=\"pages\"").nth(1).unwrap();
            let links = pages.split("href=\"").skip(1);
            links
                .filter_map(|rest| Some(rest.split('"').next()?.to_owned()))
                .collect()
        };
        let (_, page) = listed("/?desc", "text/html", &names);
        assert_eq!(page.matches("<tr>").count(), 1001);
        assert!(page.contains("1 to 1,000 of 2,001") && page.contains("./2000"));
        assert_eq!(links(&page), ["./?desc&#38;page=2", "./?desc&#38;page=3"]);
        let (_, page) = listed("/?desc&page=2", "text/html", &names);
        let ends = [
            "./?desc",
            "./?desc",
            "./?desc&#38;page=3",
            "./?desc&#38;page=3",
        ];
        assert_eq!(links(&page), ends);
        let (_, page) = listed("/?page=3", "text/html", &names);
        assert_eq!(page.matches("<tr>").count(), 2);
        assert!(page.contains("2,001 to 2,001 of 2,001") && page.ends_with("</html>\n"));
        assert_eq!(links(&page), ["./", "./?page=2"]);
        let (_, json) = listed("/?json&page=2", "text/html", &names);
        assert_eq!(json.matches("\"href\"").count(), 2001);
    }
}
