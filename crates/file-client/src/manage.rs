//! What changes on the server without a transfer: `rm`, `mkdir` and `mv`. The server must allow it (for
//! file-server, with `--manage`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use cli::exit::with_causes;
use cli::{Exit, Failure};
use proto::http::namespace::{DEPTH, DESTINATION, INFINITY, OVERWRITE};

use crate::connection::{Request, target};
use crate::escaped::escaped;
use crate::location::{is_page, leads_to_folder};
use crate::{Client, Error};

/// A change on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Files and folders are deleted.
    Delete {
        /// Where they are on the server.
        paths: Vec<OsString>,
        /// Whether also folders that are not empty.
        is_deep: bool,
    },
    /// A folder is created.
    CreateFolder(OsString),
    /// A file or a folder is renamed.
    Rename {
        /// Where it is.
        from: OsString,
        /// Where it goes.
        to: OsString,
        /// Whether the server refuses if something is there.
        is_new: bool,
    },
}

impl Change {
    /// Renames `from` to `to`. If that ends in a slash, the file keeps its own name in that folder.
    ///
    /// # Errors
    /// A sentence, if the file has no name.
    pub fn rename(from: OsString, mut to: OsString, is_new: bool) -> Result<Self, &'static str> {
        if to.as_bytes().ends_with(b"/") {
            let mut names = from.as_bytes().split(|byte| *byte == b'/');
            match names.rfind(|name| !name.is_empty()) {
                None | Some(b"." | b"..") => {
                    return Err("the path FROM has no base name to keep in the folder TO");
                }
                Some(name) => to.push(OsStr::from_bytes(name)),
            }
        }
        Ok(Self::Rename { from, to, is_new })
    }

    /// Makes the change, and logs a line when it is done. Of several files, each that cannot be deleted is
    /// logged.
    ///
    /// # Errors
    /// Those of the server and the network.
    pub fn run(&self, client: &mut Client) -> Result<(), Error> {
        match self {
            Self::Delete { paths, is_deep } => match paths.as_slice() {
                [path] => delete(client, path, *is_deep),
                paths => delete_all(client, paths, *is_deep),
            },
            Self::CreateFolder(path) => {
                client.create_folder(path)?;
                log::info!("Created {}", escaped(path));
                Ok(())
            }
            Self::Rename { from, to, is_new } => {
                client.rename(from, to, *is_new)?;
                log::info!("Renamed {} to {}", escaped(from), escaped(to));
                Ok(())
            }
        }
    }
}

/// What a server shows at a path.
enum There {
    File,
    Folder,
    Nothing,
}

fn delete(client: &mut Client, path: &OsStr, is_deep: bool) -> Result<(), Error> {
    client.delete(path, is_deep)?;
    log::info!("Deleted {}", escaped(path));
    Ok(())
}

fn delete_all(client: &mut Client, paths: &[OsString], is_deep: bool) -> Result<(), Error> {
    let mut failures = Vec::new();
    let mut rest = paths.iter();
    for path in rest.by_ref() {
        let Err(error) = delete(client, path, is_deep) else {
            continue;
        };
        log::error!("{}", with_causes(&error));
        failures.push(error.exit());
        // The others would wait as long.
        if error.exit() == Exit::Network {
            break;
        }
    }
    for path in rest {
        log::error!("{}: not begun", escaped(path));
        failures.push(Exit::Network);
    }
    Error::of_requests(&failures, paths.len())
}

impl Client {
    /// Deletes a file or a folder; a folder that is not empty only if `is_deep`.
    ///
    /// # Errors
    /// If the server refuses or is lost. A request whose reply is lost is not sent again: by then somebody
    /// else may have a file there.
    pub fn delete(&mut self, path: &OsStr, is_deep: bool) -> Result<(), Error> {
        let mut request = Request::new("DELETE", path);
        if is_deep {
            request = request.with(DEPTH, INFINITY);
        }
        let deleted = self.change(&request.once(), path);
        deleted.map_err(|mut error| {
            if let Error::Refused {
                status: 409,
                sentence,
                ..
            } = &mut error
                && sentence.contains(INFINITY)
            {
                sentence.push_str(", as rm -r does");
            }
            error
        })
    }

