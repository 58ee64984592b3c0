//! Uploads: `POST` and `PUT` of a file.

use std::io::{self, Read};

use cli::escape::Escaped;
use daemon::http::{RequestBody, Response, body_refusal};
use proto::http::conditional::{self, Verdict};
use proto::http::digest::{self, Digest, Hasher};
use proto::http::multipart;
use proto::http::{BodyLength, Refusal, RequestHead, Status};

use crate::error::FilesError;
use crate::files::Upload;
use crate::resumable::{Part, inconsistent_length};
use crate::service::{FileService, Reply, TEXT, path_of, with_always};

/// An upload is written in pieces of this size, in bytes, however small the pieces are that arrive.
const PIECE_BYTES: u64 = 256 * 1024;

/// The reply of the original server to an upload.
pub(crate) const SAVED: &str = "File received and saved\n";

impl FileService {
    /// Saves the body of a request as a file. What can be refused is refused before the first byte of
    /// the body is read, so that a client that waits for `100 Continue` need not send it.
    pub(crate) fn upload(&self, request: &RequestHead, body: &mut dyn RequestBody) -> Reply {
        self.check_upload(request)?;
        let part = Part::of(request, 0, None)?;
        let length = match request.body {
            BodyLength::None if part.is_none() => {
                let sentence = "an upload needs a Content-Length or chunked coding";
                return Err(Refusal::new(Status::LengthRequired, sentence));
            }
            BodyLength::Bytes(bytes) => bytes,
            _ => 0,
        };
        let length = part.and_then(|part| part.length).unwrap_or(length);
        self.check_length(length)?;
        if request.has("content-range") {
            let sentence = "an upload is a whole file, without a Content-Range";
            return Err(Refusal::new(Status::BadRequest, sentence));
        }
        if let Some(boundary) = multipart::boundary(request)? {
            return self.upload_form(request, body, boundary);
        }
        let path = path_of(request)?;
        let has_digest = !digests(request, "repr-digest")?.is_empty();
        let mut upload = self.files.upload(&path, length)?;
        // Conditions come after all other reasons to refuse (RFC 9110 section 13.2.1).
        let current = upload.replaced();
        self.files.check_create(current.is_some())?;
        if conditional::judge(request, current.as_ref()) != Verdict::Go {
            return Err(FilesError::Changed.into());
        }
        if has_digest {
            upload.hash();
        }
        let length = part.and_then(|part| part.length);
        if part.is_some() {
            self.announce(&mut upload, request, length, body)?;
        }
        self.append(&mut upload, request, body, length)?;
        match part {
            None => self.commit(request, &mut upload),
            Some(part) if part.is_last => self.complete(request, upload),
            Some(_) => self.created(&mut upload, request, length, body),
        }
    }

