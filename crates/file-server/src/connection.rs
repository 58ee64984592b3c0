//! What a request is answered.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use cli::exit::with_causes;
use daemon::http::{Content, Handler, Response, body_refusal};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proto::escape::Escaped;
use proto::http::{BodyLength, Refusal, RequestHead, Status};

use crate::files::{Files, FilesError, Found};
use crate::path::TreePath;

/// A connection alone on the server may be idle so long, one second less for every other...
const IDLE_MAX: Duration = Duration::from_secs(20);
/// ...but never less than this.
const IDLE_MIN: Duration = Duration::from_secs(5);

/// An upload is read and written in pieces of up to so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";

/// What the original server answers a whole upload.
const SAVED: &str = "File received and saved\n";

/// The bytes of a target that may not stand in a `Location` as they are. A browser takes a
/// backslash for a slash, and so two of them, or one behind a slash, for the start of a host.
const LOCATION_ESCAPES: &AsciiSet = &CONTROLS.add(b'\\');

/// The connections to the files.
pub(crate) struct Connections {
    pub(crate) files: Files,
    pub(crate) read_only: bool,
    pub(crate) upload_bytes_max: u64,
}

impl Handler for Connections {
    fn handle(&self, request: &RequestHead<'_>, body: &mut dyn Read) -> Result<Response, Refusal> {
        match request.method {
            "GET" | "HEAD" => self.give(request),
            "POST" => self.take(request, body),
            _ => {
                let allowed = match self.read_only {
                    true => "GET, HEAD",
                    false => "GET, HEAD, POST",
                };
                let sentence = format!("the methods here are {allowed}");
                let refusal = Refusal::new(Status::MethodNotAllowed, sentence);
                Ok(self.refuse(&refusal).with_field("Allow", allowed))
            }
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let body = format!("{}\n", refusal.sentence);
        sniffing_off(Response::new(refusal.status, TEXT, body))
    }

    fn idle_timeout(&self, open_connections: usize) -> Duration {
        let open = Duration::from_secs(open_connections as u64);
        IDLE_MAX.saturating_sub(open).max(IDLE_MIN)
    }
}

impl Connections {
    fn give(&self, request: &RequestHead) -> Result<Response, Refusal> {
        let path = TreePath::decode(request.path).map_err(bad_request)?;
        match self.files.find(&path).map_err(refusal)? {
            Found::File { file, bytes, path } => Ok(sniffing_off(Response {
                status: Status::Ok,
                fields: vec![("Content-Type", content_type(&path))],
                body: Content::File(file, bytes),
            })),
            Found::FolderWithoutSlash => {
                let moved = Refusal::new(
                    Status::MovedPermanently,
                    "this folder's path ends in a slash",
                );
                let location = with_slash(request.path, request.query);
                Ok(self.refuse(&moved).with_field("Location", location))
            }
        }
    }

    fn take(&self, request: &RequestHead, body: &mut dyn Read) -> Result<Response, Refusal> {
        if self.read_only {
            let sentence = "this server takes no uploads";
            return Err(Refusal::new(Status::Forbidden, sentence));
        }
        match request.body {
            BodyLength::None => {
                let sentence = "an upload needs a Content-Length or chunked coding";
                return Err(Refusal::new(Status::LengthRequired, sentence));
            }
            BodyLength::Bytes(bytes) => self.check_length(bytes)?,
            _ => {}
        }
        let path = TreePath::decode(request.path).map_err(bad_request)?;
        let mut upload = self.files.upload(&path).map_err(refusal)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = body.read(&mut piece);
            let bytes = read.map_err(|error| body_refusal(&error))?;
            if bytes == 0 {
                break;
            }
            self.check_length(upload.bytes() + bytes as u64)?;
            upload.write(&piece[..bytes]).map_err(refusal)?;
        }
        let bytes = upload.bytes();
        upload.finish().map_err(refusal)?;
        log::debug!("Saved {}: {bytes} bytes", Escaped(request.path));
        Ok(sniffing_off(Response::new(Status::Ok, TEXT, SAVED)))
    }

    fn check_length(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.upload_bytes_max {
            return Ok(());
        }
        let sentence = format!("an upload may have {} bytes", self.upload_bytes_max);
        Err(Refusal::new(Status::ContentTooLarge, sentence))
    }
}

/// A browser is to believe the type it is told. Else a text could be made to act as a page.
fn sniffing_off(response: Response) -> Response {
    response.with_field("X-Content-Type-Options", "nosniff")
}

