//! Uploads that another try can go on with: "Resumable Uploads for HTTP"
//! (draft-ietf-httpbis-resumable-upload), its careful upload creation.
//!
//! The server makes an upload resource first, whose URL is kept in a state beside the file,
//! `.quartet-upload-NAME`. What the server has of the file is asked of that URL, and the rest is
//! appended to it. There is one state for a file: of two uploads of it that are both cut off, to two
//! places, the later can be gone on with.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::thread;

use cli::exit::with_causes;
use proto::http::ResponseHead;
use proto::http::digest::{self, Digest};
use proto::http::request::host_field;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::arrived::digest_in;
use crate::client::{Client, RETRY_PAUSE, TRIES};
use crate::connection::{Reply, Request, target, unexpected};
use crate::error::Kept;
use crate::progress::{Bar, above_bars};
use crate::source::{Content, Source};
use crate::state;
use crate::transfer::shown;
use crate::upload::{Uploaded, fields};

/// How the names of the states of uploads start.
const STATE_PREFIX: &str = ".quartet-upload-";

/// The version of the draft that is spoken, in each request.
const DRAFT: (&str, &str) = ("Upload-Draft-Interop-Version", "8");

/// The longest URL of an upload that is taken from a server, in bytes.
const URL_BYTES_MAX: usize = 4096;

/// The status for another offset than the upload has, and that of a server that says why it is
/// busy.
const CONFLICT: u16 = 409;
const LOCKED: u16 = 423;

/// An upload that has begun.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Host and port.
    server: String,
    /// Where the file is to stand, as a target.
    target: String,
    /// Whether only if nothing is there.
    is_new: bool,
    /// The file's digest, as a field has it.
    digest: String,
    /// The file's length.
    bytes: u64,
    /// The upload resource on that server: a path.
    url: String,
}

/// One upload: what it is of and where it goes.
struct Upload<'a> {
    client: &'a mut Client,
    source: &'a Source<'a>,
    digest: &'a Digest,
    path: &'a OsStr,
    is_new: bool,
    state_path: PathBuf,
}

/// What the server has of an upload.
enum Standing {
    /// All, in its place.
    Complete,
    /// So many bytes.
    Part(u64),
    /// Nothing: there is no such upload, or it is over.
    Gone,
    /// It cannot be said: the server is busy with the upload.
    Busy(Error),
}

/// What an append has led to.
enum Appended {
    /// The server has the file.
    All(Uploaded),
    /// The server has so many bytes of it.
    Part(u64),
    /// The server is busy with the upload: with an earlier connection perhaps, that is lost to us
    /// and not yet to it.
    Busy(Error),
}

impl Client {
    /// Sends a file, going on with an upload of the same that was cut off, if there was one.
    pub(crate) fn resume_upload(
        &mut self,
        source: &Source,
        digest: &Digest,
        path: &OsStr,
        is_new: bool,
    ) -> Result<Uploaded, Error> {
        let upload = Upload {
            state_path: state::beside(source.path(), STATE_PREFIX, "")?,
            client: self,
            source,
            digest,
            path,
            is_new,
        };
        upload.run()
    }
}

impl<'a> Upload<'a> {
    fn run(mut self) -> Result<Uploaded, Error> {
        let begun = state::read(&self.state_path)
            .filter(|begun: &State| is_url(&begun.url) && *begun == self.state(begun.url.clone()));
        if let Some(State { url, .. }) = begun {
            match self.standing(&url) {
                Ok(Standing::Part(offset)) => return self.go_on(&url, Some(offset)),
                Ok(Standing::Busy(_)) => return self.go_on(&url, None),
                Ok(Standing::Complete) => return Ok(self.was_there(&url)),
                Ok(Standing::Gone) if self.is_there()? => return Ok(self.was_there(&url)),
                Ok(Standing::Gone) => {
                    let path = shown(self.path);
                    above_bars(|| {
                        log::warn!("{path}: the server has nothing of it any more; starting over");
                    });
                }
                Err(error) => return Err(self.cut_off(&url, 0, error)),
            }
        }
        match self.create()? {
            Some(url) => self.go_on(&url, Some(0)),
            None => {
                let path = shown(self.path);
                above_bars(|| {
                    log::warn!("{path}: this server takes no uploads in pieces: sent in one");
                });
                let Self { client, source, .. } = self;
                client.send_at_once(source, self.digest, self.path, self.is_new)
            }
        }
    }

    /// The state of an upload of this file to there.
    fn state(&self, url: String) -> State {
        let server = self.client.server();
        State {
            server: host_field(&server.host, server.port),
            target: target(self.path),
            is_new: self.is_new,
            digest: digest::format(self.digest),
            bytes: self.source.bytes(),
            url,
        }
    }