    /// Creates a folder, in one that exists.
    ///
    /// # Errors
    /// If the server refuses, also because something is there, or is lost.
    pub fn create_folder(&mut self, path: &OsStr) -> Result<(), Error> {
        self.change(&Request::new("MKCOL", path).once(), path)
    }

    /// Creates a folder, and those that it is in, unless they are there.
    pub(crate) fn create_folders(&mut self, path: &OsStr) -> Result<(), Error> {
        match self.create_missing(path) {
            Err(Error::Refused { status: 409, .. }) => {}
            done => return done,
        }
        // From the top down. The root is there.
        let bytes = path.as_bytes();
        for (end, _) in bytes
            .iter()
            .enumerate()
            .filter(|(at, b)| *at > 0 && **b == b'/')
        {
            self.create_missing(OsStr::from_bytes(&bytes[..=end]))?;
        }
        self.create_missing(path)
    }

    /// Creates a folder, unless there is one.
    fn create_missing(&mut self, path: &OsStr) -> Result<(), Error> {
        let error = match self.create_folder(path) {
            Err(
                error @ (Error::Refused { .. } | Error::NotManaged { .. } | Error::NotKnown { .. }),
            ) => error,
            done => return done,
        };
        let something_is_there = matches!(error, Error::Refused { status: 405, .. });
        match self.look(path)? {
            There::Folder => Ok(()),
            // A server that lists no folders shows none.
            There::Nothing if something_is_there => Ok(()),
            There::File | There::Nothing => Err(error),
        }
    }

    /// What the server shows at the path of a folder.
    fn look(&mut self, path: &OsStr) -> Result<There, Error> {
        let bytes = path.as_bytes();
        let slashes = bytes.iter().rev().take_while(|byte| **byte == b'/').count();
        let name = OsStr::from_bytes(&bytes[..bytes.len() - slashes]);
        if name.is_empty() {
            return Ok(There::Folder);
        }
        let reply = self.connection.ask(&Request::new("HEAD", name))?;
        let head = &reply.head;
        let there = match head.status {
            _ if leads_to_folder(&target(name), head) => There::Folder,
            200..=299 if is_page(head) => There::Folder,
            200..=299 => There::File,
            404 => There::Nothing,
            _ => return Err(self.connection.refusal(path, reply)),
        };
        self.connection.keep(reply, true);
        Ok(there)
    }

    /// Renames a file or a folder. A file replaces a file; if `is_new`, the server refuses with the status
    /// 412 if something is there.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn rename(&mut self, from: &OsStr, to: &OsStr, is_new: bool) -> Result<(), Error> {
        let mut request = Request::new("MOVE", from).with(DESTINATION, target(to));
        if is_new {
            request = request.with(OVERWRITE, "F");
        }
        self.change(&request.once(), from)
    }

    /// Makes a request whose reply says no more than whether it was carried out.
    fn change(&mut self, request: &Request, path: &OsStr) -> Result<(), Error> {
        let reply = self.connection.ask(request).map_err(|error| match error {
            Error::Server { path, cause } if cause.is_loss() => Error::NotKnown { path, cause },
            error => error,
        })?;
        let allowed = reply.head.field("allow").unwrap_or_default();
        match reply.head.status {
            200 | 201 | 204 => {
                self.connection.sentence(reply);
                Ok(())
            }
            // One that can do it may refuse to create a folder where one is.
            405 if allowed.contains("MOVE") => Err(self.connection.refusal(path, reply)),
            405 | 501 => Err(Error::NotManaged {
                path: escaped(path).to_string(),
                status: reply.head.status,
            }),
            _ => Err(self.connection.refusal(path, reply)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_name_in_a_folder() {
        let check = |from: &str, to: &str, want: Option<&str>| {
            let renamed = match Change::rename(from.into(), to.into(), false) {
                Ok(Change::Rename { to, .. }) => Some(to),
                Ok(Change::Delete { .. } | Change::CreateFolder(_)) | Err(_) => None,
            };
            assert_eq!(renamed, want.map(OsString::from), "{from} {to}");
        };
        check("a/b.txt", "c", Some("c"));
        check("a/b.txt", "c/", Some("c/b.txt"));
        check("a/b/", "/", Some("/b"));
        check("a", "b/c//", Some("b/c//a"));
        check("..", "c", Some("c"));
        for from in ["", "/", "a/..", "."] {
            check(from, "c/", None);
        }
    }
}
