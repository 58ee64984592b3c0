//! What a request is answered: by which method it is, and in which words it is refused.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cli::exit::with_causes;
use daemon::http::{Handled, Handler, RequestBody, Response};
use proto::http::response::Field;
use proto::http::resumable::LIMIT;
use proto::http::{Refusal, RequestHead, Status};

use crate::access_log::AccessLog;
use crate::accounts::Accounts;
use crate::digests::Digests;
use crate::file_cache::FileCache;
use crate::files::{Files, FilesError};
use crate::page::{self, UploadRules};
use crate::path::TreePath;

/// A connection alone on the server may be idle so long, one second less for every other...
const IDLE_MAX: Duration = Duration::from_secs(20);
/// ...but never less than this.
const IDLE_MIN: Duration = Duration::from_secs(5);

/// How the methods of the path under which an upload continues are listed.
pub(crate) const ALLOWED_OF_RESOURCE: &str = "DELETE, GET, HEAD, OPTIONS, PATCH";

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// The connections to the files.
pub(crate) struct Connections {
    pub(crate) files: Arc<Files>,
    pub(crate) read_only: bool,
    pub(crate) has_listing: bool,
    pub(crate) upload_bytes_max: u64,
    pub(crate) access_log: Option<AccessLog>,
    /// How long what has come of an upload is kept when it was broken off.
    pub(crate) resume_keep: Duration,
    /// How long the sender of an upload may be silent.
    pub(crate) body_timeout: Duration,
    /// Who may upload; `None` is everybody.
    pub(crate) accounts: Option<Accounts>,
    pub(crate) digests: Digests,
    pub(crate) file_cache: FileCache,
    /// Whether only they may read, too.
    pub(crate) auth_all: bool,
}

impl Handler for Connections {
    fn handle(
        &self,
        peer: SocketAddr,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        let response = match self.act(peer, request, body) {
            Err(refusal) if page::is_wanted(request) => {
                log::debug!("Refused: {refusal}");
                self.refused(request, &refusal)
            }
            other => other?,
        };
        Ok(Handled::Now(self.keep_private(response)))
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let body = format!("{}\n", refusal.sentence);
        self.keep_private(with_always(Response::new(refusal.status, TEXT, body)))
    }

    fn replied(&self, peer: SocketAddr, head: &[u8], status: Status, bytes: u64) {
        if let Some(log) = &self.access_log {
            let request_line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let user = self.user_of(head, status);
            log.add(peer.ip(), user.as_deref(), request_line, status, bytes);
        }
    }

    fn idle_timeout(&self, open_connections: usize) -> Duration {
        let open = Duration::from_secs(open_connections as u64);
        IDLE_MAX.saturating_sub(open).max(IDLE_MIN)
    }

    fn body_timeout(&self) -> Duration {
        self.body_timeout
    }
}

impl Connections {
    fn act(
        &self,
        peer: SocketAddr,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Response, Refusal> {
        let is_resource = may_be_hidden(request.path)
            && path_of(request).is_ok_and(|path| self.files.is_resource(&path));
        if let Some(refused) = self.check_access(peer, request, is_resource) {
            return Ok(refused);
        }
        match request.method {
            "OPTIONS" => Ok(self.options(is_resource)),
            _ if is_resource => self.go_on(request, body),
            "GET" | "HEAD" => self.download(request),
            "POST" | "PUT" => self.take(request, body),
            _ => Ok(self.not_allowed(self.allowed())),
        }
    }

    /// The reply that refuses a request that was understood: to a browser, a page.
    pub(crate) fn refused(&self, request: &RequestHead, refusal: &Refusal) -> Response {
        match page::is_wanted(request) {
            true => with_always(page::refusal(request, refusal)),
            false => self.refuse(refusal),
        }
    }

    fn options(&self, is_resource: bool) -> Response {
        let allowed = match is_resource {
            true => ALLOWED_OF_RESOURCE,
            false => self.allowed(),
        };
        let response = Response::empty(Status::NoContent).with_field("Allow", allowed);
        match self.read_only {
            true => response,
            false => response.with_field(LIMIT, self.limit(self.resume_keep)),
        }
    }

    /// What the page of a folder says about uploads, if they are taken.
    pub(crate) fn upload_rules(&self) -> Option<UploadRules> {
        let rules = UploadRules {
            bytes_max: self.upload_bytes_max,
            create_only: self.files.check_create(true).is_err(),
            needs_password: self.accounts.is_some(),
        };
        (!self.read_only).then_some(rules)
    }

    pub(crate) fn not_allowed(&self, allowed: &'static str) -> Response {
        let sentence = format!("the methods here are {allowed}");
        let refusal = Refusal::new(Status::MethodNotAllowed, sentence);
        self.refuse(&refusal).with_field("Allow", allowed)
    }

    fn allowed(&self) -> &'static str {
        match self.read_only {
            true => "GET, HEAD, OPTIONS",
            false => "GET, HEAD, OPTIONS, POST, PUT",
        }
    }
}

