//! Which paths there are, with which methods and parameters: one table.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use proto::http::{Refusal, RequestHead, Status};

/// What a request is answered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Page,
    Login,
    Events,
    Style,
    Script,
    OpenApi,
    /// A request of the queues.
    Verb(Verb),
}

/// What a request asks of the queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Send,
    Lease,
    Ack,
    Release,
    Extend,
    Stats,
    Peek,
    PeekOne,
    Body,
    Delete,
    KickOne,
    Move,
    ReleaseOne,
    Purge,
    Pause,
    Resume,
    Kick,
    Drain(bool),
}

/// A row of the table.
pub(super) struct Row {
    pub(super) method: &'static str,
    /// The path, with a name in braces where any segment may stand.
    pub(super) path: &'static str,
    pub(super) target: Target,
    /// The parameters that its query may have.
    pub(super) query: &'static [&'static str],
}

/// The properties of a message, as parameters; each may be a field instead: `Queue-Key`.
pub(super) const PROPERTIES: [(&str, &str); 5] = [
    ("delay", "Queue-Delay"),
    ("priority", "Queue-Priority"),
    ("key", "Queue-Key"),
    ("expires", "Queue-Expires"),
    ("max-attempts", "Queue-Max-Attempts"),
];

const SEND: &[&str] = &["delay", "priority", "key", "expires", "max-attempts"];
const MESSAGES: &[&str] = &["state", "after", "limit", "bytes"];
const RELEASE: &[&str] = &["delay", "retry"];
/// Where a browser goes then.
const BACK: &[&str] = &["back"];

const fn row(
    method: &'static str,
    path: &'static str,
    target: Target,
    query: &'static [&'static str],
) -> Row {
    Row {
        method,
        path,
        target,
        query,
    }
}

const fn verb(
    method: &'static str,
    path: &'static str,
    verb: Verb,
    query: &'static [&'static str],
) -> Row {
    row(method, path, Target::Verb(verb), query)
}

/// All paths. A form of a page can only say `POST`, so what it does has a path that says so.
pub(super) const TABLE: &[Row] = &[
    row(
        "GET",
        "/",
        Target::Page,
        &["q", "from", "queue", "state", "after", "ask", "id"],
    ),
    row("GET", "/login", Target::Login, &[]),
    row("GET", "/events", Target::Events, &["q", "from", "queue"]),
    row("GET", "/style.css", Target::Style, &[]),
    row("GET", "/page.js", Target::Script, &[]),
    row("GET", "/openapi.json", Target::OpenApi, &[]),
    verb("GET", "/queues", Verb::Stats, &[]),
    verb("GET", "/queues/{queue}/messages", Verb::Peek, MESSAGES),
    verb("POST", "/queues/{queue}/messages", Verb::Send, SEND),
    verb("DELETE", "/queues/{queue}/messages", Verb::Purge, &[]),
    verb("POST", "/queues/{queue}/purge", Verb::Purge, BACK),
    verb("POST", "/queues/{queue}/pause", Verb::Pause, BACK),
    verb("POST", "/queues/{queue}/resume", Verb::Resume, BACK),
    verb("POST", "/queues/{queue}/kick", Verb::Kick, BACK),
    verb(
        "POST",
        "/queues/{queues}/lease",
        Verb::Lease,
        &["seconds", "wait"],
    ),
    verb(
        "GET",
        "/queues/{queue}/messages/{id}",
        Verb::PeekOne,
        &["bytes"],
    ),
    verb("GET", "/queues/{queue}/messages/{id}/body", Verb::Body, &[]),
    verb("DELETE", "/queues/{queue}/messages/{id}", Verb::Delete, &[]),
    verb(
        "POST",
        "/queues/{queue}/messages/{id}/delete",
        Verb::Delete,
        BACK,
    ),
    verb(
        "POST",
        "/queues/{queue}/messages/{id}/kick",
        Verb::KickOne,
        BACK,
    ),
    verb(
        "POST",
        "/queues/{queue}/messages/{id}/move",
        Verb::Move,
        &["to", "back"],
    ),
    verb(
        "POST",
        "/queues/{queue}/messages/{id}/release",
        Verb::ReleaseOne,
        BACK,
    ),
    verb("DELETE", "/leases/{token}", Verb::Ack, &[]),
    verb("PATCH", "/leases/{token}", Verb::Extend, &["seconds"]),
    verb("POST", "/leases/{token}/release", Verb::Release, RELEASE),
    verb("POST", "/drain", Verb::Drain(true), BACK),
    verb("DELETE", "/drain", Verb::Drain(false), &[]),
    verb("POST", "/drain/end", Verb::Drain(false), BACK),
];

