//! Uploads that can be gone on with (draft-ietf-httpbis-resumable-upload): a request that says
//! `Upload-Complete` begins one, and is told under which path the rest can be appended; there
//! `HEAD` asks how much has come, `PATCH` appends, and `DELETE` gives up.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use daemon::http::{Content, Handler, RequestBody, Response};
use percent_encoding::percent_encode;
use proto::http::request::put_head;
use proto::http::response::Field;
use proto::http::resumable::{self, COMPLETE, LENGTH, LIMIT, OFFSET};
use proto::http::{BodyLength, Refusal, RequestHead, Status};
use serde_json::json;

use crate::connection::{ALLOWED_OF_RESOURCE, Connections, path_of, refusal, with_always};
use crate::files::{Begun, Upload};
use crate::page::LINK_ESCAPES;

/// The fields of the request that began an upload which still matter at its end.
const KEPT_FIELDS: [&str; 4] = [
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "repr-digest",
];

/// Where the types of problems are registered (RFC 9457 section 4.2).
const PROBLEMS: &str = "https://iana.org/assignments/http-problem-types#";

/// What a request says of the upload that it begins or goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Whether its body goes up to the end of the file.
    pub(crate) is_last: bool,
    /// How long the file is, as far as the request tells.
    pub(crate) length: Option<u64>,
}

impl Part {
    /// What a request says whose body starts at `offset`, of a file that is `known` to be so long;
    /// `None` if it is an upload like any other.
    ///
    /// # Errors
    /// If it contradicts itself, or what is known.
    pub(crate) fn of(
        request: &RequestHead,
        offset: u64,
        known: Option<u64>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(is_last) = resumable::boolean(request, COMPLETE) else {
            return Ok(None);
        };
        let end = match request.body {
            BodyLength::Bytes(bytes) => Some(offset.saturating_add(bytes)),
            BodyLength::None => Some(offset),
            _ => None,
        };
        let announced = resumable::integer(request, LENGTH);
        let length = known.or(announced);
        let is_consistent = match (length, end) {
            (Some(length), Some(end)) if is_last => length == end,
            (Some(length), Some(end)) => length >= end,
            _ => true,
        } && announced.is_none_or(|announced| Some(announced) == length);
        match is_consistent {
            true => Ok(Some(Self {
                is_last,
                length: length.or(end.filter(|_| is_last)),
            })),
            false => Err(inconsistent_length()),
        }
    }
}

pub(crate) fn inconsistent_length() -> Refusal {
    Refusal::new(Status::BadRequest, "inconsistent length values for upload")
}

impl Connections {
    /// Has what comes of an upload stay, and says where to go on with it, if the client can be told
    /// before the reply. Of one that cannot, nothing stays that it does not know of.
    pub(crate) fn announce(
        &self,
        upload: &mut Upload,
        request: &RequestHead,
        length: Option<u64>,
        body: &mut dyn RequestBody,
    ) -> Result<(), Refusal> {
        if resumable::integer(request, resumable::VERSION) != Some(resumable::INTEROP_VERSION) {
            return Ok(());
        }
        let kept = upload.keep(&kept_head(request), length, body.abort_handle());
        kept.map_err(refusal)?;
        let fields = [
            (
                "Location",
                location(request.path, &upload.resource()).into(),
            ),
            (LIMIT, self.limit(self.resume_keep).into()),
            (
                resumable::VERSION,
                resumable::INTEROP_VERSION.to_string().into(),
            ),
        ];
        // If it does not arrive, nor does anything else.
        let _ = body.inform(Status::UploadResumptionSupported, &fields);
        Ok(())
    }

    /// The reply to the request that has begun an upload, and whose body is not all of it.
    pub(crate) fn begun(
        &self,
        upload: &mut Upload,
        request: &RequestHead,
        length: Option<u64>,
        body: &mut dyn RequestBody,
    ) -> Result<Response, Refusal> {
        let is_announced = upload.is_kept();
        if !is_announced {
            let kept = upload.keep(&kept_head(request), length, body.abort_handle());
            kept.map_err(refusal)?;
        }
        let waiting = self.wait_for_more(upload);
        let mut response = waiting.inspect_err(|_| {
            if !is_announced {
                upload.forget();
            }
        })?;
        response.status = Status::Created;
        response.body = Content::Bytes(Vec::new());
        let resource = location(request.path, &upload.resource());
        Ok(response.with_field("Location", resource))
    }

