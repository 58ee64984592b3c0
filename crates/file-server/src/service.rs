//! The requests of the file service: one function for each, and one place where errors become
//! refusals.
//!
//! `download` answers GET and HEAD, with `listing` and `archive` for folders, `upload` POST and PUT, `manage`
//! DELETE, MKCOL and MOVE, `resumable` everything under the path of an interrupted upload.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cli::exit::with_causes;
use daemon::http::page::is_wanted;
use daemon::http::{Handled, HttpHandler, RequestBody, Response};
use daemon::{Caller, Role};
use proto::http::response::Field;
use proto::http::resumable::LIMIT;
use proto::http::{Refusal, RequestHead, Status};

use crate::Config;
use crate::access_log::{AccessLog, line};
use crate::digests::Digests;
use crate::disposition::disposition;
use crate::error::FilesError;
use crate::file_cache::FileCache;
use crate::files::{Files, seconds_now};
use crate::page::{self, Offers, UploadRules};
use crate::path::TreePath;
use crate::permits::Permits;

/// The idle timeout of a connection that is alone on the server. Every other one takes off a second...
const IDLE_MAX: Duration = Duration::from_secs(20);
/// ...but this much is left.
const IDLE_MIN: Duration = Duration::from_secs(5);

/// The methods of the path of an interrupted upload.
pub(crate) const ALLOWED_OF_RESOURCE: &str = "DELETE, GET, HEAD, OPTIONS, PATCH";

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// The fields of every reply that has a body, or whose body may be cached. A browser must believe the
/// type that it is told, or a text could act as a page. And it must ask whether its cached body is
/// still right, or it would guess how long that is so.
pub(crate) const ALWAYS: [Field; 2] = [
    ("Cache-Control", Cow::Borrowed("no-cache")),
    ("X-Content-Type-Options", Cow::Borrowed("nosniff")),
];

/// The reply to a request, or why it is refused.
pub(crate) type Reply = Result<Response, Refusal>;

/// The file service.
pub(crate) struct FileService {
    pub(crate) config: Config,
    pub(crate) files: Arc<Files>,
    pub(crate) file_cache: FileCache,
    pub(crate) digests: Digests,
    pub(crate) archives: Permits,
    /// Of files that are compressed while they are sent.
    pub(crate) compressions: Permits,
    pub(crate) access_log: Option<AccessLog>,
}

impl HttpHandler for FileService {
    fn handle(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        let dispatched = match self.files.only_file() {
            Some(file) => self.only(caller, request, body, file),
            None => self.dispatch(caller, request, body),
        };
        let response = dispatched.unwrap_or_else(|refusal| {
            log::debug!("Refused: {refusal}");
            self.refused(request, &refusal)
        });
        Ok(Handled::Now(self.keep_private(response)))
    }

    fn needs(&self, request: &RequestHead<'_>) -> Role {
        self.role(request)
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let body = format!("{}\n", refusal.sentence);
        self.keep_private(with_always(Response::new(refusal.status, TEXT, body)))
    }

    fn refuse_request(&self, request: &RequestHead<'_>, refusal: &Refusal) -> Response {
        self.keep_private(self.refused(request, refusal))
    }

    fn replied(&self, caller: &Caller, head: &[u8], status: Status, bytes: u64) {
        if let Some(log) = &self.access_log {
            let request_line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let user = self.user_of(caller, head, status);
            let (peer, user, now) = (caller.peer, user.as_deref(), seconds_now());
            log.add(&line(peer, user, now, request_line, status, bytes));
        }
    }

    fn idle_timeout(&self, open_connections: usize) -> Duration {
        let open = Duration::from_secs(open_connections as u64);
        IDLE_MAX.saturating_sub(open).max(IDLE_MIN)
    }

    fn body_timeout(&self) -> Duration {
        self.config.body_timeout
    }
}