/// What stands in all replies that have a body, or whose body may be kept. A browser is to believe the
/// type it is told; else a text could be made to act as a page. And it is to ask whether what it has
/// kept is still right; else it would guess for how long that is so.
pub(crate) const ALWAYS: [Field; 2] = [
    ("Cache-Control", Cow::Borrowed("no-cache")),
    ("X-Content-Type-Options", Cow::Borrowed("nosniff")),
];

/// The same reply with [`ALWAYS`].
pub(crate) fn with_always(mut response: Response) -> Response {
    response.fields.extend(ALWAYS);
    response
}

/// Whether the last name of a path may start with a dot; to decode it would take longer.
fn may_be_hidden(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with(['.', '%'])
}

/// The path that a request is about.
pub(crate) fn path_of(request: &RequestHead) -> Result<TreePath, Refusal> {
    let path = TreePath::decode(request.path);
    path.map_err(|error| Refusal::new(Status::BadRequest, error.to_string()))
}

/// The refusal that goes with an error of the files. What the disk did is logged in full.
pub(crate) fn refusal(error: FilesError) -> Refusal {
    let status = match &error {
        FilesError::NotFound => Status::NotFound,
        FilesError::NotAllowed(_) | FilesError::Reserved | FilesError::WriteProtected => {
            Status::Forbidden
        }
        FilesError::IsFolder
        | FilesError::NotAFolder
        | FilesError::NotAFile
        | FilesError::Exists => Status::Conflict,
        FilesError::NameTooLong | FilesError::NameRefused(_) => Status::BadRequest,
        FilesError::TooLarge(_) => Status::ContentTooLarge,
        FilesError::Changed => Status::PreconditionFailed,
        FilesError::InUse => Status::Locked,
        FilesError::Busy(_)
        | FilesError::TooManyLists
        | FilesError::RootGone
        | FilesError::Moved => Status::ServiceUnavailable,
        FilesError::NoSpace(_) | FilesError::NoRoom => Status::InsufficientStorage,
        FilesError::Storage(_) | FilesError::Unsynced(_) => Status::InternalServerError,
    };
    match &error {
        FilesError::Busy(_)
        | FilesError::NoSpace(_)
        | FilesError::Storage(_)
        | FilesError::Unsynced(_) => {
            log::error!("{}", with_causes(&error));
        }
        FilesError::NotAllowed(_) | FilesError::NameRefused(_) | FilesError::TooLarge(_) => {
            log::warn!("{}", with_causes(&error));
        }
        _ => {}
    }
    Refusal::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proto::http::response::put_fields;
    use tempfile::TempDir;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn connections(upload_bytes_max: u64) -> (TempDir, Connections) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("site")).unwrap();
        fs::write(root.path().join("site/index.html"), "page").unwrap();
        let connections = Connections {
            files: Files::open(root.path(), 0, DAY).unwrap().into(),
            read_only: false,
            has_listing: false,
            upload_bytes_max,
            access_log: None,
            resume_keep: DAY,
            body_timeout: DAY,
            accounts: None,
            digests: Digests::default(),
            file_cache: FileCache::default(),
            auth_all: false,
        };
        (root, connections)
    }

    /// The status of the reply to a request, and one of its fields if it has it.
    fn ask(connections: &Connections, line: &str, body: &str, field: &str) -> (u16, String) {
        // Further lines are further fields.
        let (line, fields) = line.split_once('\n').unwrap_or((line, ""));
        let fields: String = fields.lines().map(|field| format!("{field}\r\n")).collect();
        let is_upload = line.starts_with("POST") || line.starts_with("PUT");
        let framing = match (is_upload, body) {
            (false, _) => String::new(),
            (true, "none") => String::new(),
            (true, "chunked") => "Transfer-Encoding: chunked\r\n".to_owned(),
            (true, body) => format!("Content-Length: {}\r\n", body.len()),
        };
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}{framing}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        match connections.act(([127, 0, 0, 1], 1).into(), &request, &mut body.as_bytes()) {
            Ok(response) => {
                let mut lines = Vec::new();
                put_fields(&mut lines, &response.fields);
                lines.extend_from_slice(response.shared_fields.as_deref().unwrap_or_default());
                let lines = String::from_utf8(lines).unwrap();
                let start = format!("{field}: ");
                let value = lines.lines().find_map(|line| line.strip_prefix(&start));
                let value = value.unwrap_or_default().to_owned();
                (response.status.code(), value)
            }
            Err(refusal) => (refusal.status.code(), String::new()),
        }
    }

    #[track_caller]
    fn check(connections: &Connections, line: &str, body: &str, code: u16) {
        assert_eq!(ask(connections, line, body, "").0, code, "{line}");
    }

    #[test]
    fn each_request_has_its_status() {
        let (root, connections) = connections(10);
        check(&connections, "GET /site/", "", 200);
        check(&connections, "HEAD /site/index.html", "", 200);
        check(&connections, "GET /", "", 404);
        check(&connections, "GET /../x", "", 400);
        check(&connections, "DELETE /x", "", 405);
        check(&connections, "OPTIONS *", "", 204);
        check(&connections, "POST /x", "whole", 200);
        check(&connections, "GET /x", "", 200);
        check(&connections, "POST /empty", "", 200);
        check(&connections, "POST /x", "none", 411);
        check(&connections, "POST /y", "just right", 200);
        check(&connections, "POST /z", "one too many", 413);
        check(&connections, "POST /a%2fb", "x", 400);
        check(&connections, "POST /site", "x", 409);
        check(&connections, "POST /x/y", "x", 409);
        check(&connections, "POST /.quartet-upload-x", "x", 403);
        assert_eq!(fs::read(root.path().join("x")).unwrap(), b"whole");
        assert!(!root.path().join("z").exists());
    }

    #[test]
    fn a_chunked_upload_is_limited_as_it_comes() {
        let (root, connections) = connections(6);
        check(&connections, "POST /x", "chunked", 413);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "the site");
    }

    #[test]
    fn a_read_only_server_takes_nothing() {
        let (_root, mut connections) = connections(10);
        connections.read_only = true;
        check(&connections, "POST /x", "x", 403);
        let (code, allow) = ask(&connections, "DELETE /x", "", "Allow");
        assert_eq!((code, allow.as_str()), (405, "GET, HEAD, OPTIONS"));
    }

    #[test]
    fn the_fuller_the_server_the_shorter_the_idle_timeout() {
        let (_root, connections) = connections(0);
        for (open, secs) in [
            (0, 20),
            (1, 19),
            (14, 6),
            (15, 5),
            (16, 5),
            (20, 5),
            (9999, 5),
        ] {
            let want = Duration::from_secs(secs);
            assert_eq!(connections.idle_timeout(open), want, "{open}");
        }
    }

    #[test]
    fn a_folder_without_its_slash_is_redirected_on_this_server() {
        let (_root, connections) = connections(0);
        let (code, location) = ask(&connections, "GET //site?q", "", "Location");
        assert_eq!((code, location.as_str()), (301, "./site/?q"));
    }

    #[test]
    fn a_folder_is_listed_unless_that_is_off() {
        let (root, mut connections) = connections(0);
        fs::create_dir(root.path().join("empty")).unwrap();
        check(&connections, "GET /empty/", "", 404);
        check(&connections, "GET /empty", "", 404);
        connections.has_listing = true;
        check(&connections, "GET /empty/", "", 200);
        check(&connections, "GET /empty", "", 301);
        check(&connections, "GET /", "", 200);
        let of_page = ask(&connections, "GET /site/", "", "Accept-Ranges");
        assert_eq!(
            of_page,
            (200, "bytes".to_owned()),
            "the index page comes first"
        );
    }

    #[test]
    fn a_part_of_a_file() {
        let (_root, connections) = connections(0);
        let range = |fields: &str| {
            let line = format!("GET /site/index.html\n{fields}");
            ask(&connections, &line, "", "Content-Range")
        };
        let part = |range: &str| (206, range.to_owned());
        assert_eq!(range("Range: bytes=1-2"), part("bytes 1-2/4"));
        assert_eq!(range("Range: bytes=-1"), part("bytes 3-3/4"));
        assert_eq!(range("Range: bytes=4-"), (416, "bytes */4".to_owned()));
        assert_eq!(range("Range: bytes=0-1,3-3"), (200, String::new()));
        assert_eq!(
            range("Range: bytes=1-2\nIf-Range: \"x\""),
            (200, String::new())
        );
        let (_, etag) = ask(&connections, "GET /site/index.html", "", "ETag");
        let same = format!("Range: bytes=1-2\nIf-Range: {etag}");
        assert_eq!(range(&same), part("bytes 1-2/4"));
        let head = ask(
            &connections,
            "HEAD /site/index.html\nRange: bytes=1-2",
            "",
            "",
        );
        assert_eq!(head.0, 200);
    }

    #[test]
    fn conditions_are_kept() {
        let (root, connections) = connections(10);
        let etag = || ask(&connections, "GET /site/index.html", "", "ETag").1;
        let first = etag();
        let path = "/site/index.html";
        check(
            &connections,
            &format!("GET {path}\nIf-None-Match: {first}"),
            "",
            304,
        );
        check(
            &connections,
            &format!("GET {path}\nIf-Match: \"x\""),
            "",
            412,
        );
        check(
            &connections,
            &format!("PUT {path}\nIf-None-Match: *"),
            "new",
            412,
        );
        check(
            &connections,
            &format!("PUT {path}\nIf-Match: {first}"),
            "new",
            200,
        );
        assert_ne!(etag(), first);
        check(
            &connections,
            &format!("PUT {path}\nIf-Match: {first}"),
            "newer",
            412,
        );
        check(&connections, "PUT /n\nIf-Match: *", "x", 412);
        check(&connections, "PUT /n\nIf-None-Match: *", "x", 201);
        check(&connections, "PUT /n", "y", 200);
        check(&connections, "PUT /n\nContent-Range: bytes 0-0/1", "y", 400);
        assert_eq!(
            fs::read(root.path().join("site/index.html")).unwrap(),
            b"new"
        );
    }

    #[test]
    fn room_is_kept_free() {
        let (root, mut connections) = connections(10);
        connections.files = Files::open(root.path(), 1 << 60, DAY).unwrap().into();
        check(&connections, "PUT /n", "x", 507);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "the site");
    }

    #[test]
    fn a_form_saves_its_files_in_the_folder() {
        let (root, connections) = connections(200);
        let form = "--b\r\nContent-Disposition: form-data; name=f; filename=\"C:\\\\x\\\\one.txt\"\r\n\
                    \r\n1\r\n--b\r\nContent-Disposition: form-data; filename=\"../two\"\r\n\r\n\
                    22\r\n--b--\r\n";
        let post = |target: &str, fields: &str, form: &str| {
            let line =
                format!("POST {target}\nContent-Type: multipart/form-data; boundary=b{fields}");
            ask(&connections, &line, form, "Location")
        };
        assert_eq!(post("/site/", "", form), (303, "./".to_owned()));
        assert_eq!(post("//", "", form), (303, "./".to_owned()));
        for folder in ["", "site/"] {
            let read = |name: &str| fs::read(root.path().join(folder).join(name)).unwrap();
            assert_eq!(
                (read("one.txt"), read("two")),
                (b"1".to_vec(), b"22".to_vec())
            );
        }
        let other = form.replace("\r\n1\r\n", "\r\nother\r\n");
        for query in ["create-only", "create-only=", "sort=size&create-only"] {
            assert_eq!(post(&format!("/?{query}"), "", &other).0, 409, "{query}");
        }
        assert_eq!(fs::read(root.path().join("one.txt")).unwrap(), b"1");
        let new = other.replace("one", "three").replace("two", "four");
        assert_eq!(post("/?create-only", "", &new).0, 303);
        let evil = form.replace("../two", "x/..");
        assert_eq!(post("/", "", &evil).0, 400);
        assert_eq!(post("/", "", "--b--\r\n").0, 400);
        assert_eq!(post("/", "", "").0, 400);
        assert_eq!(post("/form", "", form).0, 400, "no folder");
        let without_boundary = "POST /form\nContent-Type: multipart/form-data";
        check(&connections, without_boundary, form, 400);
        assert!(!root.path().join("form").exists());
    }

    #[test]
    fn digests_are_checked_and_given() {
        let (root, connections) = connections(10);
        let digest = |body: &str| {
            let mut hasher = proto::http::digest::Hasher::default();
            hasher.update(body.as_bytes());
            proto::http::digest::format(&hasher.finish())
        };
        let put = |field: &str| format!("PUT /n\n{field}: {}", digest("right"));
        for field in ["Content-Digest", "Repr-Digest"] {
            check(&connections, &put(field), "wrong", 400);
            assert!(!root.path().join("n").exists());
        }
        check(&connections, &put("Repr-Digest"), "right", 201);
        check(&connections, "PUT /n\nRepr-Digest: sha-256=x", "right", 400);
        check(
            &connections,
            "PUT /n\nRepr-Digest: md5=:AA==:",
            "right",
            200,
        );
        check(&connections, "PUT /n\nContent-Encoding: gzip", "x", 415);
        let get = |fields: &str| {
            let line = format!("GET /site/index.html\n{fields}");
            ask(&connections, &line, "", "Repr-Digest")
        };
        assert_eq!(get(""), (200, String::new()));
        let long = fs::File::create(root.path().join("long")).unwrap();
        long.set_len((1 << 30) + 1).unwrap();
        let of_long = ask(
            &connections,
            "HEAD /long\nWant-Repr-Digest: sha-256=1",
            "",
            "Repr-Digest",
        );
        assert_eq!(of_long, (200, String::new()), "nobody waits for that");
        assert_eq!(get("Want-Repr-Digest: sha-256=1"), (200, digest("page")));
        let part = "Want-Repr-Digest: sha-256=1\nRange: bytes=1-1";
        assert_eq!(get(part), (206, digest("page")), "of the whole file");
    }
}