    /// Puts an upload in its place that has come to its end, as the request that began it wants it.
    ///
    /// # Errors
    /// If not all of it can be put on the disk: then it has not come to its end.
    pub(crate) fn complete(
        &self,
        began: &RequestHead,
        mut upload: Upload,
    ) -> Result<Response, Refusal> {
        upload.sync().map_err(refusal)?;
        let (response, is_complete) = match self.place(began, &mut upload) {
            Ok(response) => (response, true),
            // What is still kept can be placed by another request.
            Err(refusal) => (self.refuse(&refusal), !upload.is_kept()),
        };
        Ok(response.with_field(COMPLETE, resumable::format_boolean(is_complete)))
    }

    /// The reply to a request whose body has come, but is not all.
    fn wait_for_more(&self, upload: &mut Upload) -> Result<Response, Refusal> {
        upload.save().map_err(refusal)?;
        Ok(with_always(Response {
            fields: self.progress(false, upload.bytes(), upload.keep_time()),
            ..Response::empty(Status::NoContent)
        }))
    }

    /// Answers a request for the path of an upload that was broken off.
    pub(crate) fn go_on(
        &self,
        request: &RequestHead,
        body: &mut dyn RequestBody,
    ) -> Result<Response, Refusal> {
        self.check_upload(request)?;
        match request.method {
            "GET" | "HEAD" => self.offset(request, body),
            "PATCH" => {
                let patched = self.patch(request, body);
                let refused = |refusal| {
                    let refused = self.refuse(&refusal);
                    refused.with_field(COMPLETE, resumable::format_boolean(false))
                };
                Ok(patched.unwrap_or_else(refused))
            }
            "DELETE" => {
                let path = path_of(request)?;
                let begun = self
                    .files
                    .take_up(&path, body.abort_handle())
                    .map_err(refusal)?;
                let Begun::Unfinished(mut unfinished) = begun else {
                    let sentence = "the upload is complete, and its file is in its place";
                    return Err(Refusal::new(Status::Conflict, sentence));
                };
                unfinished.upload.forget();
                Ok(Response::empty(Status::NoContent))
            }
            _ => Ok(self.not_allowed(ALLOWED_OF_RESOURCE)),
        }
    }

    fn offset(
        &self,
        request: &RequestHead,
        body: &mut dyn RequestBody,
    ) -> Result<Response, Refusal> {
        let path = path_of(request)?;
        let begun = self
            .files
            .take_up(&path, body.abort_handle())
            .map_err(refusal)?;
        let (is_complete, bytes, length, keep) = match begun {
            Begun::Finished { bytes, keep } => (true, bytes, Some(bytes), keep),
            Begun::Unfinished(mut unfinished) => {
                let upload = &mut unfinished.upload;
                // The client may now forget what it has sent.
                upload.save().map_err(refusal)?;
                (false, upload.bytes(), upload.length(), unfinished.keep)
            }
        };
        let mut response = Response {
            fields: self.progress(is_complete, bytes, keep),
            ..Response::empty(Status::NoContent)
        };
        if let Some(length) = length {
            response = response.with_field(LENGTH, length.to_string());
        }
        Ok(response.with_field("Cache-Control", "no-store"))
    }

    fn patch(
        &self,
        request: &RequestHead,
        body: &mut dyn RequestBody,
    ) -> Result<Response, Refusal> {
        let kind = request.fields("content-type").next().unwrap_or_default();
        if !kind.eq_ignore_ascii_case(resumable::PARTIAL_UPLOAD.as_bytes()) {
            let sentence = "an upload goes on with the Content-Type application/partial-upload";
            let refused = Refusal::new(Status::UnsupportedMediaType, sentence);
            let refused = self.refuse(&refused);
            return Ok(refused.with_field("Accept-Patch", resumable::PARTIAL_UPLOAD));
        }
        let offset = resumable::integer(request, OFFSET);
        let (Some(offset), Some(_)) = (offset, resumable::boolean(request, COMPLETE)) else {
            let sentence =
                "an upload goes on with Upload-Offset: NUMBER and Upload-Complete: ?0 or ?1";
            return Err(Refusal::new(Status::BadRequest, sentence));
        };
        let path = path_of(request)?;
        let begun = self
            .files
            .take_up(&path, body.abort_handle())
            .map_err(refusal)?;
        let unfinished = match begun {
            Begun::Unfinished(unfinished) => unfinished,
            Begun::Finished { bytes, keep } => return Ok(self.completed(bytes, keep)),
        };
        let (mut upload, head) = (unfinished.upload, unfinished.head);
        if offset != upload.bytes() {
            return Ok(self.mismatch(&upload, offset));
        }
        let began = RequestHead::parse(&head)?;
        let known = upload.length();
        let Some(part) = Part::of(request, offset, known)? else {
            return Err(inconsistent_length());
        };
        let length = part.length;
        self.check_length(length.unwrap_or(offset))?;
        upload
            .check_room(length.unwrap_or(offset))
            .map_err(refusal)?;
        if known.is_none()
            && let Some(length) = length
        {
            upload.set_length(length).map_err(refusal)?;
        }
        self.append(&mut upload, request, body, length)?;
        match part.is_last {
            true if length.is_some_and(|length| length != upload.bytes()) => {
                Err(inconsistent_length())
            }
            true => self.complete(&began, upload),
            false => self.wait_for_more(&mut upload),
        }
    }

