//! What the pages of all servers share: their style sheet and script, the fields of their replies, who wants
//! a page, and who may open one. The frame around each is `templates/layout.html`.

use std::borrow::Cow;
use std::fmt::Display;

use proto::http::response::Field;
use proto::http::{Refusal, RequestHead, Status, negotiation};

use super::Response;

/// The style sheet. What only one server's pages have is in a sheet of its own, behind this one.
pub const STYLE: &str = include_str!("page/style.css");

/// The script of a page whose table follows events. What only one server's pages do with them is in a
/// script of its own, behind this one.
pub const LIVE: &str = include_str!("page/live.js");

/// The type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

const HTML: &str = "text/html; charset=utf-8";

/// The fields of every reply. A browser runs no script and follows no style but those of this server,
/// whatever a page shows.
const ALWAYS: [Field; 3] = [
    (
        "Content-Security-Policy",
        Cow::Borrowed(
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    ("Cache-Control", Cow::Borrowed("no-store")),
    ("X-Content-Type-Options", Cow::Borrowed("nosniff")),
];

/// The same reply, with the fields that every reply has.
pub fn with_always(mut response: Response) -> Response {
    response.fields.extend(ALWAYS);
    response
}

/// A page made of a template.
///
/// # Errors
/// If the template cannot be rendered.
pub fn html<E: Display>(status: Status, page: Result<String, E>) -> Result<Response, Refusal> {
    let text = page.map_err(|error| {
        log::error!("Cannot make the page: {error}");
        Refusal::new(Status::InternalServerError, "the page cannot be made")
    })?;
    Ok(with_always(Response::new(status, HTML, text)).with_field("Vary", "Accept"))
}

/// The style sheet of a server's pages.
pub fn style(own: &str) -> Response {
    let style = format!("{STYLE}{own}");
    with_always(Response::new(Status::Ok, "text/css; charset=utf-8", style))
}

/// The script of a server's pages.
pub fn script(own: &str) -> Response {
    let script = format!("{LIVE}{own}");
    let content_type = "text/javascript; charset=utf-8";
    with_always(Response::new(Status::Ok, content_type, script))
}

/// Checks where a request comes from. A page of another site may open the one at `/`, and neither show nor read
/// any of it, nor have it search: how long a reply takes, or whether it comes, tells such a page what was
/// found. Browsers say where a request comes from (W3C Fetch Metadata); other programs say nothing.
///
/// # Errors
/// A refusal, if a page of another site asks for more.
pub fn check_site(request: &RequestHead<'_>) -> Result<(), Refusal> {
    let is = |name, wanted: &[&[u8]]| request.fields(name).any(|value| wanted.contains(&value));
    let is_opened = request.path == "/"
        && request.query.is_none()
        && is("sec-fetch-mode", &[b"navigate"])
        && is("sec-fetch-dest", &[b"document"]);
    if is_opened || !is("sec-fetch-site", &[b"cross-site", b"same-site"]) {
        return Ok(());
    }
    let sentence = "a page of another site may only open the page at /, without a search";
    Err(Refusal::new(Status::Forbidden, sentence))
}

/// Whether a refusal is a page. Browsers accept `text/html` by name; other programs, and scripts on a
/// page, accept anything.
pub fn is_wanted(request: &RequestHead) -> bool {
    negotiation::accept(request, b"text/html") > 0.0
}
