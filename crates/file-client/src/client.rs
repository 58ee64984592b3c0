//! A client of the file server: its settings, and the requests that are no transfers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cli::Endpoint;

use crate::Error;
use crate::auth::Credentials;
use crate::connection::{Connection, Request, target};
use crate::list::{self, Entry, ListError};
use crate::location::leads_to_folder;
use crate::transfer::shown;

/// How often a transfer is tried whose connection gets lost on the way.
pub(crate) const TRIES: u32 = 5;

/// The pause between two tries.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Talks to one file server. It connects when it first has to, keeps the connection for as long as
/// the server does, and then connects again.
///
/// ```no_run
/// use std::ffi::OsStr;
/// use std::path::Path;
///
/// use cli::Endpoint;
/// use file_client::{Client, Options};
///
/// let server = Endpoint::new("127.0.0.1", 8080);
/// let mut client = Client::new(server, Options::default());
/// client.download(OsStr::new("server/index.html"), Path::new("index.html"))?;
/// client.upload(Path::new("photo.jpg"), OsStr::new("photos/photo.jpg"))?;
/// # Ok::<(), file_client::Error>(())
/// ```
pub struct Client {
    pub(crate) connection: Connection,
    pub(crate) options: Options,
}

/// How a client goes about it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether a transfer goes on where an earlier one with this option was cut off, and leaves
    /// behind what is needed to go on when it is cut off itself. Otherwise a download that fails
    /// leaves nothing, and an upload that fails begins anew.
    pub resume: bool,
    /// Whether transfers that take a while show a bar on standard error, if that is a terminal.
    pub show_progress: bool,
    /// Who asks, if the server is to know. It is told with each request, in a form that whoever
    /// sees the connection can read.
    pub credentials: Option<Credentials>,
}

impl Client {
    /// A client of this server.
    pub fn new(server: Endpoint, options: Options) -> Self {
        Self {
            connection: Connection::new(server, options.credentials.clone()),
            options,
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
            return Err(Error::IsFolder(shown(path).to_string()));
        }
        if reply.head.status != 200 {
            return Err(self.connection.refusal(path, reply));
        }
        let fields = reply.head.fields();
        let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        self.connection.keep(reply, true);
        Ok(fields)
    }

    /// Asks what stands in a folder, and hands out each entry as it comes. Returns whether the server
    /// says that those are all; of a folder with very many, it leaves some out.
    ///
    /// # Errors
    /// If the server refuses or is lost, or has no list of that folder; and the first
    /// that `each` returns.
    pub fn list(
        &mut self,
        path: &OsStr,
        each: impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let mut folder = path.to_owned();
        if !folder.as_bytes().ends_with(b"/") {
            folder.push("/");
        }
        // By its name and not by `Accept` alone: a folder may have a page, too.
        let request = Request::new("GET", &folder)
            .at(&format!("{}?json", target(&folder)))
            .with("Accept", "application/json");
        let mut reply = self.connection.ask(&request)?;
        if reply.head.status != 200 {
            return Err(self.connection.refusal(path, reply));
        }
        if reply.head.field("content-type") != Some("application/json") {
            return Err(Error::NoList(shown(path).to_string()));
        }
        list::read(reply.body(), each).map_err(|error| match error {
            ListError::Io(cause) => Error::lost(shown(path))(cause),
            ListError::NotAList => Error::NoList(shown(path).to_string()),
            ListError::TooLong => Error::ListTooLong(shown(path).to_string()),
            ListError::Stopped(error) => error,
        })
    }
}
