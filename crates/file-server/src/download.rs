//! Downloads: `GET` and `HEAD` of files and folders.

use std::sync::Arc;

use daemon::Caller;
use daemon::http::{HttpHandler, Response};
use proto::http::conditional::{self, Verdict};
use proto::http::digest;
use proto::http::{Range, Refusal, RequestHead, Status};

use crate::access::make_private;
use crate::error::FilesError;
use crate::file_cache::FILE_BYTES_MAX;
use crate::files::{Found, seconds_now};
use crate::listing;
use crate::path::TreePath;
use crate::representations::{Representation, Representations};
use crate::service::{FileService, Reply, path_of, with_always};

impl FileService {
    /// Answers with a file, or with the list of a folder.
    pub(crate) fn download(&self, caller: &Caller, request: &RequestHead) -> Reply {
        let has_listing = self.config.has_listing;
        // `?json` and `?zip` ask for the list or an archive of a folder even if it has an index page.
        let is_asked_for =
            || listing::is_asked_for(request) || self.archive_asked_for(request).is_some();
        let wants_list = has_listing && is_asked_for();
        if !wants_list && let Some(cached) = self.file_cache.get(request.path) {
            return Ok(self.file(request, &cached)?);
        }
        let path = path_of(request)?;
        match self.files.find(&path)? {
            Found::File(_) if wants_list && path.has_final_slash() => {
                self.list(caller, request, &path)
            }
            Found::File(found) => {
                let file = Arc::new(self.representations(found)?);
                let response = self.file(request, &file)?;
                let identity = file.identity;
                if identity.bytes() <= FILE_BYTES_MAX && identity.is_stable() {
                    self.file_cache.insert(request.path, file);
                }
                Ok(response)
            }
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
        let listed = self.compressed(request, with_always(listed));
        let mut listed = listed.map_err(FilesError::Storage)?;
        // A page offers what its user may do.
        if self.config.door.auth.is_some() {
            make_private(&mut listed.fields);
        }
        Ok(listed)
    }

    /// Answers with a file or a part of it, on the conditions of the request.
    fn file(&self, request: &RequestHead, file: &Representations) -> Result<Response, FilesError> {
        let wants_digest = request.fields("want-repr-digest").any(digest::is_wanted);
        let has_range = request.has("range");
        let may_compress = || !has_range && !wants_digest && self.may_compress(request);
        let gzip = file.gzip.as_ref().filter(|_| may_compress());
        let judge = |form: &Representation| conditional::judge(request, Some(&form.version));
        let of_plain = judge(&file.plain);
        if let Some(gzip) = gzip {
            match judge(gzip) {
                Verdict::NotModified => return Ok(file.not_modified(gzip)),
                // The client has the plain one, from when too many were being compressed.
                Verdict::Go if of_plain == Verdict::NotModified => {}
                Verdict::Go => {
                    let compressed = file.whole_gzip(gzip, &self.compressions);
                    if let Some(response) = compressed.map_err(FilesError::Storage)? {
                        return Ok(response);
                    }
                }
                Verdict::Failed => {}
            }
        }
        match of_plain {
            Verdict::Go => {}
            Verdict::NotModified => return Ok(file.not_modified(&file.plain)),
            Verdict::Failed => return Err(FilesError::Changed),
        }
        let mut response = match has_range {
            true => self.part(request, file),
            false => file.whole(),
        };
        if wants_digest && response.status != Status::RangeNotSatisfiable {
            let digest = file.digest(&self.digests).map_err(FilesError::Storage)?;
            let digest = digest.map(|digest| ("Repr-Digest", digest::format(&digest).into()));
            response.fields.extend(digest);
        }
        Ok(response)
    }

    /// Answers with the range that a request asks for, if that is of this version and can be.
    fn part(&self, request: &RequestHead, file: &Representations) -> Response {
        // Only GET has ranges (RFC 9110 section 14.2).
        let is_current =
            || conditional::range_is_current(request, &file.plain.version, seconds_now());
        let file_bytes = file.identity.bytes();
        let range = match request.method == "GET" && is_current() {
            true => Range::of(request, file_bytes),
            false => Range::Whole,
        };
        match range {
            Range::Whole => file.whole(),
            Range::Part { start, bytes } => file.part(start, bytes),
            Range::Unsatisfiable => {
                let sentence = format!("the file has {file_bytes} bytes");
                let refused = self.refuse(&Refusal::new(Status::RangeNotSatisfiable, sentence));
                refused.with_field("Content-Range", format!("bytes */{file_bytes}"))
            }
        }
    }
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