    fn request(&self, method: &'static str) -> Request<'a> {
        Request::new(method, self.path).with(DRAFT.0, DRAFT.1)
    }

    /// Begins an upload, if the server knows how; returns its URL.
    fn create(&mut self) -> Result<Option<String>, Error> {
        let request = self.request("OPTIONS");
        let reply = self.client.connection.ask(&request)?;
        let is_known = reply.head.field("upload-limit").is_some();
        let _ = self.client.connection.sentence(reply);
        if !is_known {
            return Ok(None);
        }
        let request = self
            .request("POST")
            .with_all(fields(self.digest, self.is_new))
            .with("Upload-Complete", "?0")
            .with("Upload-Length", self.source.bytes().to_string())
            .with("Content-Length", "0");
        let reply = self.client.connection.ask(&request)?;
        if !matches!(reply.head.status, 200..=299) {
            return Err(self.client.connection.refusal(self.path, reply));
        }
        let url = reply.head.field("location").filter(|url| is_url(url));
        let Some(url) = url.map(str::to_owned) else {
            return Err(unexpected(self.path, reply.head.status));
        };
        let _ = self.client.connection.sentence(reply);
        // Before the first byte is sent: from now on, this client can be killed.
        if let Err(error) = state::write(&self.state_path, &self.state(url.clone())) {
            let state = shown(&self.state_path);
            above_bars(|| {
                log::warn!(
                    "cannot write {state}: {error}; if this client ends, no other can go on"
                );
            });
        }
        Ok(Some(url))
    }

    /// Appends what is missing to an upload that has so many bytes. When that is not known, or the
    /// connection is lost, the server is asked how many it has.
    fn go_on(mut self, url: &str, mut next: Option<u64>) -> Result<Uploaded, Error> {
        let bar = self.client.bar_of(self.source);
        let mut known = next.unwrap_or(0);
        let mut tries_left = TRIES;
        loop {
            tries_left -= 1;
            let appended = match next.take() {
                Some(offset) => self.append(url, offset, &bar),
                None => self.append_the_rest(url, &mut known, &bar),
            };
            let error = match appended {
                Ok(Appended::All(uploaded)) => {
                    self.forget(url);
                    return Ok(uploaded);
                }
                Ok(Appended::Part(offset)) if tries_left > 0 => {
                    known = offset;
                    next = Some(offset);
                    continue;
                }
                Ok(Appended::Part(_)) => unexpected(self.path, CONFLICT),
                Ok(Appended::Busy(error))
                | Err(error @ (Error::Lost { .. } | Error::Connect(_)))
                    if tries_left > 0 =>
                {
                    above_bars(|| log::warn!("{}; going on", with_causes(&error)));
                    thread::park_timeout(RETRY_PAUSE);
                    continue;
                }
                Ok(Appended::Busy(error)) | Err(error) => error,
            };
            return Err(self.cut_off(url, known, error));
        }
    }

    /// Asks how many bytes an upload has, and appends what is missing.
    fn append_the_rest(
        &mut self,
        url: &str,
        known: &mut u64,
        bar: &Bar,
    ) -> Result<Appended, Error> {
        match self.standing(url)? {
            Standing::Part(offset) => {
                *known = offset;
                self.append(url, offset, bar)
            }
            Standing::Busy(error) => Ok(Appended::Busy(error)),
            // The last reply was lost on its way here.
            Standing::Complete => Ok(Appended::All(self.was_there(url))),
            // Perhaps it was, and the server does not remember.
            Standing::Gone if self.is_there()? => Ok(Appended::All(self.was_there(url))),
            Standing::Gone => {
                self.forget(url);
                Err(Error::UploadGone(shown(self.path).to_string()))
            }
        }
    }

    /// The server has the file, and has said so before.
    fn was_there(&self, url: &str) -> Uploaded {
        self.forget(url);
        Uploaded {
            bytes: self.source.bytes(),
            answer: "the server had all of it".to_owned(),
        }
    }

    /// Asks what the server has of an upload.
    fn standing(&mut self, url: &str) -> Result<Standing, Error> {
        let request = self.request("HEAD").at(url);
        let reply = self.client.connection.ask(&request)?;
        match reply.head.status {
            200..=299 => {
                let offset = offset_of(&reply.head);
                let is_complete = is_complete(&reply.head);
                let status = reply.head.status;
                self.client.connection.keep(reply, true);
                match offset {
                    _ if is_complete => Ok(Standing::Complete),
                    Some(offset) if offset <= self.source.bytes() => Ok(Standing::Part(offset)),
                    _ => {
                        self.forget(url);
                        Err(unexpected(self.path, status))
                    }
                }
            }
            404 | 410 => {
                self.client.connection.keep(reply, true);
                Ok(Standing::Gone)
            }
            LOCKED => Ok(Standing::Busy(self.refusal(url, reply))),
            _ => Err(self.refusal(url, reply)),
        }
    }

    /// Sends the file from this byte on.
    fn append(&mut self, url: &str, offset: u64, bar: &Bar) -> Result<Appended, Error> {
        // Of a connection that is lost, the server may have taken something.
        let request = self
            .request("PATCH")
            .at(url)
            .once()
            .with("Content-Type", "application/partial-upload")
            .with("Upload-Offset", offset.to_string())
            .with("Upload-Complete", "?1")
            .with_content(Content {
                source: self.source,
                start: offset,
                bar,
            });
        let reply = self.client.connection.ask(&request)?;
        let status = reply.head.status;
        match (status, offset_of(&reply.head)) {
            (200..=299, _) if is_complete(&reply.head) => {
                Ok(Appended::All(self.client.uploaded(self.source, reply)))
            }
            (200..=299 | CONFLICT, Some(other))
                if other != offset && other <= self.source.bytes() && !is_complete(&reply.head) =>
            {
                let _ = self.client.connection.sentence(reply);
                Ok(Appended::Part(other))
            }
            (200..=299, _) => Err(unexpected(self.path, status)),
            (CONFLICT | LOCKED, _) if !is_complete(&reply.head) => {
                Ok(Appended::Busy(self.refusal(url, reply)))
            }
            _ => Err(self.refusal(url, reply)),
        }
    }

    /// Whether the server has this file where it is to stand.
    fn is_there(&mut self) -> Result<bool, Error> {
        let request = self.request("HEAD").with("Want-Repr-Digest", "sha-256=1");
        let reply = self.client.connection.ask(&request)?;
        let is_there =
            reply.head.status == 200 && digest_in(&reply.head).as_ref() == Some(self.digest);
        self.client.connection.keep(reply, true);
        Ok(is_there)
    }

    /// Why the server refuses to go on. If another try would fare no better, there is none.
    fn refusal(&mut self, url: &str, reply: Reply) -> Error {
        let is_final = match reply.head.status {
            // It is the whole file that is refused, not a part of it.
            _ if is_complete(&reply.head) => true,
            // Who asks can change, and so can how busy the server is.
            401 | 403 | 408 | CONFLICT | LOCKED | 429 => false,
            status => matches!(status, 400..=499),
        };
        if is_final {
            self.forget(url);
        }
        self.client.connection.refusal(self.path, reply)
    }

    /// Removes the state of an upload, unless another client has begun another meanwhile.
    fn forget(&self, url: &str) {
        if state::read(&self.state_path).is_none_or(|state: State| state.url == url) {
            state::remove(&self.state_path);
        }
    }

    /// An error, and what another try need not send again. A file that has changed is another.
    fn cut_off(&self, url: &str, bytes: u64, error: Error) -> Error {
        if let Error::Changed(_) = error {
            self.forget(url);
        }
        if state::read(&self.state_path).is_none_or(|state: State| state.url != url) {
            return error;
        }
        Error::CutOff {
            cause: Box::new(error),
            bytes,
            kept: Kept::OnServer,
        }
    }
}

/// Whether this is a path on the same server, that can stand in a request as it is.
fn is_url(url: &str) -> bool {
    url.len() <= URL_BYTES_MAX
        && url.starts_with('/')
        && !url.starts_with("//")
        && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The value of an `Upload-Offset` field: a number, and nothing else.
fn offset_of(head: &ResponseHead) -> Option<u64> {
    let value = head.field("upload-offset")?.trim();
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| value.parse().ok()).flatten()
}

fn is_complete(head: &ResponseHead) -> bool {
    head.field("upload-complete").map(str::trim) == Some("?1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_stays_on_its_server() {
        for url in ["/a/.quartet-upload-1", "/", "/a?b#c"] {
            assert!(is_url(url), "{url}");
        }
        let long = format!("/{}", "a".repeat(URL_BYTES_MAX));
        for url in [
            "",
            "a",
            "//h/a",
            "http://h/a",
            "/a b",
            "/a\r\nB: c",
            "/\u{e4}",
            &long,
        ] {
            assert!(!is_url(url), "{url}");
        }
    }

    #[test]
    fn an_offset_is_a_number() {
        let check = |value: &str, want: Option<u64>| {
            let head = format!("HTTP/1.1 204 No Content\r\nUpload-Offset: {value}\r\n\r\n");
            let head = ResponseHead::read(&mut head.as_bytes(), "HEAD").unwrap();
            assert_eq!(offset_of(&head), want, "{value}");
        };
        check("0", Some(0));
        check(" 70 ", Some(70));
        for other in [
            "",
            "-1",
            "+1",
            "1.0",
            "\"1\"",
            "1, 1",
            "18446744073709551616",
        ] {
            check(other, None);
        }
    }
}
