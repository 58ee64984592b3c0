//! Uploads that another try can go on with: "Resumable Uploads for HTTP"
//! (draft-ietf-httpbis-resumable-upload), its careful upload creation.
//!
//! The server makes an upload resource first, whose URL is kept in a state beside the file,
//! `.quartet-upload-NAME`. What the server has of the file is asked of that URL, and the rest is
//! appended to it. There is one state for a file: of two uploads of it that are both cut off, to two
//! places, the later can be gone on with.
//!
//! The URL in a state does not say where the file will stand, and a state may come out of an archive.
//! So what was gone on with is looked for at its place in the end.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::thread;

use cli::ClientError;
use cli::exit::with_causes;
use proto::http::ResponseHead;
use proto::http::digest::{self, Digest};
use proto::http::request::host_field;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::arrived::digest_in;
use crate::beside::{self, UPLOAD_PREFIX};
use crate::client::{Client, RETRY_PAUSE, TRIES};
use crate::connection::{Reply, Request, target, unexpected};
use crate::error::Kept;
use crate::leftovers;
use crate::location::{is_url, seen_from};
use crate::progress::{Bar, above_bars};
use crate::source::{Content, Source};
use crate::state;
use crate::transfer::shown;
use crate::upload::{Uploaded, fields};

/// The version of the draft that is spoken, in each request.
const DRAFT: (&str, &str) = ("Upload-Draft-Interop-Version", "8");

/// The status for another offset than the upload has, and those of a server that is busy with it, or
/// with others.
const CONFLICT: u16 = 409;
const LOCKED: u16 = 423;
const UNAVAILABLE: u16 = 503;

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
    /// All of it, as it says in reply to the last byte.
    Sent(Uploaded),
    /// All of it, as it says when it is asked.
    Complete,
    /// So many bytes.
    Part(u64),
    /// Nothing that it remembers.
    Gone,
    /// It is busy with the upload: with an earlier connection perhaps, that is lost to us and not yet
    /// to it.
    Busy(Error),
}

