//! What changes on the server without a transfer: `rm`, `mkdir` and `mv`. The server must allow it (for
//! file-server, with `--manage`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use cli::exit::with_causes;
use cli::{Exit, Failure};
use proto::http::namespace::{DEPTH, DESTINATION, INFINITY, OVERWRITE};

use crate::connection::{Request, target};
use crate::escaped::escaped;
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

fn delete(client: &mut Client, path: &OsStr, is_deep: bool) -> Result<(), Error> {
    client.delete(path, is_deep)?;
    log::info!("Deleted {}", escaped(path));
    Ok(())
}

fn delete_all(client: &mut Client, paths: &[OsString], is_deep: bool) -> Result<(), Error> {
    let mut failures = Vec::new();
    for path in paths {
        match delete(client, path, is_deep) {
            Ok(()) => {}
            // The others would wait as long.
            Err(error) if error.exit() == Exit::Network => return Err(error),
            Err(error) => {
                log::error!("{}", with_causes(&error));
                failures.push(error.exit());
            }
        }
    }
    match failures.iter().max_by_key(|exit| **exit as u8) {
        None => Ok(()),
        Some(worst) => Err(Error::Failed {
            failed: failures.len(),
            requests: paths.len(),
            worst: *worst,
        }),
    }
}

impl Client {
    /// Deletes a file or a folder; a folder that is not empty only if `is_deep`.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn delete(&mut self, path: &OsStr, is_deep: bool) -> Result<(), Error> {
        let mut request = Request::new("DELETE", path);
        if is_deep {
            request = request.with(DEPTH, INFINITY);
        }
        let deleted = self.change(&request, path);
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
        let reply = self.connection.ask(request)?;
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
