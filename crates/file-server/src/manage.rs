//! Requests that tidy: `DELETE`, `MKCOL` and `MOVE`, if the server has `--manage` (RFC 4918, and no more of
//! it than these three).
//!
//! RFC 4918 takes what is not said for permission. Here a full folder is deleted only with `Depth: infinity`,
//! and replaced only with `Overwrite: T`.

use cli::escape::Escaped;
use daemon::http::{Content, Response};
use proto::http::conditional::{self, Verdict, Version};
use proto::http::namespace::{self, Depth};
use proto::http::{BodyLength, Refusal, RequestHead, Status};

use crate::error::FilesError;
use crate::path::TreePath;
use crate::service::{FileService, Reply, path_of};

impl FileService {
    /// Deletes a file or a folder.
    pub(crate) fn delete(&self, request: &RequestHead) -> Reply {
        let is_deep = namespace::depth(request)? == Some(Depth::Infinity);
        let is_wanted = |current: Option<&Version>| is_met(request, current);
        self.files
            .delete(&place_of(request)?, is_deep, &is_wanted)?;
        log::debug!("Deleted {}", Escaped(request.path));
        Ok(Response::empty(Status::NoContent))
    }

    /// Creates a folder.
    pub(crate) fn create_folder(&self, request: &RequestHead) -> Reply {
        if !matches!(request.body, BodyLength::None | BodyLength::Bytes(0)) {
            let sentence = "a folder is created without a body";
            return Err(Refusal::new(Status::UnsupportedMediaType, sentence));
        }
        if !is_met(request, None) {
            return Err(FilesError::Changed.into());
        }
        match self.files.create_folder(&place_of(request)?) {
            Err(error @ FilesError::Occupied) => {
                // Of a path with something there (RFC 4918 section 9.3.1).
                let refusal = Refusal::new(Status::MethodNotAllowed, error.to_string());
                let allowed = self.allowed().replace("MKCOL, ", "");
                Ok(self.refused(request, &refusal).with_field("Allow", allowed))
            }
            created => {
                created?;
                log::debug!("Created {}", Escaped(request.path));
                Ok(created_reply())
            }
        }
    }

    /// Renames a file or a folder.
    pub(crate) fn rename(&self, request: &RequestHead) -> Reply {
        if namespace::depth(request)? == Some(Depth::Zero) {
            let sentence = "a folder is renamed with all that is in it, with the Depth 'infinity'";
            return Err(Refusal::new(Status::BadRequest, sentence));
        }
        let overwrite = namespace::overwrite(request)?;
        let destination = namespace::destination(request, &self.config.path_prefix)?;
        let to = TreePath::decode(&destination).map_err(FilesError::from)?;
        let is_wanted = |current: Option<&Version>| is_met(request, current);
        let is_new = self
            .files
            .rename(&place_of(request)?, &to, overwrite, &is_wanted)?;
        log::debug!(
            "Renamed {} to {}",
            Escaped(request.path),
            Escaped(&destination)
        );
        Ok(if is_new {
            created_reply()
        } else {
            Response::empty(Status::NoContent)
        })
    }
}

/// The path of what is tidied.
fn place_of(request: &RequestHead) -> Result<TreePath, Refusal> {
    match request.query {
        None => path_of(request),
        // It may be the end of a name, and the file without it another.
        Some(_) => {
            let sentence =
                "what is deleted, created or renamed has no query; a '?' in a name is %3F";
            Err(Refusal::new(Status::BadRequest, sentence))
        }
    }
}

fn is_met(request: &RequestHead, current: Option<&Version>) -> bool {
    conditional::judge(request, current) == Verdict::Go
}

fn created_reply() -> Response {
    Response {
        body: Content::Bytes(Vec::new()),
        ..Response::empty(Status::Created)
    }
}
