//! The pages for people: a folder's list with what the folder offers, and refusals.
//!
//! A page works without the script. A browser runs no other script and follows no other style, whatever
//! a file's name holds: the policy that is sent along has their digests.

mod picture;

use std::sync::LazyLock;

use askama::Template;
use base64::prelude::{BASE64_STANDARD, Engine};
use daemon::http::Response;
use daemon::http::page::STYLE;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};
use proto::http::{Refusal, RequestHead, Status};
use sha2::{Digest, Sha256};

use crate::files::ENTRIES_MAX;

pub(crate) use picture::picture;

/// The style of what other servers' pages do not have.
const OWN_STYLE: &str = include_str!("page/style.css");

/// The script: one scope for all of its files.
const SCRIPT: &str = concat!(
    "\"use strict\";\n{\n",
    include_str!("page/list.js"),
    include_str!("page/transfer.js"),
    include_str!("page/upload.js"),
    include_str!("page/choose.js"),
    include_str!("page/manage.js"),
    "}\n"
);

/// The bytes that are escaped in a link: all but the unreserved ones of RFC 3986.
pub(crate) const LINK_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where the rows go. No name and no path has it.
const ROWS: char = '\0';

const _: () = assert!(ENTRIES_MAX == 100_000, "templates/folder.html says 100,000");

/// The `Content-Security-Policy` of every page.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}' 'sha256-{}'; script-src 'sha256-{}'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        digest(STYLE),
        digest(OWN_STYLE),
        digest(SCRIPT)
    )
});

/// The rules for uploads that the form shows and checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadRules {
    /// The largest upload, in bytes.
    pub(crate) bytes_max: u64,
    /// Whether uploads replace no file.
    pub(crate) create_only: bool,
    /// Whether uploads need a user and a password.
    pub(crate) needs_password: bool,
}

/// What the page of a folder offers beside its list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offers {
    /// Archives of the folder.
    pub(crate) archives: bool,
    /// New folders, renaming and deleting.
    pub(crate) manage: bool,
    /// Uploads, by these rules.
    pub(crate) uploads: Option<UploadRules>,
}

/// What every page has.
pub(crate) struct Frame {
    title: String,
    crumbs: Vec<Crumb>,
}

/// A name of a path, with a link to the folder if it is above the page.
struct Crumb {
    name: String,
    link: Option<String>,
}

/// The heading of a column. It orders the list by the column, and if the list is, it reverses the order.
pub(crate) struct Heading {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) is_ascending: bool,
    pub(crate) is_descending: bool,
}

/// The links to the other pages of a list.
pub(crate) struct Pager {
    /// Those to the first page and to the one before.
    pub(crate) before: Option<(String, String)>,
    /// Which names are on this page.
    pub(crate) range: String,
    /// Those to the next page and to the last.
    pub(crate) behind: Option<(String, String)>,
}

/// A folder's page without the rows of its list.
#[derive(Template)]
#[template(path = "folder.html")]
pub(crate) struct FolderPage<'a> {
    pub(crate) frame: Frame,
    pub(crate) offers: Offers,
    pub(crate) search: &'a str,
    /// The column in which the list is not ordered by default.
    pub(crate) sort: Option<&'static str>,
    pub(crate) is_descending: bool,
    pub(crate) headings: Vec<Heading>,
    /// How many names were found, on all pages.
    pub(crate) names: usize,
    /// The link to the same list without the search.
    pub(crate) all: String,
    pub(crate) has_way_up: bool,
    /// The links to other pages of the list, if there are any.
    pub(crate) pager: Option<Pager>,
    pub(crate) is_complete: bool,
}

#[derive(Template)]
#[template(path = "refused.html")]
struct Refused<'a> {
    frame: Frame,
    sentence: &'a str,
    folder: Option<String>,
}

impl Frame {
    /// That of a folder's page.
    pub(crate) fn of_folder(path: &str) -> Self {
        Self {
            title: percent_decode_str(path).decode_utf8_lossy().into_owned(),
            crumbs: crumbs(path),
        }
    }

    fn styles(&self) -> [&'static str; 2] {
        [STYLE, OWN_STYLE]
    }

    fn script(&self) -> &'static str {
        SCRIPT
    }
}

impl FolderPage<'_> {
    /// The page before the rows and behind them.
    ///
    /// # Errors
    /// If the template cannot be rendered.
    pub(crate) fn parts(&self) -> Result<(String, String), Refusal> {
        let mut start = render(self)?;
        let at = start.rfind(ROWS).unwrap_or(start.len());
        let end = start.split_off(at);
        Ok((start, format!("{}\n", end.trim_start_matches(ROWS))))
    }

    fn found(&self) -> String {
        match self.names {
            0 => "No name contains".to_owned(),
            1 => "1 name contains".to_owned(),
            names => format!("{} names contain", grouped(names)),
        }
    }
}

