//! Uploads in one request.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use cli::escape::Escaped;
use proto::http::digest::{self, Digest};

use crate::Error;
use crate::client::Client;
use crate::connection::{Reply, Request};
use crate::progress::Bar;
use crate::source::{Content, Source};

/// A file that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// How long it is.
    pub bytes: u64,
    /// What the server said, in one line.
    pub answer: String,
}

impl Client {
    /// Sends a file, to stand at `path` on the server, in place of what may be there.
    ///
    /// # Errors
    /// If the server refuses or is lost, or the file cannot be read or changes meanwhile. With
    /// [`Options::resume`](crate::Options::resume) and [`Error::CutOff`], another try can go on.
    pub fn upload(&mut self, file: &Path, path: &OsStr) -> Result<Uploaded, Error> {
        self.send_file(file, path, false)
    }

    /// Sends a file, to stand at `path` on the server if nothing is there.
    ///
    /// # Errors
    /// As [`Client::upload`]; a server that has such a file refuses with the status 412.
    pub fn upload_new(&mut self, file: &Path, path: &OsStr) -> Result<Uploaded, Error> {
        self.send_file(file, path, true)
    }

    /// Sends what an input holds up to its end, to stand at `path` on the server; if `is_new`, only
    /// if nothing is there.
    ///
    /// # Errors
    /// As [`Client::upload`].
    pub fn upload_stream(
        &mut self,
        input: &mut impl Read,
        path: &OsStr,
        is_new: bool,
    ) -> Result<Uploaded, Error> {
        let source = Source::of_stdin(input)?;
        let digest = source.digest()?;
        self.send_at_once(&source, &digest, path, is_new)
    }

    fn send_file(&mut self, file: &Path, path: &OsStr, is_new: bool) -> Result<Uploaded, Error> {
        let source = Source::open(file)?;
        let digest = source.digest()?;
        match self.options.resume {
            true => self.resume_upload(&source, &digest, path, is_new),
            false => self.send_at_once(&source, &digest, path, is_new),
        }
    }

    /// Sends all of a file in one request.
    pub(crate) fn send_at_once(
        &mut self,
        source: &Source,
        digest: &Digest,
        path: &OsStr,
        is_new: bool,
    ) -> Result<Uploaded, Error> {
        let bar = self.bar_of(source);
        let request = Request::new("POST", path)
            .with_all(fields(digest, is_new))
            .with_content(Content {
                source,
                start: 0,
                bar: &bar,
            });
        let reply = self.connection.ask(&request)?;
        drop(bar);
        match reply.head.status {
            200..=299 => Ok(self.uploaded(source, reply)),
            _ => Err(self.connection.refusal(path, reply)),
        }
    }

    /// The bar of a file that is sent.
    pub(crate) fn bar_of(&self, source: &Source) -> Bar {
        let name = source.path().file_name().unwrap_or_default();
        Bar::new(self.options.show_progress, name, Some(source.bytes()))
    }

    /// What the server said of a file that it has.
    pub(crate) fn uploaded(&mut self, source: &Source, reply: Reply) -> Uploaded {
        let phrase = Escaped(&reply.head.phrase).to_string();
        let sentence = self.connection.sentence(reply);
        Uploaded {
            bytes: source.bytes(),
            answer: match sentence.is_empty() {
                true => phrase,
                false => sentence,
            },
        }
    }
}

/// What a server is told of a file before it gets it.
pub(crate) fn fields(digest: &Digest, is_new: bool) -> Vec<(&'static str, String)> {
    let mut fields = vec![("Repr-Digest", digest::format(digest))];
    if is_new {
        fields.push(("If-None-Match", "*".to_owned()));
    }
    fields
}
