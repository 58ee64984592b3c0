//! The representations of a file (RFC 9110 section 3.2): plain, and of a text also compressed. They are all
//! that a reply needs of the file, so the file cache keeps them.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use daemon::http::{Content, PieceStream, Response};
use proto::http::conditional::Version;
use proto::http::digest::{Digest, Hasher};
use proto::http::response::{Field, put_fields};
use proto::http::{Status, date};

use crate::compression::{self, ENCODING, FilePieces, Gzip, PLAIN_BYTES_MIN, STREAMS_MAX, VARY};
use crate::content_type::content_type;
use crate::digests::Digests;
use crate::error::FilesError;
use crate::files::{FoundFile, Identity};
use crate::permits::Permits;
use crate::service::{ALWAYS, FileService};

/// The longest file whose contents are in memory, in bytes. A longer one stays open...
const READ_BYTES_MAX: u64 = 8 * 1024;
/// ...but a text that is sent compressed, too, may be this long. A longer one is compressed each time, while
/// it is sent.
const TEXT_BYTES_MAX: u64 = 128 * 1024;

/// A file as it can be sent.
pub(crate) struct Representations {
    /// Where the file stands, from the root's own path on: if another folder replaces the root, the
    /// path leads to no file or to another one.
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    contents: Contents,
    pub(crate) plain: Representation,
    /// Of a text, unless it is short or the server compresses nothing.
    pub(crate) gzip: Option<Representation>,
    /// The compressed contents, if they are kept and were asked for.
    compressed: OnceLock<Arc<[u8]>>,
}

/// What a reply says of a representation.
pub(crate) struct Representation {
    pub(crate) version: Version,
    /// The fields of the reply's head, as they are written.
    fields: Arc<[u8]>,
}

/// The contents of a file.
enum Contents {
    /// In memory: they are sent with the head in one system call.
    Read(Arc<[u8]>),
    /// In the file: the kernel copies them.
    Open(Arc<File>),
}

impl FileService {
    /// The representations of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn representations(&self, found: FoundFile) -> Result<Representations, FilesError> {
        let FoundFile {
            file,
            identity,
            path,
        } = found;
        let (name, content_type) = content_type(&path, &file).map_err(FilesError::Storage)?;
        let is_compressed = self.config.has_compression
            && identity.bytes() >= PLAIN_BYTES_MIN
            && compression::is_text(&content_type);
        let representation = |version: Version, own: Field| {
            let mut fields = validators(&version, is_compressed);
            fields.extend([(name, content_type.clone()), own]);
            self.make_private(&mut fields);
            let mut lines = Vec::new();
            put_fields(&mut lines, &fields);
            Representation {
                version,
                fields: lines.into(),
            }
        };
        let version = identity.version();
        let read_max = if is_compressed {
            TEXT_BYTES_MAX
        } else {
            READ_BYTES_MAX
        };
        Ok(Representations {
            path: self.files.full_path(&path),
            gzip: is_compressed.then(|| representation(version.gzip(), ENCODING)),
            plain: representation(version, ("Accept-Ranges", "bytes".into())),
            identity,
            contents: Contents::of(file, identity.bytes(), read_max)
                .map_err(FilesError::Storage)?,
            compressed: OnceLock::new(),
        })
    }
}

impl Representations {
    /// The reply that the client has this version already.
    pub(crate) fn not_modified(&self, form: &Representation) -> Response {
        Response {
            fields: validators(&form.version, self.gzip.is_some()),
            ..Response::empty(Status::NotModified)
        }
    }