    /// Checks what all requests that upload have in common.
    pub(crate) fn check_upload(&self, request: &RequestHead) -> Result<(), Refusal> {
        if self.config.read_only {
            let sentence = "this server accepts no uploads";
            return Err(Refusal::new(Status::Forbidden, sentence));
        }
        let coding = request.fields("content-encoding").next();
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            let sentence = "an upload must not have a Content-Encoding";
            return Err(Refusal::new(Status::UnsupportedMediaType, sentence));
        }
        Ok(())
    }

    /// Appends a request's body to an upload. The whole upload has `length` bytes, if that is known. A
    /// body that ends early, or does not match its digest, is an error.
    pub(crate) fn append(
        &self,
        upload: &mut Upload,
        request: &RequestHead,
        body: &mut dyn Read,
        length: Option<u64>,
    ) -> Result<(), Refusal> {
        let announced = digests(request, "content-digest")?;
        if announced.is_empty() {
            let size = match request.body {
                BodyLength::Bytes(bytes) => bytes,
                _ => u64::MAX,
            };
            return self.fill(upload, body, length, size);
        }
        let start = upload.checkpoint();
        let mut body = Hashed {
            input: body,
            hasher: Hasher::default(),
        };
        self.fill(upload, &mut body, length, u64::MAX)?;
        let digest = body.hasher.finish();
        if announced.iter().any(|announced| *announced != digest) {
            upload.roll_back(start)?;
            return Err(wrong_digest());
        }
        Ok(())
    }

    /// Makes a complete upload a file, on the conditions of the request that began it.
    pub(crate) fn commit(&self, began: &RequestHead, upload: &mut Upload) -> Reply {
        let announced = digests(began, "repr-digest")?;
        if !announced.is_empty() {
            let digest = upload.digest()?;
            if announced.iter().any(|announced| *announced != digest) {
                upload.discard();
                return Err(wrong_digest());
            }
        }
        let bytes = upload.bytes();
        // Another request may have changed the file meanwhile, so the conditions are checked again.
        let is_wanted = |current: Option<&_>| conditional::judge(began, current) == Verdict::Go;
        let is_new = upload.commit(is_wanted)?;
        log::debug!("Saved {}: {bytes} bytes", Escaped(began.path));
        // The clients of the original server do not know 201.
        let status = match is_new && began.method == "PUT" {
            true => Status::Created,
            false => Status::Ok,
        };
        Ok(with_always(Response::new(status, TEXT, SAVED)))
    }

    /// Appends a body of at most `body_bytes` bytes to an upload. If it ends early, what has arrived is
    /// appended.
    pub(crate) fn fill(
        &self,
        upload: &mut Upload,
        body: &mut dyn Read,
        length: Option<u64>,
        body_bytes: u64,
    ) -> Result<(), Refusal> {
        let mut piece = vec![0; body_bytes.clamp(1, PIECE_BYTES) as usize];
        loop {
            let (bytes, read) = read_full(body, &mut piece);
            let end = upload.bytes() + bytes as u64;
            let is_announced = match length {
                Some(length) if end > length => Err(inconsistent_length()),
                _ => Ok(()),
            };
            let is_allowed = is_announced.and_then(|()| self.check_length(end));
            // No further request can make it right.
            is_allowed.inspect_err(|_| upload.discard())?;
            upload.write(&piece[..bytes])?;
            if read.map_err(|error| body_refusal(&error))? == 0 {
                return Ok(());
            }
        }
    }

    /// Checks that an upload of this length is allowed.
    pub(crate) fn check_length(&self, bytes: u64) -> Result<(), Refusal> {
        let bytes_max = self.config.upload_bytes_max;
        if bytes <= bytes_max {
            return Ok(());
        }
        let sentence = format!("the upload exceeds {bytes_max} bytes");
        Err(Refusal::new(Status::ContentTooLarge, sentence))
    }
}

/// Reads until a piece is full or the input ends. Returns the bytes read, and the result of the last
/// read, which is 0 at the end.
fn read_full(input: &mut dyn Read, piece: &mut [u8]) -> (usize, io::Result<usize>) {
    let mut bytes = 0;
    loop {
        match input.read(&mut piece[bytes..]) {
            Ok(read @ 1..) if bytes + read < piece.len() => bytes += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(read) => return (bytes + read, Ok(read)),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

/// The SHA-256 digests in a field of a request. Uploads have no content coding, so the digest of the
/// content is the digest of the file.
fn digests(request: &RequestHead, name: &str) -> Result<Vec<Digest>, Refusal> {
    let mut digests = Vec::new();
    for value in request.fields(name) {
        let sentence = "a digest is written sha-256=:BASE64:";
        let digest = digest::parse(value);
        digests.extend(digest.map_err(|_| Refusal::new(Status::BadRequest, sentence))?);
    }
    Ok(digests)
}

fn wrong_digest() -> Refusal {
    let sentence = "the body does not match its digest";
    Refusal::new(Status::BadRequest, sentence)
}

/// A body that is hashed as it is read.
struct Hashed<'b> {
    input: &'b mut dyn Read,
    hasher: Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(out)?;
        self.hasher.update(&out[..bytes]);
        Ok(bytes)
    }
}
