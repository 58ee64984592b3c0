//! A client of the file server: its options, and the requests that transfer no file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use cli::Endpoint;

use crate::Error;
use crate::connection::{Connection, Request, target};
use crate::escaped::escaped;
use crate::list::{self, Entry, ListError};
use crate::location::leads_to_folder;
use crate::progress::{Bar, Total};

/// How often a transfer is tried if its connection is lost.
pub(crate) const TRIES: u32 = 5;

/// The pause between two tries.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Talks to one file server. It connects when it has a request, keeps the connection for as long as the
/// server does, and then connects again.
///
/// ```no_run
/// use std::ffi::OsStr;
/// use std::path::Path;
///
/// use cli::Endpoint;
/// use file_client::{Client, Input, Options};
///
/// let server = Endpoint::new("127.0.0.1", 8080);
/// let mut client = Client::new(server, Options::default());
/// client.download(OsStr::new("server/index.html"), Path::new("index.html"))?;
/// client.upload(&Input::File("photo.jpg".into()), OsStr::new("photos/photo.jpg"), false)?;
/// # Ok::<(), file_client::Error>(())
/// ```
pub struct Client {
    pub(crate) connection: Connection,
    pub(crate) options: Options,
    /// The progress of the folder that its transfers belong to.
    total: Option<Arc<Total>>,
}

/// How a client transfers files.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether a transfer continues where an earlier one with this option was cut off, and keeps what
    /// is needed to continue if it is cut off itself. Otherwise a download that fails leaves nothing,
    /// and an upload that fails starts over.
    pub resume: bool,
    /// Whether a file that the other side has already is not transferred, by the command line.
    pub update: Option<Update>,
    /// Whether a transfer that takes a while shows a progress bar, if standard error is a terminal.
    pub show_progress: bool,
}

/// What two files must have in common to be taken for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// The length and the time. A file that was got has the time of its last change on the server. A
    /// file that is to be sent may be older than the server's, whose time is that of the upload.
    Time,
    /// The length and the SHA-256.
    Digest,
}

impl Client {
    /// A client of this server.
    pub fn new(server: Endpoint, options: Options) -> Self {
        Self {
            connection: Connection::new(server),
            options,
            total: None,
        }
    }

    /// The same, with transfers that are parts of a larger one.
    pub(crate) fn part_of(self, total: &Arc<Total>) -> Self {
        let total = Some(Arc::clone(total));
        Self { total, ..self }
    }

    /// The progress bar of a transfer, whose length may be unknown.
    pub(crate) fn bar(&self, name: &OsStr, bytes: Option<u64>) -> Bar {
        match &self.total {
            Some(total) => Bar::part_of(total),
            None => Bar::new(self.options.show_progress, name, bytes),
        }
    }

    /// The server.
    pub fn server(&self) -> &Endpoint {
        self.connection.server()
    }

    /// Asks what the server says of a file: the fields of its reply, in their order.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn head(&mut self, path: &OsStr) -> Result<Vec<(String, String)>, Error> {
        let reply = self.connection.ask(&Request::new("HEAD", path))?;
        if leads_to_folder(&target(path), &reply.head) {
            return Err(Error::IsFolder(escaped(path).to_string()));
        }
        if reply.head.status != 200 {
            return Err(self.connection.refusal(path, reply));
        }
        let fields = reply.head.fields();
        let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        self.connection.keep(reply, true);
        Ok(fields)
    }

    /// Asks for the list of a folder, and hands out each entry as it arrives. Returns whether the list
    /// is complete: of a very large folder the server leaves some entries out.
    ///
    /// # Errors
    /// If the server refuses or is lost, or has no list of that folder; and the first error of
    /// `each`.
    pub fn list(
        &mut self,
        path: &OsStr,
        each: impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let mut folder = path.to_owned();
        if !folder.as_bytes().ends_with(b"/") {
            folder.push("/");
        }
        // By the query and not by `Accept` alone: a folder may have an index page.
        let request = Request::new("GET", &folder)
            .at(&format!("{}?json", target(&folder)))
            .with("Accept", "application/json");
        let mut reply = self.connection.ask(&request)?;
        if reply.head.status != 200 {
            return Err(self.connection.refusal(path, reply));
        }
        if reply.head.field("content-type") != Some("application/json") {
            return Err(Error::NoList(escaped(path).to_string()));
        }
        let mut body = reply.body();
        let listed = list::read(&mut body, each).map_err(|error| match error {
            ListError::Io(cause) => Error::lost(escaped(path))(cause),
            ListError::NotAList => Error::NoList(escaped(path).to_string()),
            ListError::TooLong => Error::ListTooLong(escaped(path).to_string()),
            ListError::Stopped(error) => error,
        });
        let is_read = body.is_done();
        self.connection.keep(reply, is_read);
        listed
    }
}