    fn mismatch(&self, upload: &Upload, provided: u64) -> Response {
        let problem = json!({
            "type": format!("{PROBLEMS}mismatching-upload-offset"),
            "title": "offset from request does not match offset of resource",
            "expected-offset": upload.bytes(),
            "provided-offset": provided,
        });
        let progress = self.progress(false, upload.bytes(), upload.keep_time());
        refused_as(Status::Conflict, &problem, progress)
    }

    /// The reply to whoever goes on with an upload that is complete.
    fn completed(&self, bytes: u64, keep: Duration) -> Response {
        let problem = json!({
            "type": format!("{PROBLEMS}completed-upload"),
            "title": "upload is already completed",
        });
        let progress = self.progress(true, bytes, keep);
        refused_as(Status::BadRequest, &problem, progress)
    }

    fn progress(&self, is_complete: bool, bytes: u64, keep: Duration) -> Vec<Field> {
        vec![
            (COMPLETE, resumable::format_boolean(is_complete).into()),
            (OFFSET, bytes.to_string().into()),
            (LIMIT, self.limit(keep).into()),
        ]
    }

    /// What `Upload-Limit` says: how long a file may be, in bytes, and how long what has come of it
    /// is kept, in seconds.
    pub(crate) fn limit(&self, keep: Duration) -> String {
        let bytes = self.upload_bytes_max.min(resumable::INTEGER_MAX);
        format!("max-size={bytes}, max-age={}", keep.as_secs())
    }
}

/// A refusal for programs (RFC 9457), with further fields.
fn refused_as(status: Status, problem: &serde_json::Value, fields: Vec<Field>) -> Response {
    let mut response = Response::new(status, "application/problem+json", format!("{problem}\n"));
    response.fields.extend(fields);
    response
}

/// The path under which a client can go on with an upload, as seen from the target of the request that
/// begins it: so it is right also where a proxy has cut off the front of the path.
fn location(target: &str, resource: &Path) -> String {
    let up = match target.matches('/').count() {
        0 | 1 => "./".to_owned(),
        slashes => "../".repeat(slashes - 1),
    };
    let name = |name| percent_encode(name, LINK_ESCAPES).to_string();
    let names: Vec<_> = resource.iter().map(|part| name(part.as_bytes())).collect();
    up + &names.join("/")
}

/// What has to be known of the request that began an upload, to end it.
fn kept_head(began: &RequestHead) -> Vec<u8> {
    let text = |value| std::str::from_utf8(value).ok();
    let kept = |name| {
        began
            .fields(name)
            .filter_map(text)
            .map(move |value| (name, value))
    };
    let fields: Vec<(&str, &str)> = KEPT_FIELDS.into_iter().flat_map(kept).collect();
    let mut head = Vec::new();
    put_head(&mut head, began.method, began.path, "", &fields);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_it_can_be_seen_from_its_target() {
        let check = |target: &str, resource: &str, want: &str| {
            assert_eq!(location(target, Path::new(resource)), want, "{target}");
        };
        check("/new", ".quartet-upload-1", "./.quartet-upload-1");
        check("/a/new", "a/.quartet-upload-1", "../a/.quartet-upload-1");
        check(
            "/a//b/new",
            ".quartet-upload-1",
            "../../../.quartet-upload-1",
        );
        check("/a b/new", "a b/x", "../a%20b/x");
    }
}
