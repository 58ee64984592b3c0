//! Resumable uploads (draft-ietf-httpbis-resumable-upload).
//!
//! A request with `Upload-Complete` creates one. Its reply says under which path the upload continues:
//! there `HEAD` asks for the offset, `PATCH` appends, and `DELETE` cancels.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use daemon::http::{Content, HttpHandler, RequestBody, Response};
use percent_encoding::percent_encode;
use proto::http::request::put_head;
use proto::http::response::Field;
use proto::http::resumable::{self, COMPLETE, LENGTH, LIMIT, OFFSET};
use proto::http::{BodyLength, Refusal, RequestHead, Status};
use serde_json::json;

use crate::files::{Abort, Reopened, Upload};
use crate::page::LINK_ESCAPES;
use crate::path::TreePath;
use crate::service::{ALLOWED_OF_RESOURCE, FileService, Reply, path_of, with_always};

/// The fields of the request that began an upload that still matter at its end.
const KEPT_FIELDS: [&str; 4] = [
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "repr-digest",
];

/// Where the types of problems are registered (RFC 9457 section 4.2).
const PROBLEMS: &str = "https://iana.org/assignments/http-problem-types#";

/// The part of an upload that a request sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Whether it ends at the end of the file.
    pub(crate) is_last: bool,
    /// The file's length, if the request says it.
    pub(crate) length: Option<u64>,
}

impl Part {
    /// The part that a request sends, which starts at `offset`. `known` is the file's length, as far as
    /// earlier requests said it. `None` if the request is no resumable upload.
    ///
    /// # Errors
    /// If the request contradicts itself or `known`.
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

impl FileService {
    /// Makes an upload resumable and announces its path, if the client understands an interim
    /// response. Otherwise the client would not know of what is kept.
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
        make_resumable(upload, request, length, body)?;
        let location = location(request.path, &upload.resource());
        let version = resumable::INTEROP_VERSION.to_string();
        let fields = [
            ("Location", location.into()),
            (LIMIT, self.limit(self.config.resume_keep).into()),
            (resumable::VERSION, version.into()),
        ];
        // If it does not arrive, the connection is lost, and reading the body fails.
        let _ = body.inform(Status::UploadResumptionSupported, &fields);
        Ok(())
    }

    /// The reply to the request that created an upload, if the file has more parts.
    pub(crate) fn created(
        &self,
        upload: &mut Upload,
        request: &RequestHead,
        length: Option<u64>,
        body: &mut dyn RequestBody,
    ) -> Reply {
        let is_announced = upload.is_resumable();
        if !is_announced {
            make_resumable(upload, request, length, body)?;
        }
        let appended = self.appended(upload);
        let mut response = appended.inspect_err(|_| {
            if !is_announced {
                upload.discard();
            }
        })?;
        response.status = Status::Created;
        response.body = Content::Bytes(Vec::new());
        let resource = location(request.path, &upload.resource());
        Ok(response.with_field("Location", resource))
    }

    /// Makes a complete upload a file, on the conditions of the request that `began` it.
    ///
    /// # Errors
    /// If it cannot be synced: then it is not complete.
    pub(crate) fn complete(&self, began: &RequestHead, mut upload: Upload) -> Reply {
        upload.sync()?;
        let (response, is_complete) = match self.commit(began, &mut upload) {
            Ok(response) => (response, true),
            // If it is still kept, another request can complete it.
            Err(refusal) => (self.refuse(&refusal), !upload.is_resumable()),
        };
        Ok(response.with_field(COMPLETE, resumable::format_boolean(is_complete)))
    }

    /// The reply to a request that appended a part, if the file has more.
    fn appended(&self, upload: &mut Upload) -> Reply {
        upload.save()?;
        Ok(with_always(Response {
            fields: self.progress(false, upload.bytes(), upload.keep_time()),
            ..Response::empty(Status::NoContent)
        }))
    }

    /// Answers a request for the path of an upload.
    pub(crate) fn resource(&self, request: &RequestHead, body: &mut dyn RequestBody) -> Reply {
        self.check_upload(request)?;
        match request.method {
            "GET" | "HEAD" => self.offset(request, body),
            "PATCH" => self.append_part(request, body).or_else(|refusal| {
                let refused = self.refuse(&refusal);
                Ok(refused.with_field(COMPLETE, resumable::format_boolean(false)))
            }),
            "DELETE" => self.cancel(request, body),
            _ => Ok(self.not_allowed(ALLOWED_OF_RESOURCE)),
        }
    }