fn render(page: &impl Template) -> Result<String, Refusal> {
    page.render().map_err(|error| {
        log::error!("Cannot make the page: {error}");
        Refusal::new(Status::InternalServerError, "the page cannot be made")
    })
}

/// Whether a path is that of the root, which has no folder above it.
pub(crate) fn is_root(path: &str) -> bool {
    path.trim_matches('/').is_empty()
}

/// The reply with a page, under the policy.
pub(crate) fn response(status: Status, text: impl Into<Vec<u8>>) -> Response {
    Response::new(status, "text/html; charset=utf-8", text)
        .with_field("Content-Security-Policy", POLICY.as_str())
        .with_field("Vary", "Accept")
}

/// The page that says why a request is refused, with a link to the folder.
///
/// # Errors
/// If the template cannot be rendered.
pub(crate) fn refusal(request: &RequestHead, refusal: &Refusal) -> Result<Response, Refusal> {
    let (code, phrase) = (refusal.status.code(), refusal.status.phrase());
    let page = Refused {
        frame: Frame {
            title: format!("{code} {phrase}"),
            crumbs: crumbs(request.path),
        },
        sentence: &refusal.sentence,
        folder: way_back(request),
    };
    Ok(response(refusal.status, render(&page)?))
}

/// The names of a path, with links to the folders on it.
fn crumbs(path: &str) -> Vec<Crumb> {
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut crumbs = vec![Crumb {
        name: "/".to_owned(),
        link: (!names.is_empty()).then(|| way_up(path, names.len())),
    }];
    for (at, name) in names.iter().enumerate() {
        let name = percent_decode_str(name).decode_utf8_lossy();
        let up = names.len() - 1 - at;
        let is_folder = up > 0 || path.ends_with('/');
        crumbs.push(Crumb {
            name: format!("{name}{}", if is_folder { "/" } else { "" }),
            link: (up > 0).then(|| way_up(path, up)),
        });
    }
    crumbs
}

/// The link to the folder that a request comes from, if that is known.
fn way_back(request: &RequestHead) -> Option<String> {
    let path = request.path;
    // A form goes to the folder whose page it is on.
    if request.method == "POST" && path.ends_with('/') {
        return Some("./".to_owned());
    }
    (!is_root(path)).then(|| way_up(path, 1))
}

/// The link from a page to the folder `names` names above it. It is relative to the page's path up to
/// the last slash: an absolute link would lose the prefix of a proxy.
fn way_up(path: &str, names: usize) -> String {
    match names - usize::from(!path.ends_with('/')) {
        0 => "./".to_owned(),
        folders => "../".repeat(folders),
    }
}

/// A number for people: `12,345`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use daemon::http::Content;

    use super::*;

    #[track_caller]
    fn check_crumbs(path: &str, want: &[(&str, &str)]) {
        let crumbs = crumbs(path);
        let parts = crumbs.iter();
        let parts = parts.map(|crumb| (&*crumb.name, crumb.link.as_deref().unwrap_or_default()));
        assert_eq!(parts.collect::<Vec<_>>(), want, "{path}");
    }

    #[test]
    fn the_way_back() {
        check_crumbs("/", &[("/", "")]);
        let path = [("/", "../../"), ("a/", "../"), ("b c/", "")];
        check_crumbs("/a/b%20c/", &path);
        let path = [("/", "../../"), ("a/", "../"), ("b/", "./"), ("c", "")];
        check_crumbs("/a/b/c", &path);
        check_crumbs("/%3Cb%3E", &[("/", "./"), ("<b>", "")]);
    }

    #[test]
    fn the_page_of_a_refusal() {
        let page = |line: &str| {
            let head = format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
            let request = RequestHead::parse(head.as_bytes()).unwrap();
            let refused = refusal(&request, &Refusal::new(Status::NotFound, "no <such> file"));
            match refused.unwrap().body {
                Content::Bytes(text) => String::from_utf8(text).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let text = page("GET /a/%3Cb%3E");
        assert!(
            text.contains("404 Not Found: no &#60;such&#62; file"),
            "{text}"
        );
        assert!(text.contains("href=\"./\">Back"), "{text}");
        assert!(!text.contains("<b>"), "{text}");
        assert!(
            !page("GET /").contains("Back"),
            "the root has no folder above it"
        );
        assert!(page("GET /a/").contains("href=\"../\">Back"));
        assert!(page("POST /a/").contains("href=\"./\">Back"));
    }

    #[test]
    fn long_numbers_are_grouped() {
        for (number, want) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), want);
        }
    }
}
