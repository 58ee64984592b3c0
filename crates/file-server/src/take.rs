//! Uploads: `POST` and `PUT`.

use std::io::Read;

use daemon::http::{Response, body_refusal};
use proto::escape::Escaped;
use proto::http::conditional::{self, Verdict};
use proto::http::{BodyLength, Refusal, RequestHead, Status};

use crate::connection::{Connections, TEXT, path_of, refusal, sniffing_off};
use crate::files::{FilesError, Upload};

/// An upload is read and written in pieces of up to so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// What the original server answers a whole upload.
const SAVED: &str = "File received and saved\n";

impl Connections {
    /// Takes the body of a request for a file. Whatever can be refused is refused before the first
    /// byte of the body is read, so that a client that waits for `100 Continue` need not send it.
    pub(crate) fn take(
        &self,
        request: &RequestHead,
        body: &mut dyn Read,
    ) -> Result<Response, Refusal> {
        if self.read_only {
            let sentence = "this server takes no uploads";
            return Err(Refusal::new(Status::Forbidden, sentence));
        }
        let length = match request.body {
            BodyLength::None => {
                let sentence = "an upload needs a Content-Length or chunked coding";
                return Err(Refusal::new(Status::LengthRequired, sentence));
            }
            BodyLength::Bytes(bytes) => bytes,
            _ => 0,
        };
        self.check_length(length)?;
        if request.fields("content-range").next().is_some() {
            let sentence = "an upload is a whole file, without a Content-Range";
            return Err(Refusal::new(Status::BadRequest, sentence));
        }
        let path = path_of(request)?;
        let current = self.files.version(&path).map_err(refusal)?;
        if conditional::judge(request, current.as_ref()) != Verdict::Go {
            return Err(refusal(FilesError::Changed));
        }
        let mut upload = self.files.upload(&path, length).map_err(refusal)?;
        self.fill(&mut upload, body)?;
        let bytes = upload.bytes();
        // Somebody else may have been faster, so the conditions are judged once more.
        let is_wanted = |current: Option<&_>| conditional::judge(request, current) == Verdict::Go;
        let is_new = upload.finish(is_wanted).map_err(refusal)?;
        log::debug!("Saved {}: {bytes} bytes", Escaped(request.path));
        // The clients of the original server know no 201.
        let status = match is_new && request.method == "PUT" {
            true => Status::Created,
            false => Status::Ok,
        };
        Ok(sniffing_off(Response::new(status, TEXT, SAVED)))
    }

    fn fill(&self, upload: &mut Upload, body: &mut dyn Read) -> Result<(), Refusal> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = body.read(&mut piece);
            let bytes = read.map_err(|error| body_refusal(&error))?;
            if bytes == 0 {
                return Ok(());
            }
            self.check_length(upload.bytes() + bytes as u64)?;
            upload.write(&piece[..bytes]).map_err(refusal)?;
        }
    }

    fn check_length(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.upload_bytes_max {
            return Ok(());
        }
        let sentence = format!("an upload may have {} bytes", self.upload_bytes_max);
        Err(Refusal::new(Status::ContentTooLarge, sentence))
    }
}
