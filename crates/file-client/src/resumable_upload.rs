//! Uploads that a later try can resume: "Resumable Uploads for HTTP"
//! (draft-ietf-httpbis-resumable-upload), its careful upload creation.
//!
//! The server first makes an upload resource, whose URL is kept in a state beside the file,
//! `.quartet-upload-NAME`. A `HEAD` to that URL tells how much the server has of the file, and a `PATCH`
//! appends the rest. There is one state for a file: if two uploads of it are cut off, only the later one
//! can be resumed.
//!
//! The URL in a state does not say where the file will be, and a state may come out of an archive. So
//! after a resumed upload the client looks whether the file is at its path.

use std::thread;

use cli::exit::with_causes;
use proto::http::ResponseHead;
use proto::http::digest;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cleanup;
use crate::client::{Client, RETRY_PAUSE, TRIES};
use crate::connection::{Reply, Request, target, unexpected};
use crate::error::Kept;
use crate::escaped::escaped;
use crate::location::{is_url, seen_from};
use crate::place::Place;
use crate::progress::{Bar, above_bars};
use crate::received::{WANT_DIGEST, digest_in};
use crate::sidecar::{self, UPLOAD_PREFIX};
use crate::source::Content;
use crate::upload::{Upload, Uploaded};

/// The version of the draft that is spoken, in each request.
const DRAFT: (&str, &str) = ("Upload-Draft-Interop-Version", "8");

/// The upload has another offset.
const CONFLICT: u16 = 409;

/// The server is busy with this upload, or with other requests.
const LOCKED: u16 = 423;
const UNAVAILABLE: u16 = 503;

/// What is kept of an upload, to resume it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Host and port.
    server: String,
    /// The path of the file on the server, as a request target.
    target: String,
    /// Whether the server refuses if it has a file there.
    is_new: bool,
    /// The file's digest, as in a `Repr-Digest` field.
    digest: String,
    /// The file's length.
    bytes: u64,
    /// The upload resource on that server: a path.
    url: String,
}

/// A resumable upload under way.
struct ResumableUpload<'a> {
    client: &'a mut Client,
    upload: &'a Upload<'a>,
    state_place: Place,
    /// The upload resource on the server, as soon as it is known.
    url: String,
    /// How much the server is known to have, in bytes.
    known: u64,
}

/// What the server has of an upload.
enum Progress {
    /// All of it.
    Complete(Uploaded),
    /// This many bytes.
    Part(u64),
    /// Nothing that it knows of.
    Gone,
    /// It is busy with the upload, perhaps with an earlier connection that only the client knows to be
    /// lost.
    Busy(Error),
}

/// What is at the path that a file was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// This file.
    Same,
    /// A file of this length without a digest, or one that the server does not show.
    Unknown,
    /// Something else, or nothing.
    Other,
}

impl Client {
    /// Sends a file. An upload of the same file that was cut off is resumed.
    pub(crate) fn resume_upload(&mut self, upload: &Upload) -> Result<Uploaded, Error> {
        let file = upload.source.place()?;
        cleanup::remove_stale_in(file.folder());
        let upload = ResumableUpload {
            state_place: sidecar::named(&file, UPLOAD_PREFIX)?,
            client: self,
            upload,
            url: String::new(),
            known: 0,
        };
        upload.run()
    }
}

impl<'a> ResumableUpload<'a> {
    fn run(mut self) -> Result<Uploaded, Error> {
        let path = escaped(self.upload.path);
        let earlier = sidecar::find(&self.state_place)
            .filter(|state: &State| is_url(&state.url) && *state == self.state(&state.url));
        if let Some(State { url, .. }) = earlier {
            self.url = url;
            if let Some(uploaded) = self.send(None)? {
                return Ok(uploaded);
            }
            above_bars(|| log::warn!("{path}: the server has nothing of it; starting over"));
        }
        if !self.create()? {
            above_bars(|| {
                log::warn!("{path}: this server takes no uploads in pieces: sent in one")
            });
            return self.client.send_at_once(self.upload);
        }
        let uploaded = self.send(Some(0))?;
        uploaded.ok_or_else(|| Error::UploadGone(path.to_string()))
    }

    /// The state of this upload.
    fn state(&self, url: &str) -> State {
        State {
            server: self.client.server().address.to_string(),
            target: target(self.upload.path),
            is_new: self.upload.is_new,
            digest: digest::format(&self.upload.digest),
            bytes: self.upload.source.bytes(),
            url: url.to_owned(),
        }
    }