/// A row that a request has found, and the segments that stand for its names.
pub(super) struct Route<'r> {
    pub(super) row: &'static Row,
    segments: Vec<(&'static str, Cow<'r, str>)>,
}

/// Why there is none.
pub(super) enum NoRoute {
    Refusal(Refusal),
    /// The path has other methods.
    Method(String),
}

impl Route<'_> {
    /// The row for a request.
    pub(super) fn of<'r>(request: &RequestHead<'r>) -> Result<Route<'r>, NoRoute> {
        let mut methods = Vec::new();
        for row in TABLE {
            let Some(segments) = segments(row.path, request.path) else {
                continue;
            };
            let is_head = request.method == "HEAD" && row.method == "GET";
            if is_head || request.method == row.method {
                return Ok(Route { row, segments });
            }
            if row.method == "GET" {
                methods.push("HEAD");
            }
            methods.push(row.method);
        }
        if methods.is_empty() {
            let sentence = "there is no such path; /openapi.json tells which there are";
            return Err(NoRoute::Refusal(Refusal::new(Status::NotFound, sentence)));
        }
        Err(NoRoute::Method(methods.join(", ")))
    }

    /// What stands for a name in braces; empty if the row has none of it.
    pub(super) fn segment(&self, name: &str) -> &str {
        let found = self.segments.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, segment)| segment)
    }
}

/// Compares a path with that of a row, segment by segment.
fn segments<'p>(pattern: &'static str, path: &'p str) -> Option<Vec<(&'static str, Cow<'p, str>)>> {
    let mut found = Vec::new();
    let mut path = path.split('/');
    for known in pattern.split('/') {
        let segment = path.next()?;
        match known
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            Some(name) => found.push((name, percent_decode_str(segment).decode_utf8_lossy())),
            None if known == segment => {}
            None => return None,
        }
    }
    path.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(line: &str) -> Result<(Target, String), String> {
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let found = Route::of(&request);
        match found {
            Ok(route) => Ok((route.row.target, route.segment("queue").to_owned())),
            Err(NoRoute::Method(methods)) => Err(methods),
            Err(NoRoute::Refusal(refusal)) => Err(refusal.status.to_string()),
        }
    }

    #[test]
    fn a_path_is_found_segment_by_segment() {
        let verb = |verb, queue: &str| Ok((Target::Verb(verb), queue.to_owned()));
        assert_eq!(find("POST /queues/a/messages"), verb(Verb::Send, "a"));
        assert_eq!(find("HEAD /queues/%61/messages?x"), verb(Verb::Peek, "a"));
        assert_eq!(find("GET /queues/42/messages/7"), verb(Verb::PeekOne, "42"));
        assert_eq!(find("POST /queues/a%2Fb/pause"), verb(Verb::Pause, "a/b"));
        assert_eq!(find("GET /"), Ok((Target::Page, String::new())));
        let methods = "HEAD, GET, POST, DELETE".to_owned();
        assert_eq!(find("PUT /queues/a/messages"), Err(methods));
        for path in [
            "/queues/",
            "/queues/a",
            "/queues/a/b/c/d/e",
            "//",
            "/Queues",
        ] {
            let refused = find(&format!("GET {path}"));
            assert_eq!(refused, Err("404 Not Found".to_owned()), "{path}");
        }
    }
}