    fn reopen(
        &self,
        request: &RequestHead,
        body: &mut dyn RequestBody,
    ) -> Result<Reopened<'_>, Refusal> {
        // This server wrote the head, after it had checked the request.
        let target = |head: &[u8]| TreePath::decode(RequestHead::parse(head).ok()?.path).ok();
        let path = path_of(request)?;
        Ok(self.files.reopen(&path, abort_of(body), target)?)
    }

    fn cancel(&self, request: &RequestHead, body: &mut dyn RequestBody) -> Reply {
        match self.reopen(request, body)? {
            Reopened::Incomplete(mut unfinished) => {
                unfinished.upload.discard();
                Ok(Response::empty(Status::NoContent))
            }
            Reopened::Complete { .. } => {
                let sentence = "the upload is complete and cannot be cancelled";
                Err(Refusal::new(Status::Conflict, sentence))
            }
        }
    }

    fn offset(&self, request: &RequestHead, body: &mut dyn RequestBody) -> Reply {
        let (is_complete, bytes, length, keep) = match self.reopen(request, body)? {
            Reopened::Complete { bytes, keep } => (true, bytes, Some(bytes), keep),
            Reopened::Incomplete(mut unfinished) => {
                let upload = &mut unfinished.upload;
                // The client may now drop what it has sent.
                upload.save()?;
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

    fn append_part(&self, request: &RequestHead, body: &mut dyn RequestBody) -> Reply {
        let kind = request.fields("content-type").next().unwrap_or_default();
        if !kind.eq_ignore_ascii_case(resumable::PARTIAL_UPLOAD.as_bytes()) {
            let sentence = "an upload continues with the Content-Type application/partial-upload";
            let refused = Refusal::new(Status::UnsupportedMediaType, sentence);
            let refused = self.refuse(&refused);
            return Ok(refused.with_field("Accept-Patch", resumable::PARTIAL_UPLOAD));
        }
        let offset = resumable::integer(request, OFFSET);
        let (Some(offset), Some(_)) = (offset, resumable::boolean(request, COMPLETE)) else {
            let sentence =
                "an upload continues with Upload-Offset: NUMBER and Upload-Complete: ?0 or ?1";
            return Err(Refusal::new(Status::BadRequest, sentence));
        };
        let (mut upload, head) = match self.reopen(request, body)? {
            Reopened::Incomplete(unfinished) => (unfinished.upload, unfinished.head),
            Reopened::Complete { bytes, keep } => return Ok(self.completed(bytes, keep)),
        };
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
        upload.check_room(length.unwrap_or(offset))?;
        if known.is_none()
            && let Some(length) = length
        {
            upload.set_length(length)?;
        }
        self.append(&mut upload, request, body, length)?;
        match part.is_last {
            true if length.is_some_and(|length| length != upload.bytes()) => {
                Err(inconsistent_length())
            }
            true => self.complete(&began, upload),
            false => self.appended(&mut upload),
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

    /// The reply to a request that appends to a complete upload.
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

    /// The value of `Upload-Limit`: the largest file, in bytes, and how long an interrupted upload is
    /// kept, in seconds.
    pub(crate) fn limit(&self, keep: Duration) -> String {
        let bytes = self.config.upload_bytes_max.min(resumable::INTEGER_MAX);
        format!("max-size={bytes}, max-age={}", keep.as_secs())
    }
}

/// A refusal as a problem for programs (RFC 9457), with further fields.
fn refused_as(status: Status, problem: &serde_json::Value, fields: Vec<Field>) -> Response {
    let mut response = Response::new(status, "application/problem+json", format!("{problem}\n"));
    response.fields.extend(fields);
    response
}

/// The path under which an upload continues, relative to the target of the request that began it: so
/// it is right even if a proxy removes the front of the path.
fn location(target: &str, resource: &Path) -> String {
    let up = match target.matches('/').count() {
        0 | 1 => "./".to_owned(),
        slashes => "../".repeat(slashes - 1),
    };
    let name = |name| percent_encode(name, LINK_ESCAPES).to_string();
    let names: Vec<_> = resource.iter().map(|part| name(part.as_bytes())).collect();
    up + &names.join("/")
}

/// Makes an upload resumable. The body's connection is aborted when another request reopens it.
fn make_resumable(
    upload: &mut Upload,
    request: &RequestHead,
    length: Option<u64>,
    body: &mut dyn RequestBody,
) -> Result<(), Refusal> {
    Ok(upload.make_resumable(&kept_head(request), length, abort_of(body))?)
}

fn abort_of(body: &mut dyn RequestBody) -> Abort {
    let handle = body.abort_handle();
    Box::new(move || handle.abort())
}

/// The part of a request's head that is needed to complete the upload that it began.
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
    fn the_path_of_an_upload_is_relative_to_its_target() {
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