    fn request(&self, method: &'static str) -> Request<'a> {
        Request::new(method, self.upload.path).with(DRAFT.0, DRAFT.1)
    }

    fn unexpected(&self, status: u16) -> Error {
        unexpected(self.upload.path, status)
    }

    /// Makes an upload resource. `false` if the server has no resumable uploads.
    fn create(&mut self) -> Result<bool, Error> {
        let request = self.request("OPTIONS");
        let reply = self.client.connection.ask(&request)?;
        let is_known = reply.head.field("upload-limit").is_some();
        let _ = self.client.connection.sentence(reply);
        if !is_known {
            return Ok(false);
        }
        let request = self
            .request("POST")
            .with_all(self.upload.fields())
            .with("Upload-Complete", "?0")
            .with("Upload-Length", self.upload.source.bytes().to_string())
            .with("Content-Length", "0");
        let reply = self.client.connection.ask(&request)?;
        if !matches!(reply.head.status, 200..=299) {
            return Err(self.client.connection.refusal(self.upload.path, reply));
        }
        let url = reply.head.field("location");
        let url = url.map(|url| seen_from(&target(self.upload.path), url));
        let Some(url) = url.filter(|url| is_url(url)) else {
            return Err(self.unexpected(reply.head.status));
        };
        let _ = self.client.connection.sentence(reply);
        // Before the first byte is sent: from now on, this client can be killed.
        if let Err(error) = sidecar::write(&self.state_place, &self.state(&url)) {
            let path = self.state_place.path();
            let state = escaped(&path);
            above_bars(|| {
                log::warn!(
                    "cannot write {state}: {error}; if this client ends, no other can continue"
                );
            });
        }
        self.url = url;
        Ok(true)
    }

    /// Appends what is missing to an upload resource. `offset` is what the server has; if that is not
    /// known, and when the connection is lost, the server is asked. `None` if it has neither the
    /// upload nor the file.
    fn send(&mut self, offset: Option<u64>) -> Result<Option<Uploaded>, Error> {
        let is_ours = offset.is_some();
        let bar = self.client.bar_of(self.upload.source);
        self.known = offset.unwrap_or(0);
        let mut next = offset;
        let mut has_met = is_ours;
        let mut tries_left = TRIES;
        let patience = self.client.server().timeout;
        let mut patience_left = patience;
        let error = loop {
            let (progress, was_asked) = match next.take() {
                Some(offset) => (self.append(offset, &bar), false),
                None => (self.progress(), true),
            };
            has_met |= progress.is_ok();
            let error = match progress {
                Ok(Progress::Complete(uploaded)) => {
                    // An upload that this client began is of this file and for this path.
                    let is_there = is_ours || self.find()? != Found::Other;
                    self.forget();
                    return Ok(is_there.then_some(uploaded));
                }
                // It may have been complete, and the server has dropped the resource.
                Ok(Progress::Gone) => {
                    let found = self.find()?;
                    self.forget();
                    return Ok((found == Found::Same).then(|| self.was_complete()));
                }
                Ok(Progress::Part(offset)) => {
                    (self.known, next) = (offset, Some(offset));
                    if was_asked {
                        continue;
                    }
                    tries_left -= 1;
                    if tries_left == 0 {
                        break self.unexpected(CONFLICT);
                    }
                    continue;
                }
                Ok(Progress::Busy(error)) => {
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
                Err(error) if error.is_loss() && has_met => {
                    tries_left -= 1;
                    if tries_left == 0 {
                        break error;
                    }
                    error
                }
                Err(error) => break error,
            };
            above_bars(|| log::warn!("{}; trying again", with_causes(&error)));
            thread::park_timeout(RETRY_PAUSE);
        };
        Err(self.cut_off(error))
    }

    /// For an upload that was complete before this try.
    fn was_complete(&self) -> Uploaded {
        Uploaded {
            bytes: self.upload.source.bytes(),
            answer: "the server had all of it".to_owned(),
        }
    }

    /// Asks how much the server has of an upload.
    fn progress(&mut self) -> Result<Progress, Error> {
        let request = self.request("HEAD").at(&self.url);
        let reply = self.client.connection.ask(&request)?;
        match reply.head.status {
            200..=299 => {
                let offset = offset_of(&reply.head);
                let is_complete = is_complete(&reply.head);
                let status = reply.head.status;
                self.client.connection.keep(reply, true);
                match offset {
                    // The reply to the last byte was lost.
                    _ if is_complete => Ok(Progress::Complete(self.was_complete())),
                    Some(offset) if offset <= self.upload.source.bytes() => {
                        Ok(Progress::Part(offset))
                    }
                    _ => {
                        self.forget();
                        Err(self.unexpected(status))
                    }
                }
            }
            404 | 410 => {
                self.client.connection.keep(reply, true);
                Ok(Progress::Gone)
            }
            CONFLICT | LOCKED | UNAVAILABLE => Ok(Progress::Busy(self.refusal(reply))),
            _ => Err(self.refusal(reply)),
        }
    }

    /// Sends the file from this byte on.
    fn append(&mut self, offset: u64, bar: &Bar) -> Result<Progress, Error> {
        // When the connection is lost, the server may have stored a part.
        let source = self.upload.source;
        let request = self
            .request("PATCH")
            .at(&self.url)
            .once()
            .with("Content-Type", "application/partial-upload")
            .with("Upload-Offset", offset.to_string())
            .with("Upload-Complete", "?1")
            .with_content(Content {
                source,
                start: offset,
                bar,
            });
        let reply = self.client.connection.ask(&request)?;
        let status = reply.head.status;
        match (status, offset_of(&reply.head)) {
            (200..=299, _) if is_complete(&reply.head) => {
                Ok(Progress::Complete(self.client.uploaded(source, reply)))
            }
            (200..=299 | CONFLICT, Some(other))
                if other != offset && other <= source.bytes() && !is_complete(&reply.head) =>
            {
                let _ = self.client.connection.sentence(reply);
                Ok(Progress::Part(other))
            }
            (200..=299, _) => Err(self.unexpected(status)),
            (CONFLICT | LOCKED | UNAVAILABLE, _) if !is_complete(&reply.head) => {
                Ok(Progress::Busy(self.refusal(reply)))
            }
            _ => Err(self.refusal(reply)),
        }
    }

    /// Asks what is at the path that the file was sent to.
    fn find(&mut self) -> Result<Found, Error> {
        let request = self.request("HEAD").with(WANT_DIGEST.0, WANT_DIGEST.1);
        let reply = self.client.connection.ask(&request);
        let reply = reply.map_err(|error| self.cut_off(error))?;
        let digest = digest_in(&reply.head);
        let length = reply.head.field("content-length");
        let is_as_long = length == Some(&self.upload.source.bytes().to_string());
        let found = match reply.head.status {
            200 if digest == Some(self.upload.digest) => Found::Same,
            200 if digest.is_none() && is_as_long => Found::Unknown,
            // The client may not look.
            401 | 403 | 405 | 501 => Found::Unknown,
            _ => Found::Other,
        };
        self.client.connection.keep(reply, true);
        Ok(found)
    }

    /// Why the server refuses. If a later try would be refused too, the state is removed.
    fn refusal(&mut self, reply: Reply) -> Error {
        let is_final = match reply.head.status {
            // The whole file is refused, not a part of it.
            _ if is_complete(&reply.head) => true,
            // Credentials can change, and so can the server's load.
            401 | 403 | 408 | CONFLICT | LOCKED | 429 => false,
            status => matches!(status, 400..=499),
        };
        if is_final {
            self.forget();
        }
        self.client.connection.refusal(self.upload.path, reply)
    }

    /// Whether the state on the disk is that of this upload; `None` if there is none.
    fn has_state(&self) -> Option<bool> {
        let state: Option<State> = sidecar::read(&self.state_place);
        state.map(|state| state.url == self.url)
    }

    /// Removes the state of an upload, unless another client has begun another meanwhile.
    fn forget(&self) {
        if self.has_state() != Some(false) {
            sidecar::remove(&self.state_place);
        }
    }

    /// An error, and what a later try need not send again. A file that has changed is sent anew.
    fn cut_off(&self, error: Error) -> Error {
        if let Error::Changed(_) = error {
            self.forget();
        }
        if self.has_state() != Some(true) {
            return error;
        }
        Error::CutOff {
            cause: Box::new(error),
            kept: Kept::OnServer(self.known),
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
