//! Downloads: `GET` and `HEAD` of files and folders.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use daemon::http::{Content, Handler, Ready, ReadyBody, Response};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proto::http::conditional::{self, Verdict, Version};
use proto::http::digest;
use proto::http::response::{Field, put_fields};
use proto::http::{Range, Refusal, RequestHead, Status, date};

use crate::connection::{Connections, NO_SNIFFING, path_of, refusal, sniffing_off};
use crate::files::{FILE_BYTES_MAX, FilesError, Found, Identity};
use crate::listing;
use crate::path::TreePath;

/// The bytes of a target that may not stand in a `Location` as they are. A browser takes a
/// backslash for a slash, and so two of them, or one behind a slash, for the start of a host.
const LOCATION_ESCAPES: &AsciiSet = &CONTROLS.add(b'\\');

/// A file up to so long is kept in memory, in bytes, where it leaves with its head in one system
/// call; a longer one is kept open, and the kernel copies it.
const READ_BYTES_MAX: u64 = 8 * 1024;

impl Connections {
    /// Answers with a file, or with what stands in a folder.
    pub(crate) fn give(&self, request: &RequestHead) -> Result<Response, Refusal> {
        // A folder's list can be asked for by name, also where there is an index page.
        let wants_list = self.has_listing && listing::is_asked_for(request);
        let is_plain = is_plain(request) && !wants_list;
        if is_plain && let Some(ready) = self.files.hot(request.path) {
            return Ok(ready.into());
        }
        let path = path_of(request)?;
        match self.files.find(&path).map_err(refusal)? {
            Found::File { .. } if wants_list && path.has_final_slash() => self.list(request, &path),
            Found::File {
                file,
                bytes,
                path,
                version,
            } => match is_plain && bytes <= FILE_BYTES_MAX {
                true => self.give_whole(request, file, bytes, &path, &version),
                false => self.give_file(request, file, bytes, &path, &version),
            },
            Found::Folder if self.has_listing => self.list(request, &path),
            Found::FolderWithoutSlash { has_index } if has_index || self.has_listing => {
                let moved = Refusal::new(
                    Status::MovedPermanently,
                    "this folder's path ends in a slash",
                );
                let location = with_slash(request.path, request.query);
                Ok(self.refuse(&moved).with_field("Location", location))
            }
            Found::Folder | Found::FolderWithoutSlash { .. } => Err(refusal(FilesError::NotFound)),
        }
    }

    /// Answers with what stands in a folder.
    fn list(&self, request: &RequestHead, path: &TreePath) -> Result<Response, Refusal> {
        let order = listing::order(request);
        let entries = self.files.list(path, order).map_err(refusal)?;
        let listed = listing::response(request, entries, order, self.upload_rules());
        listed.map(sniffing_off).map_err(refusal)
    }

    /// Answers with a whole file, and keeps what that takes for the next one who asks.
    fn give_whole(
        &self,
        request: &RequestHead,
        file: File,
        file_bytes: u64,
        path: &Path,
        version: &Version,
    ) -> Result<Response, Refusal> {
        let failed = |error| refusal(FilesError::Storage(error));
        let identity = Identity::of(&file.metadata().map_err(failed)?);
        let mut fields = Vec::new();
        put_fields(&mut fields, &fields_of(version));
        put_fields(&mut fields, &fields_of_content(path));
        let body = match file_bytes {
            0..=READ_BYTES_MAX => {
                let mut bytes = Vec::with_capacity(file_bytes as usize);
                file.take(file_bytes)
                    .read_to_end(&mut bytes)
                    .map_err(failed)?;
                ReadyBody::Bytes(bytes)
            }
            _ => ReadyBody::File(file, file_bytes),
        };
        let length = body.bytes().to_string();
        put_fields(&mut fields, &[("Content-Length", length.into())]);
        let ready = Arc::new(Ready { fields, body });
        if identity.is_settled() {
            let kept = Arc::clone(&ready);
            self.files.heat(request.path, path, identity, kept);
        }
        Ok(ready.into())
    }

    fn give_file(
        &self,
        request: &RequestHead,
        file: File,
        file_bytes: u64,
        path: &Path,
        version: &Version,
    ) -> Result<Response, Refusal> {
        let mut fields = Vec::from(fields_of(version));
        match conditional::judge(request, Some(version)) {
            Verdict::Go => {}
            Verdict::NotModified => {
                return Ok(Response {
                    status: Status::NotModified,
                    fields,
                    body: Content::None,
                });
            }
            Verdict::Failed => return Err(refusal(FilesError::Changed)),
        }
        // A range is for GET alone (RFC 9110 section 14.2).
        let range = match request.method == "GET" && conditional::range_is_current(request, version)
        {
            true => Range::of(request, file_bytes),
            false => Range::Whole,
        };
        let (status, start, bytes) = match range {
            Range::Whole => (Status::Ok, 0, file_bytes),
            Range::Part { start, bytes } => (Status::PartialContent, start, bytes),
            Range::Unsatisfiable => {
                let sentence = format!("the file has {file_bytes} bytes");
                let refused = self.refuse(&Refusal::new(Status::RangeNotSatisfiable, sentence));
                return Ok(refused.with_field("Content-Range", format!("bytes */{file_bytes}")));
            }
        };
        let wants_digest = request.fields("want-repr-digest").any(digest::is_wanted);
        if wants_digest {
            let digest = self.digests.of(&file, file_bytes);
            let digest = digest.map_err(|error| refusal(FilesError::Storage(error)))?;
            let digest = digest.map(|digest| digest::format(&digest).into());
            fields.extend(digest.map(|value| ("Repr-Digest", value)));
        }
        if status == Status::PartialContent {
            let end = start + bytes - 1;
            let range = format!("bytes {start}-{end}/{file_bytes}");
            fields.push(("Content-Range", range.into()));
        }
        fields.extend(fields_of_content(path));
        Ok(Response {
            status,
            fields,
            body: Content::File { file, start, bytes },
        })
    }
}

/// Whether a request is for a whole file, whatever version of it there is.
fn is_plain(request: &RequestHead) -> bool {
    let has = |name| request.fields(name).next().is_some();
    !(request.has_conditions() || has("range") || has("want-repr-digest"))
}

fn fields_of(version: &Version) -> [Field; 2] {
    [
        ("ETag", version.etag.clone().into()),
        ("Last-Modified", date::format(version.modified).into()),
    ]
}

fn fields_of_content(path: &Path) -> [Field; 3] {
    [
        ("Content-Type", content_type(path)),
        ("Accept-Ranges", "bytes".into()),
        NO_SNIFFING,
    ]
}

fn content_type(path: &Path) -> Cow<'static, str> {
    match mime_guess::from_path(path).first_raw() {
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8").into(),
        Some(other) => other.into(),
        None => "application/octet-stream".into(),
    }
}

/// The same target with one slash at the end of its path, and one in front: two would make the
/// first name of the path a host.
pub(crate) fn with_slash(path: &str, query: Option<&str>) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return "/".to_owned();
    }
    let path = utf8_percent_encode(path, LOCATION_ESCAPES);
    match query {
        None => format!("/{path}/"),
        Some(query) => {
            let query = utf8_percent_encode(query, LOCATION_ESCAPES);
            format!("/{path}/?{query}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
