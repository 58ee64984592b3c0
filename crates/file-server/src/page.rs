//! The pages for people: the frame of a folder's list, with the form for uploads, and refusals.
//!
//! A page works without the script. A browser runs no other script and follows no other style, whatever
//! a file's name holds: the policy that is sent along has their digests.

mod escape;

use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use daemon::http::Response;
use daemon::http::page::STYLE;
use percent_encoding::percent_decode_str;
use proto::http::{Refusal, RequestHead, Status};
use sha2::{Digest, Sha256};

pub(crate) use escape::{LINK_ESCAPES, escape};

/// The style of what other servers' pages do not have.
const OWN_STYLE: &str = include_str!("page/style.css");
/// The buttons for archives. They are no links, because a program that follows links would get everything
/// once for each.
const ARCHIVE_FORM: &str = "<form>\n<p>Download this folder as \
    <button name=\"zip\">zip</button> <button name=\"tar\">tar</button> \
    <button name=\"tgz\">tar.gz</button></p>\n</form>\n";
const UPLOAD_FORM: &str = include_str!("page/upload.html");
const UPLOAD_SCRIPT: &str = include_str!("page/upload.js");

/// The `Content-Security-Policy` of every page.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}' 'sha256-{}'; script-src 'sha256-{}'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        digest(STYLE),
        digest(OWN_STYLE),
        digest(UPLOAD_SCRIPT)
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
    /// Uploads, by these rules.
    pub(crate) uploads: Option<UploadRules>,
}

/// The start of a folder's page, up to the table, with forms for what the folder offers. `path` is the
/// folder's path, as in the request.
pub(crate) fn folder_start(path: &str, offers: Offers) -> String {
    let title = percent_decode_str(path).decode_utf8_lossy();
    let mut text = start(&title, path);
    if offers.archives {
        text.push_str(ARCHIVE_FORM);
    }
    if let Some(rules) = offers.uploads {
        let flag = |name, is_set| if is_set { name } else { "" };
        text.push_str(&format!(
            "<form method=\"post\" enctype=\"multipart/form-data\" id=\"upload\" \
             data-bytes-max=\"{}\"{}{}>\n{UPLOAD_FORM}<script>{UPLOAD_SCRIPT}</script>\n",
            rules.bytes_max,
            flag(" data-create-only", rules.create_only),
            flag(" data-needs-password", rules.needs_password),
        ));
    }
    text
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
pub(crate) fn refusal(request: &RequestHead, refusal: &Refusal) -> Response {
    let (code, phrase) = (refusal.status.code(), refusal.status.phrase());
    let mut text = start(&format!("{code} {phrase}"), request.path);
    text.push_str(&format!(
        "<p>{code} {phrase}: {}</p>\n",
        escape(&refusal.sentence)
    ));
    if let Some(folder) = way_back(request) {
        text.push_str(&format!(
            "<p><a href=\"{folder}\">Back to the folder</a></p>\n"
        ));
    }
    response(refusal.status, text + END)
}

/// The end of every page.
pub(crate) const END: &str = "</body>\n</html>\n";

/// The start of every page.
fn start(title: &str, path: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n\
         <style>{STYLE}</style>\n<style>{OWN_STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
        escape(title),
        breadcrumbs(path)
    )
}

/// A path, with links to the folders on it.
fn breadcrumbs(path: &str) -> String {
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut crumbs = match names.len() {
        0 => "/".to_owned(),
        depth => format!("<a href=\"{}\">/</a>", way_up(path, depth)),
    };
    for (at, name) in names.iter().enumerate() {
        let name = percent_decode_str(name).decode_utf8_lossy();
        let name = escape(&name);
        crumbs.push_str(&match names.len() - 1 - at {
            0 if path.ends_with('/') => format!("{name}/"),
            0 => name.into_owned(),
            up => format!("<a href=\"{}\">{name}/</a>", way_up(path, up)),
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

#[cfg(test)]
mod tests {
    use daemon::http::Content;

    use super::*;

    #[test]
    fn the_way_back() {
        assert_eq!(breadcrumbs("/"), "/");
        assert_eq!(
            breadcrumbs("/a/b%20c/"),
            "<a href=\"../../\">/</a><a href=\"../\">a/</a>b c/"
        );
        assert_eq!(
            breadcrumbs("/a/b/c"),
            "<a href=\"../../\">/</a><a href=\"../\">a/</a><a href=\"./\">b/</a>c"
        );
        assert_eq!(breadcrumbs("/%3Cb%3E"), "<a href=\"./\">/</a>&lt;b&gt;");
    }

    #[test]
    fn the_page_of_a_refusal() {
        let page = |line: &str| {
            let head = format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
            let request = RequestHead::parse(head.as_bytes()).unwrap();
            let refused = refusal(&request, &Refusal::new(Status::NotFound, "no <such> file"));
            match refused.body {
                Content::Bytes(text) => String::from_utf8(text).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let text = page("GET /a/%3Cb%3E");
        assert!(
            text.contains("404 Not Found: no &lt;such&gt; file"),
            "{text}"
        );
        assert!(text.contains("<a href=\"./\">Back"), "{text}");
        assert!(!text.contains("<b>"), "{text}");
        assert!(
            !page("GET /").contains("Back"),
            "the root has no folder above it"
        );
        assert!(page("GET /a/").contains("<a href=\"../\">Back"));
        assert!(page("POST /a/").contains("<a href=\"./\">Back"));
    }
}