impl FileService {
    fn dispatch(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Reply {
        let is_resource = self.is_resource(request);
        match request.method {
            "OPTIONS" => Ok(self.options(is_resource)),
            _ if is_resource => self.resource(request, body),
            "GET" | "HEAD" => self.download(caller, request),
            "POST" | "PUT" => self.upload(request, body),
            "DELETE" if self.config.manage => self.delete(request),
            "MKCOL" if self.config.manage => self.create_folder(request),
            "MOVE" if self.config.manage => self.rename(request),
            _ => Ok(self.not_allowed(self.allowed())),
        }
    }

    /// Answers of one file, which is at the path of the root.
    fn only(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
        file: &Path,
    ) -> Reply {
        if !matches!(request.path, "/" | "*") {
            let sentence = "this server has one file, at /";
            return Err(Refusal::new(Status::NotFound, sentence));
        }
        let response = self.dispatch(caller, request, body)?;
        Ok(match request.method {
            "GET" | "HEAD" => {
                let named = disposition("inline", &file.to_string_lossy());
                response.with_field("Content-Disposition", named)
            }
            _ => response,
        })
    }

    /// Whether a request is about an unfinished upload.
    pub(crate) fn is_resource(&self, request: &RequestHead) -> bool {
        may_be_hidden(request.path)
            && path_of(request).is_ok_and(|path| self.files.is_resource(&path))
    }

    fn options(&self, is_resource: bool) -> Response {
        let allowed = match is_resource {
            true => ALLOWED_OF_RESOURCE,
            false => self.allowed(),
        };
        let response = Response::empty(Status::NoContent).with_field("Allow", allowed);
        match self.config.read_only {
            true => response,
            false => response.with_field(LIMIT, self.limit(self.config.resume_keep)),
        }
    }

    /// The methods that the server has.
    pub(crate) fn allowed(&self) -> &'static str {
        let config = &self.config;
        match (config.read_only, config.manage, config.create_only) {
            (true, _, _) => "GET, HEAD, OPTIONS",
            (false, false, _) => "GET, HEAD, OPTIONS, POST, PUT",
            (false, true, true) => "GET, HEAD, MKCOL, MOVE, OPTIONS, POST, PUT",
            (false, true, false) => "DELETE, GET, HEAD, MKCOL, MOVE, OPTIONS, POST, PUT",
        }
    }

    /// The reply to a method that is not allowed.
    pub(crate) fn not_allowed(&self, allowed: &'static str) -> Response {
        let sentence = format!("the methods here are {allowed}");
        let refusal = Refusal::new(Status::MethodNotAllowed, sentence);
        self.refuse(&refusal).with_field("Allow", allowed)
    }

    /// The reply that refuses a request: a page for a browser, a line of text for others.
    pub(crate) fn refused(&self, request: &RequestHead, refusal: &Refusal) -> Response {
        let page = is_wanted(request).then(|| page::refusal(request, refusal));
        match page {
            Some(Ok(page)) => with_always(page),
            Some(Err(_)) | None => self.refuse(refusal),
        }
    }

    /// What the page of a folder offers a caller: what the server accepts from it. One that has not logged in
    /// may do so when it is asked.
    pub(crate) fn offers(&self, caller: &Caller) -> Offers {
        let is_reader = caller.user.is_some() && caller.role < Role::Write;
        let may_write = !self.config.read_only && !is_reader;
        let rules = UploadRules {
            bytes_max: self.config.upload_bytes_max,
            create_only: self.config.create_only,
            needs_password: self.config.door.auth.is_some(),
        };
        Offers {
            archives: self.has_archives(),
            manage: self.config.manage && may_write,
            uploads: may_write.then_some(rules),
        }
    }
}

/// The same reply with [`ALWAYS`].
pub(crate) fn with_always(mut response: Response) -> Response {
    response.fields.extend(ALWAYS);
    response
}

/// Whether the last name of a path may start with a dot. To decode the path would take longer.
fn may_be_hidden(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with(['.', '%'])
}

/// The path of a request's target.
pub(crate) fn path_of(request: &RequestHead) -> Result<TreePath, Refusal> {
    Ok(TreePath::decode(request.path).map_err(FilesError::from)?)
}