    /// The reply with all of the compressed contents; `None` if too many files are being compressed.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(crate) fn whole_gzip(
        &self,
        gzip: &Representation,
        streams: &Permits,
    ) -> io::Result<Option<Response>> {
        let body = match &self.contents {
            Contents::Read(plain) => self.kept_gzip(plain)?,
            Contents::Open(file) => {
                let Some(permit) = streams.permit(STREAMS_MAX) else {
                    return Ok(None);
                };
                let pieces = FilePieces::new(Arc::clone(file), self.identity.bytes(), permit);
                Content::Stream(PieceStream::new(Gzip::new(pieces)))
            }
        };
        Ok(Some(gzip.reply(body)))
    }

    /// The compressed contents, which are made if they are not kept yet. Several threads may make them at
    /// once.
    fn kept_gzip(&self, plain: &[u8]) -> io::Result<Content> {
        let compressed = match self.compressed.get() {
            Some(compressed) => compressed,
            None => {
                let made = compression::compress(plain)?;
                self.compressed.get_or_init(|| made.into())
            }
        };
        Ok(in_memory(compressed))
    }

    /// The reply with all of the plain contents.
    pub(crate) fn whole(&self) -> Response {
        self.plain
            .reply(self.contents.part(0, self.identity.bytes()))
    }

    /// The reply with a part of the plain contents, which is not empty.
    pub(crate) fn part(&self, start: u64, bytes: u64) -> Response {
        let (end, file_bytes) = (start + bytes - 1, self.identity.bytes());
        let range = format!("bytes {start}-{end}/{file_bytes}");
        Response {
            status: Status::PartialContent,
            ..self.plain.reply(self.contents.part(start, bytes))
        }
        .with_field("Content-Range", range)
    }

    /// The digest of the plain contents; `None` if it takes too long or the file has changed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn digest(&self, digests: &Digests) -> io::Result<Option<Digest>> {
        match &self.contents {
            Contents::Read(bytes) => Ok(Some(Hasher::digest_of(&bytes[..])?)),
            Contents::Open(file) => digests.of(file, self.identity),
        }
    }

    /// Whether it has the file open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.contents, Contents::Open(_))
    }

    /// How many bytes its contents have in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let plain = match &self.contents {
            Contents::Read(bytes) => bytes.len(),
            Contents::Open(_) => 0,
        };
        (plain + self.compressed.get().map_or(0, |bytes| bytes.len())) as u64
    }
}

impl Representation {
    fn reply(&self, body: Content) -> Response {
        Response {
            shared_fields: Some(Arc::clone(&self.fields)),
            body,
            ..Response::empty(Status::Ok)
        }
    }
}

impl Contents {
    fn of(file: File, bytes: u64, read_max: u64) -> io::Result<Self> {
        if bytes > read_max {
            return Ok(Self::Open(file.into()));
        }
        let mut contents = Vec::with_capacity(bytes as usize);
        file.take(bytes).read_to_end(&mut contents)?;
        Ok(Self::Read(contents.into()))
    }

    /// A part of the contents. A file that has become shorter has less of it.
    fn part(&self, start: u64, bytes: u64) -> Content {
        match self {
            Self::Read(all) if bytes == all.len() as u64 => in_memory(all),
            Self::Read(all) => {
                let part = all.iter().skip(start as usize).take(bytes as usize);
                Content::Bytes(part.copied().collect())
            }
            Self::Open(file) => Content::File {
                file: Arc::clone(file),
                start,
                bytes,
            },
        }
    }
}

/// A body in memory. If it is short, it is gathered with the replies behind it; else it is not copied.
fn in_memory(bytes: &Arc<[u8]>) -> Content {
    if bytes.len() as u64 <= READ_BYTES_MAX {
        return Content::Shared(Arc::clone(bytes));
    }
    Content::Kept(Arc::new(Arc::clone(bytes)))
}

/// The fields that tell one version from another.
fn validators(version: &Version, is_compressed: bool) -> Vec<Field> {
    let mut fields = vec![
        ("ETag", version.etag.clone().into()),
        ("Last-Modified", date::format(version.modified).into()),
    ];
    fields.extend(ALWAYS);
    fields.extend(is_compressed.then(|| (VARY.0, VARY.1.into())));
    fields
}

#[cfg(test)]
impl Representations {
    /// Those of a file without contents, for tests of what keeps them.
    pub(crate) fn stub(path: PathBuf, identity: Identity, file: Option<File>) -> Self {
        let contents = match file {
            Some(file) => Contents::Open(file.into()),
            None => Contents::Read(Arc::new([])),
        };
        Self {
            path,
            identity,
            contents,
            plain: Representation {
                version: identity.version(),
                fields: Arc::new([]),
            },
            gzip: None,
            compressed: OnceLock::new(),
        }
    }
}