fn content_type(path: &Path) -> Cow<'static, str> {
    match mime_guess::from_path(path).first_raw() {
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8").into(),
        Some(other) => other.into(),
        None => "application/octet-stream".into(),
    }
}

/// The same target with a slash at the end of its path. Two slashes in front would make the first
/// name of the path a host.
fn with_slash(path: &str, query: Option<&str>) -> String {
    let path = utf8_percent_encode(path.trim_start_matches('/'), LOCATION_ESCAPES);
    match query {
        None => format!("/{path}/"),
        Some(query) => {
            let query = utf8_percent_encode(query, LOCATION_ESCAPES);
            format!("/{path}/?{query}")
        }
    }
}

fn bad_request(error: crate::PathError) -> Refusal {
    Refusal::new(Status::BadRequest, error.to_string())
}

/// The refusal that goes with an error of the files. What the disk did is logged in full.
fn refusal(error: FilesError) -> Refusal {
    let status = match &error {
        FilesError::NotFound => Status::NotFound,
        FilesError::NotAllowed(_) | FilesError::Reserved => Status::Forbidden,
        FilesError::IsFolder | FilesError::NotAFolder => Status::Conflict,
        FilesError::NameTooLong => Status::BadRequest,
        FilesError::Busy(_) => Status::ServiceUnavailable,
        FilesError::NoSpace(_) => Status::InsufficientStorage,
        FilesError::Storage(_) => Status::InternalServerError,
    };
    match &error {
        FilesError::Busy(_) | FilesError::NoSpace(_) | FilesError::Storage(_) => {
            log::error!("{}", with_causes(&error));
        }
        FilesError::NotAllowed(_) => log::warn!("{}", with_causes(&error)),
        _ => {}
    }
    Refusal::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn connections(upload_bytes_max: u64) -> (TempDir, Connections) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("site")).unwrap();
        fs::write(root.path().join("site/index.html"), "page").unwrap();
        let connections = Connections {
            files: Files::open(root.path()).unwrap(),
            read_only: false,
            upload_bytes_max,
        };
        (root, connections)
    }

    /// The status of the reply to a request, and one of its fields if it has it.
    fn ask(connections: &Connections, line: &str, body: &str, field: &str) -> (u16, String) {
        let framing = match (line.starts_with("POST"), body) {
            (false, _) => String::new(),
            (true, "none") => String::new(),
            (true, "chunked") => "Transfer-Encoding: chunked\r\n".to_owned(),
            (true, body) => format!("Content-Length: {}\r\n", body.len()),
        };
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\n{framing}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        match connections.handle(&request, &mut body.as_bytes()) {
            Ok(response) => {
                let found = response.fields.iter().find(|(name, _)| *name == field);
                let value = found.map(|(_, value)| value.to_string());
                (response.status.code(), value.unwrap_or_default())
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
        check(&connections, "PUT /x", "", 405);
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
        assert_eq!((code, allow.as_str()), (405, "GET, HEAD"));
    }

    #[test]
    fn types_go_by_the_name() {
        let check = |path: &str, want: &str| assert_eq!(content_type(path.as_ref()), want);
        check("a.txt", "text/plain; charset=utf-8");
        check("a.html", "text/html; charset=utf-8");
        check("a.CSS", "text/css; charset=utf-8");
        check("a.jpg", "image/jpeg");
        check("a.b.png", "image/png");
        check("a.tar.gz", "application/gzip");
        check("a.json", "application/json");
        check("a", "application/octet-stream");
        check(".html", "application/octet-stream");
        check("a.unheard-of", "application/octet-stream");
    }

    #[test]
    fn a_redirect_stays_on_this_server() {
        let check = |target: &str, want: &str| {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (target, None),
            };
            assert_eq!(with_slash(path, query), want);
        };
        check("/site", "/site/");
        check("/a%20b?x=1&y", "/a%20b/?x=1&y");
        check("//evil.example", "/evil.example/");
        check("///evil.example?//x", "/evil.example/?//x");
        check("/\\evil.example", "/%5Cevil.example/");
        check("/ä?ä", "/%C3%A4/?%C3%A4");
        let (_root, connections) = connections(0);
        let (code, location) = ask(&connections, "GET //site?q", "", "Location");
        assert_eq!((code, location.as_str()), (301, "/site/?q"));
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
}