/// The refusal for an error of the files. The cause goes to the log, and not to the client.
impl From<FilesError> for Refusal {
    fn from(error: FilesError) -> Self {
        let status = match &error {
            FilesError::Path(_) | FilesError::NameTooLong | FilesError::NameRefused(_) => {
                Status::BadRequest
            }
            FilesError::NotFound | FilesError::Secret => Status::NotFound,
            FilesError::NotAllowed(_)
            | FilesError::Reserved
            | FilesError::WriteProtected
            | FilesError::IsRoot
            | FilesError::IsSecret
            | FilesError::Permanent
            | FilesError::SamePlace => Status::Forbidden,
            FilesError::IsFolder
            | FilesError::NotAFolder
            | FilesError::NotAFile
            | FilesError::TooDeep
            | FilesError::TooManyNames
            | FilesError::Exists
            | FilesError::NotEmpty
            | FilesError::InTheWay
            | FilesError::NoParent
            | FilesError::IntoItself
            | FilesError::OtherDisk => Status::Conflict,
            FilesError::TooLarge(_) => Status::ContentTooLarge,
            FilesError::Changed | FilesError::Occupied => Status::PreconditionFailed,
            FilesError::InUse => Status::Locked,
            FilesError::Busy(_)
            | FilesError::TooManyLists
            | FilesError::RootGone
            | FilesError::Moved => Status::ServiceUnavailable,
            FilesError::NoSpace(_) | FilesError::NoRoom => Status::InsufficientStorage,
            FilesError::LeftBehind | FilesError::Storage(_) | FilesError::Unsynced(_) => {
                Status::InternalServerError
            }
        };
        if std::error::Error::source(&error).is_some() {
            let level = match status {
                Status::Forbidden | Status::BadRequest | Status::ContentTooLarge => {
                    log::Level::Warn
                }
                _ => log::Level::Error,
            };
            log::log!(level, "{}", with_causes(&error));
        }
        Refusal::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{Ipv4Addr, SocketAddr};

    use proto::http::response::put_fields;
    use tempfile::TempDir;

    use super::*;
    use crate::tests::config_of;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn service(upload_bytes_max: u64) -> (TempDir, FileService) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("site")).unwrap();
        fs::write(root.path().join("site/index.html"), "page").unwrap();
        let service = FileService {
            config: Config {
                upload_bytes_max,
                has_listing: false,
                ..config_of("")
            },
            files: Files::open(root.path(), 0, DAY).unwrap().into(),
            file_cache: FileCache::default(),
            digests: Digests::default(),
            archives: Permits::default(),
            compressions: Permits::default(),
            access_log: None,
        };
        (root, service)
    }

    /// The status of the reply to a request, and one of its fields if it has it.
    fn ask(service: &FileService, line: &str, body: &str, field: &str) -> (u16, String) {
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
        match service.dispatch(&anyone(), &request, &mut body.as_bytes()) {
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

    fn anyone() -> Caller {
        Caller::anyone(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
    }

    #[track_caller]
    fn check(service: &FileService, line: &str, body: &str, code: u16) {
        assert_eq!(ask(service, line, body, "").0, code, "{line}");
    }

    #[test]
    fn each_request_has_its_status() {
        let (root, service) = service(10);
        check(&service, "GET /site/", "", 200);
        check(&service, "HEAD /site/index.html", "", 200);
        check(&service, "GET /", "", 404);
        check(&service, "GET /../x", "", 400);
        check(&service, "DELETE /x", "", 405);
        check(&service, "OPTIONS *", "", 204);
        check(&service, "POST /x", "whole", 200);
        check(&service, "GET /x", "", 200);
        check(&service, "POST /empty", "", 200);
        check(&service, "POST /x", "none", 411);
        check(&service, "POST /y", "just right", 200);
        check(&service, "POST /z", "one too many", 413);
        check(&service, "POST /a%2fb", "x", 400);
        check(&service, "POST /site", "x", 409);
        check(&service, "POST /x/y", "x", 409);
        check(&service, "POST /.quartet-upload-x", "x", 403);
        assert_eq!(fs::read(root.path().join("x")).unwrap(), b"whole");
        assert!(!root.path().join("z").exists());
    }

    #[test]
    fn a_chunked_upload_is_limited_as_it_arrives() {
        let (root, service) = service(6);
        check(&service, "POST /x", "chunked", 413);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "the site");
    }

    #[test]
    fn a_read_only_server_accepts_no_uploads() {
        let (_root, mut service) = service(10);
        service.config.read_only = true;
        check(&service, "POST /x", "x", 403);
        let (code, allow) = ask(&service, "DELETE /x", "", "Allow");
        assert_eq!((code, allow.as_str()), (405, "GET, HEAD, OPTIONS"));
    }

    #[test]
    fn a_page_offers_what_its_caller_may_do() {
        let (_root, mut service) = service(10);
        service.config.manage = true;
        let offered = |service: &FileService, user: Option<&str>, role| {
            let user = user.map(Into::into);
            let offers = service.offers(&Caller {
                user,
                role,
                ..anyone()
            });
            (offers.manage, offers.uploads.is_some())
        };
        for (user, role, may_write) in [
            (Some("ann"), Role::Write, true),
            (Some("bob"), Role::Read, false),
            (Some("eve"), Role::Admin, true),
            // It is asked for a password when it begins.
            (None, Role::Read, true),
        ] {
            let want = (may_write, may_write);
            assert_eq!(offered(&service, user, role), want, "{user:?}");
        }
        service.config.read_only = true;
        assert_eq!(offered(&service, None, Role::Admin), (false, false));
    }

    #[test]
    fn the_fuller_the_server_the_shorter_the_idle_timeout() {
        let (_root, service) = service(0);
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
            assert_eq!(service.idle_timeout(open), want, "{open}");
        }
    }

    #[test]
    fn a_folder_without_its_slash_is_redirected_on_this_server() {
        let (_root, service) = service(0);
        let (code, location) = ask(&service, "GET //site?q", "", "Location");
        assert_eq!((code, location.as_str()), (301, "./site/?q"));
    }

    #[test]
    fn a_folder_is_listed_unless_that_is_off() {
        let (root, mut service) = service(0);
        fs::create_dir(root.path().join("empty")).unwrap();
        check(&service, "GET /empty/", "", 404);
        check(&service, "GET /empty", "", 404);
        service.config.has_listing = true;
        check(&service, "GET /empty/", "", 200);
        check(&service, "GET /empty", "", 301);
        check(&service, "GET /", "", 200);
        let of_page = ask(&service, "GET /site/", "", "Accept-Ranges");
        assert_eq!(
            of_page,
            (200, "bytes".to_owned()),
            "the index page comes first"
        );
    }

    #[test]
    fn a_part_of_a_file() {
        let (_root, service) = service(0);
        let range = |fields: &str| {
            let line = format!("GET /site/index.html\n{fields}");
            ask(&service, &line, "", "Content-Range")
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
        let (_, etag) = ask(&service, "GET /site/index.html", "", "ETag");
        let same = format!("Range: bytes=1-2\nIf-Range: {etag}");
        assert_eq!(range(&same), part("bytes 1-2/4"));
        let head = ask(&service, "HEAD /site/index.html\nRange: bytes=1-2", "", "");
        assert_eq!(head.0, 200);
    }

    #[test]
    fn conditions_are_kept() {
        let (root, service) = service(10);
        let etag = || ask(&service, "GET /site/index.html", "", "ETag").1;
        let first = etag();
        let path = "/site/index.html";
        check(
            &service,
            &format!("GET {path}\nIf-None-Match: {first}"),
            "",
            304,
        );
        check(&service, &format!("GET {path}\nIf-Match: \"x\""), "", 412);
        check(
            &service,
            &format!("PUT {path}\nIf-None-Match: *"),
            "new",
            412,
        );
        check(
            &service,
            &format!("PUT {path}\nIf-Match: {first}"),
            "new",
            200,
        );
        assert_ne!(etag(), first);
        check(
            &service,
            &format!("PUT {path}\nIf-Match: {first}"),
            "newer",
            412,
        );
        check(&service, "PUT /n\nIf-Match: *", "x", 412);
        check(&service, "PUT /n\nIf-None-Match: *", "x", 201);
        check(&service, "PUT /n", "y", 200);
        check(&service, "PUT /n\nContent-Range: bytes 0-0/1", "y", 400);
        assert_eq!(
            fs::read(root.path().join("site/index.html")).unwrap(),
            b"new"
        );
    }

    #[test]
    fn room_is_kept_free() {
        let (root, mut service) = service(10);
        service.files = Files::open(root.path(), 1 << 60, DAY).unwrap().into();
        check(&service, "PUT /n", "x", 507);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "the site");
    }

    #[test]
    fn a_form_saves_its_files_in_the_folder() {
        let (root, service) = service(200);
        let form = "--b\r\nContent-Disposition: form-data; name=f; filename=\"C:\\\\x\\\\one.txt\"\r\n\
                    \r\n1\r\n--b\r\nContent-Disposition: form-data; filename=\"../two\"\r\n\r\n\
                    22\r\n--b--\r\n";
        let post = |target: &str, fields: &str, form: &str| {
            let line =
                format!("POST {target}\nContent-Type: multipart/form-data; boundary=b{fields}");
            ask(&service, &line, form, "Location")
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
        check(&service, without_boundary, form, 400);
        assert!(!root.path().join("form").exists());
    }

    #[test]
    fn digests_are_checked_and_given() {
        let (root, service) = service(10);
        let digest = |body: &str| {
            let mut hasher = proto::http::digest::Hasher::default();
            hasher.update(body.as_bytes());
            proto::http::digest::format(&hasher.finish())
        };
        let put = |field: &str| format!("PUT /n\n{field}: {}", digest("right"));
        for field in ["Content-Digest", "Repr-Digest"] {
            check(&service, &put(field), "wrong", 400);
            assert!(!root.path().join("n").exists());
        }
        check(&service, &put("Repr-Digest"), "right", 201);
        check(&service, "PUT /n\nRepr-Digest: sha-256=x", "right", 400);
        check(&service, "PUT /n\nRepr-Digest: md5=:AA==:", "right", 200);
        check(&service, "PUT /n\nContent-Encoding: gzip", "x", 415);
        let get = |fields: &str| {
            let line = format!("GET /site/index.html\n{fields}");
            ask(&service, &line, "", "Repr-Digest")
        };
        assert_eq!(get(""), (200, String::new()));
        let long = fs::File::create(root.path().join("long")).unwrap();
        long.set_len((1 << 30) + 1).unwrap();
        let of_long = ask(
            &service,
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
