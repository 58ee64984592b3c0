//! Downloads: `GET` and `HEAD` of files and folders.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use daemon::Caller;
use daemon::http::{Content, HttpHandler, Response};
use proto::http::conditional::{self, Verdict, Version};
use proto::http::digest;
use proto::http::response::{Field, put_fields};
use proto::http::{Range, Refusal, RequestHead, Status, date};

use crate::content_type::content_type;
use crate::error::FilesError;
use crate::file_cache::{CachedFile, Contents, FILE_BYTES_MAX};
use crate::files::{Found, FoundFile, seconds_now};
use crate::listing;
use crate::path::TreePath;
use crate::service::{ALWAYS, FileService, Reply, path_of, with_always};

/// The longest file whose contents the file cache reads, in bytes. A longer one stays open there.
const READ_BYTES_MAX: u64 = 8 * 1024;

impl FileService {
    /// Answers with a file, or with the list of a folder.
    pub(crate) fn download(&self, caller: &Caller, request: &RequestHead) -> Reply {
        let has_listing = self.config.has_listing;
        // `?json` and `?zip` ask for the list or an archive of a folder even if it has an index page.
        let is_asked_for =
            || listing::is_asked_for(request) || self.archive_asked_for(request).is_some();
        let wants_list = has_listing && is_asked_for();
        let is_plain = is_plain(request) && !wants_list;
        if is_plain && let Some(cached) = self.file_cache.get(request.path) {
            return Ok(cached.response());
        }
        let path = path_of(request)?;
        match self.files.find(&path)? {
            Found::File(_) if wants_list && path.has_final_slash() => {
                self.list(caller, request, &path)
            }
            Found::File(file) => Ok(match is_plain && file.identity.bytes() <= FILE_BYTES_MAX {
                true => self.small_file(request, file),
                false => self.file(request, file),
            }?),
            Found::Folder if has_listing => self.list(caller, request, &path),
            Found::FolderWithoutSlash { has_index } if has_index || has_listing => {
                let moved = Refusal::new(
                    Status::MovedPermanently,
                    "this folder's path ends in a slash",
                );
                let location = with_slash(request.path, request.query);
                Ok(self.refuse(&moved).with_field("Location", location))
            }
            Found::Folder | Found::FolderWithoutSlash { .. } => Err(FilesError::NotFound.into()),
        }
    }

    /// Answers with the list of a folder, or an archive of it.
    fn list(&self, caller: &Caller, request: &RequestHead, path: &TreePath) -> Reply {
        if let Some(format) = self.archive_asked_for(request) {
            return self.archive(request, path, format);
        }
        let query = listing::Query::of(request);
        let entries = self.files.list(path, query.selection())?;
        let listed = listing::response(request, entries, &query, self.offers(caller))?;
        Ok(with_always(listed))
    }

    /// Answers with a whole small file, and caches what the reply needs.
    fn small_file(&self, request: &RequestHead, found: FoundFile) -> Result<Response, FilesError> {
        let FoundFile {
            file,
            identity,
            path,
        } = found;
        let mut fields = fields_of(&identity.version());
        fields.extend(fields_of_content(&path, &file)?);
        self.make_private(&mut fields);
        let mut lines = Vec::new();
        put_fields(&mut lines, &fields);
        let contents = match identity.bytes() {
            file_bytes @ 0..=READ_BYTES_MAX => {
                let mut bytes = Vec::with_capacity(file_bytes as usize);
                let read = file.take(file_bytes).read_to_end(&mut bytes);
                read.map_err(FilesError::Storage)?;
                Contents::Read(bytes.into())
            }
            _ => Contents::Open(file.into()),
        };
        let cached = Arc::new(CachedFile {
            path: self.files.full_path(&path),
            identity,
            fields: lines.into(),
            contents,
        });
        if identity.is_stable() {
            self.file_cache.insert(request.path, Arc::clone(&cached));
        }
        Ok(cached.response())
    }

    /// Answers with a file or a part of it, on the conditions of the request.
    fn file(&self, request: &RequestHead, found: FoundFile) -> Result<Response, FilesError> {
        let FoundFile {
            file,
            identity,
            path,
        } = found;
        let (file_bytes, version) = (identity.bytes(), identity.version());
        let mut fields = fields_of(&version);
        match conditional::judge(request, Some(&version)) {
            Verdict::Go => {}
            Verdict::NotModified => {
                return Ok(Response {
                    fields,
                    ..Response::empty(Status::NotModified)
                });
            }
            Verdict::Failed => return Err(FilesError::Changed),
        }
        // Only GET has ranges (RFC 9110 section 14.2).
        let is_current = || conditional::range_is_current(request, &version, seconds_now());
        let range = match request.method == "GET" && is_current() {
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
        if request.fields("want-repr-digest").any(digest::is_wanted) {
            let digest = self.digests.of(&file, identity);
            let digest = digest.map_err(FilesError::Storage)?;
            fields.extend(digest.map(|digest| ("Repr-Digest", digest::format(&digest).into())));
        }
        if status == Status::PartialContent {
            let end = start + bytes - 1;
            let range = format!("bytes {start}-{end}/{file_bytes}");
            fields.push(("Content-Range", range.into()));
        }
        fields.extend(fields_of_content(&path, &file)?);
        Ok(Response {
            fields,
            body: Content::File {
                file: file.into(),
                start,
                bytes,
            },
            ..Response::empty(status)
        })
    }
}

/// Whether a request is for a whole file, whatever version of it there is.
fn is_plain(request: &RequestHead) -> bool {
    !(request.has_conditions() || request.has("range") || request.has("want-repr-digest"))
}

fn fields_of(version: &Version) -> Vec<Field> {
    let mut fields = vec![
        ("ETag", version.etag.clone().into()),
        ("Last-Modified", date::format(version.modified).into()),
    ];
    fields.extend(ALWAYS);
    fields
}

fn fields_of_content(path: &Path, file: &File) -> Result<[Field; 2], FilesError> {
    let content_type = content_type(path, file).map_err(FilesError::Storage)?;
    Ok([content_type, ("Accept-Ranges", "bytes".into())])
}

/// The link from a folder's path without its final slash to the one with it. It is relative, so that it
/// is right even if a proxy removes the front of the path. The dot keeps a colon from ending a scheme.
pub(crate) fn with_slash(path: &str, query: Option<&str>) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    match query {
        None => format!("./{name}/"),
        Some(query) => format!("./{name}/?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_on_this_server() {
        let check = |target: &str, want: &str| {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (target, None),
            };
            assert_eq!(with_slash(path, query), want);
        };
        check("/site", "./site/");
        check("/deep/site", "./site/");
        check("/a%20b?x=1&y", "./a%20b/?x=1&y");
        check("/http:b", "./http:b/");
        check("//evil.example", "./evil.example/");
        check("///evil.example?//x", "./evil.example/?//x");
    }
}
