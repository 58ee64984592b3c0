//! A client of the file server: its settings, and the requests that are no transfers.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cli::Endpoint;

use crate::Error;
use crate::auth::Credentials;
use crate::connection::{Connection, Request};
use crate::transfer::shown;

/// The longest list that is read, in bytes: some 500,000 entries.
const LIST_BYTES_MAX: u64 = 64 << 20;

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

/// What stands in a folder on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name; what of it is not UTF-8 is replaced.
    pub name: String,
    /// A file's length; `None` for a folder.
    pub bytes: Option<u64>,
    /// When it was last changed, as an HTTP date.
    pub modified: String,
}

impl Entry {
    /// The entries of a list as the server writes it.
    fn parse_list(json: &[u8]) -> Option<Vec<Self>> {
        let list: serde_json::Value = serde_json::from_slice(json).ok()?;
        let entry = |entry: &serde_json::Value| {
            Some(Self {
                name: entry["name"].as_str()?.to_owned(),
                bytes: entry["bytes"].as_u64(),
                modified: entry["modified"].as_str()?.to_owned(),
            })
        };
        list["entries"].as_array()?.iter().map(entry).collect()
    }
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
        if reply.head.status != 200 {
            return Err(self.connection.refusal(path, reply));
        }
        let fields = reply.head.fields();
        let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        self.connection.keep(reply, true);
        Ok(fields)
    }

    /// Asks what stands in a folder.
    ///
    /// # Errors
    /// If the server refuses or is lost, or has a page for that folder instead of a list.
    pub fn list(&mut self, path: &OsStr) -> Result<Vec<Entry>, Error> {
        let mut folder = path.to_owned();
        if !folder.as_bytes().ends_with(b"/") {
            folder.push("/");
        }
        let request = Request::new("GET", &folder).with("Accept", "application/json");
        let mut reply = self.connection.ask(&request)?;
        if reply.head.status != 200 {
            return Err(self.connection.refusal(path, reply));
        }
        if reply.head.field("content-type") != Some("application/json") {
            return Err(Error::NoList(shown(path).to_string()));
        }
        let mut json = Vec::new();
        let read = reply.body().take(LIST_BYTES_MAX).read_to_end(&mut json);
        read.map_err(Error::lost(shown(path)))?;
        let list = Entry::parse_list(&json);
        list.ok_or_else(|| Error::NoList(shown(path).to_string()))
    }
}
