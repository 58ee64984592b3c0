//! Uploads in one request.

use std::ffi::OsStr;

use cli::escape::Escaped;
use proto::http::digest::{self, Digest};

use crate::Error;
use crate::client::Client;
use crate::connection::{Reply, Request};
use crate::progress::Bar;
use crate::source::{Content, Input, Source};

/// A file that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Its length, in bytes.
    pub bytes: u64,
    /// The server's answer, in one line.
    pub answer: String,
}

/// What is sent, and where it goes.
pub(crate) struct Upload<'a> {
    pub(crate) source: &'a Source,
    pub(crate) digest: Digest,
    /// The path on the server.
    pub(crate) path: &'a OsStr,
    /// Whether the server refuses if it has a file there.
    pub(crate) is_new: bool,
}

impl Upload<'_> {
    /// What the server is told of the file before it gets it.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("Repr-Digest", digest::format(&self.digest))];
        if self.is_new {
            fields.push(("If-None-Match", "*".to_owned()));
        }
        fields
    }
}

impl Client {
    /// Sends a file to `path` on the server, where it replaces what is there; if `is_new`, the server
    /// refuses with the status 412 if it has a file there.
    ///
    /// # Errors
    /// If the server refuses or is lost, or the file cannot be read or changes meanwhile. With
    /// [`Options::resume`](crate::Options::resume) and [`Error::CutOff`], a later try can resume, but
    /// not of standard input.
    pub fn upload(&mut self, file: &Input, path: &OsStr, is_new: bool) -> Result<Uploaded, Error> {
        self.send(&Source::open(file)?, path, is_new, *file != Input::Stdin)
    }

    /// The same for a file that is open. `can_resume` says whether a later try will find the same one.
    pub(crate) fn send(
        &mut self,
        source: &Source,
        path: &OsStr,
        is_new: bool,
        can_resume: bool,
    ) -> Result<Uploaded, Error> {
        let upload = Upload {
            digest: source.digest()?,
            source,
            path,
            is_new,
        };
        match self.options.resume && can_resume {
            true => self.resume_upload(&upload),
            false => self.send_at_once(&upload),
        }
    }

    /// Sends the whole file in one request.
    pub(crate) fn send_at_once(&mut self, upload: &Upload) -> Result<Uploaded, Error> {
        let bar = self.bar_of(upload.source);
        let request = Request::new("POST", upload.path)
            .with_all(upload.fields())
            .with_content(Content {
                source: upload.source,
                start: 0,
                bar: &bar,
            });
        let reply = self.connection.ask(&request)?;
        drop(bar);
        match reply.head.status {
            200..=299 => Ok(self.uploaded(upload.source, reply)),
            _ => Err(self.connection.refusal(upload.path, reply)),
        }
    }

    /// The progress bar of a file that is sent.
    pub(crate) fn bar_of(&self, source: &Source) -> Bar {
        let name = source.path().file_name().unwrap_or_default();
        self.bar(name, Some(source.bytes()))
    }

    /// What the server answers when it has the file.
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