/// What stands where a file was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    /// This file.
    Same,
    /// A file of this length whose digest the server does not say, or one that it does not show.
    Perhaps,
    /// Something else, or nothing.
    Other,
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
        leftovers::remove_beside(source.path());
        let upload = Upload {
            state_path: beside::named(source.path(), UPLOAD_PREFIX)?,
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
        let begun = state::find(&self.state_path)
            .filter(|begun: &State| is_url(&begun.url) && *begun == self.state(begun.url.clone()));
        if let Some(State { url, .. }) = begun {
            if let Some(uploaded) = self.go_on(&url, None)? {
                return Ok(uploaded);
            }
            let path = shown(self.path);
            above_bars(|| log::warn!("{path}: the server has nothing of it; starting over"));
        }
        match self.create()? {
            Some(url) => {
                let uploaded = self.go_on(&url, Some(0))?;
                uploaded.ok_or_else(|| Error::UploadGone(shown(self.path).to_string()))
            }
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
        let url = reply.head.field("location");
        let url = url.map(|url| seen_from(&target(self.path), url));
        let Some(url) = url.filter(|url| is_url(url)) else {
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

    /// Appends what is missing to an upload that has so many bytes. If that is not known, and when the
    /// connection is lost, the server is asked. `None` if it has neither the upload nor the file.
    fn go_on(&mut self, url: &str, begun: Option<u64>) -> Result<Option<Uploaded>, Error> {
        let bar = self.client.bar_of(self.source);
        let mut known = begun.unwrap_or(0);
        let mut next = begun;
        let mut has_met = begun.is_some();
        let mut tries_left = TRIES;
        let patience = self.client.server().timeout;
        let mut patience_left = patience;
        let error = loop {
            let (standing, was_asked) = match next.take() {
                Some(offset) => (self.append(url, offset, &bar), false),
                None => (self.standing(url), true),
            };
            has_met |= standing.is_ok();
            let error = match standing {
                Ok(Standing::Sent(uploaded)) => return self.end(url, known, begun, uploaded),
                // The last reply was lost on its way here.
                Ok(Standing::Complete) => {
                    let uploaded = self.was_there();
                    return self.end(url, known, begun, uploaded);
                }
                // Perhaps it was, and the server does not remember.
                Ok(Standing::Gone) => {
                    let there = self.there();
                    let there = there.map_err(|error| self.cut_off(url, known, error))?;
                    self.forget(url);
                    return Ok((there == There::Same).then(|| self.was_there()));
                }
                Ok(Standing::Part(offset)) => {
                    (known, next) = (offset, Some(offset));
                    if was_asked {
                        continue;
                    }
                    tries_left -= 1;
                    if tries_left == 0 {
                        break unexpected(self.path, CONFLICT);
                    }
                    continue;
                }
                Ok(Standing::Busy(error)) => {
                    let is_first = patience_left == patience;
                    patience_left = patience_left.saturating_sub(RETRY_PAUSE);
                    if patience_left.is_zero() {
                        break error;
                    }
                    if !is_first {
                        thread::park_timeout(RETRY_PAUSE);
                        continue;
                    }
                    error
                }
                Err(error @ (Error::Lost { .. } | Error::Client(ClientError::Connect { .. })))
                    if has_met =>
                {
                    tries_left -= 1;
                    if tries_left == 0 {
                        break error;
                    }
                    error
                }
                Err(error) => break error,
            };
            above_bars(|| log::warn!("{}; going on", with_causes(&error)));
            thread::park_timeout(RETRY_PAUSE);
        };
        Err(self.cut_off(url, known, error))
    }

    /// Ends an upload that the server has all of. One that we have begun ourselves is of this file and
    /// for this place; of another, that is looked at.
    fn end(
        &mut self,
        url: &str,
        known: u64,
        begun: Option<u64>,
        uploaded: Uploaded,
    ) -> Result<Option<Uploaded>, Error> {
        let is_there = match begun {
            Some(_) => true,
            None => {
                let there = self.there();
                there.map_err(|error| self.cut_off(url, known, error))? != There::Other
            }
        };
        self.forget(url);
        Ok(is_there.then_some(uploaded))
    }

    /// The server has the file, and has said so before.
    fn was_there(&self) -> Uploaded {
        Uploaded {
            bytes: self.source.bytes(),
            answer: "the server had all of it".to_owned(),
        }
    }

    /// Asks how far an upload is.
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
            CONFLICT | LOCKED | UNAVAILABLE => Ok(Standing::Busy(self.refusal(url, reply))),
            _ => Err(self.refusal(url, reply)),
        }
    }

    /// Sends the file from this byte on.
    fn append(&mut self, url: &str, offset: u64, bar: &Bar) -> Result<Standing, Error> {
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
                Ok(Standing::Sent(self.client.uploaded(self.source, reply)))
            }
            (200..=299 | CONFLICT, Some(other))
                if other != offset && other <= self.source.bytes() && !is_complete(&reply.head) =>
            {
                let _ = self.client.connection.sentence(reply);
                Ok(Standing::Part(other))
            }
            (200..=299, _) => Err(unexpected(self.path, status)),
            (CONFLICT | LOCKED | UNAVAILABLE, _) if !is_complete(&reply.head) => {
                Ok(Standing::Busy(self.refusal(url, reply)))
            }
            _ => Err(self.refusal(url, reply)),
        }
    }

    /// Asks what stands where the file was to be sent.
    fn there(&mut self) -> Result<There, Error> {
        let request = self.request("HEAD").with("Want-Repr-Digest", "sha-256=1");
        let reply = self.client.connection.ask(&request)?;
        let digest = digest_in(&reply.head);
        let length = reply.head.field("content-length");
        let there = match reply.head.status {
            200 if digest.as_ref() == Some(self.digest) => There::Same,
            200 if digest.is_none() && length == Some(&self.source.bytes().to_string()) => {
                There::Perhaps
            }
            // Nobody may look, or not us.
            401 | 403 | 405 | 501 => There::Perhaps,
            _ => There::Other,
        };
        self.client.connection.keep(reply, true);
        Ok(there)
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
