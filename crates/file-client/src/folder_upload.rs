//! Sends a folder: every file below it. The server makes the folders that files are sent to; an empty
//! one it makes only if it was told so (`--manage`).
//!
//! Symbolic links are followed, because a server cannot be given one. A link to a folder that it is in, on
//! whatever level, leads there again and to what lies beside, and is left out.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cli::{Endpoint, Failure};

use crate::escaped::escaped;
use crate::folder_transfer::{AT_ONCE_BYTES_MAX, FolderTransfer, Folders, Outcome, below, joined};
use crate::place::{Descent, Folder, Links, Place};
use crate::progress::above_bars;
use crate::sidecar::{self, RESERVED, UPLOAD_PREFIX, is_reserved, is_sidecar};
use crate::source::Source;
use crate::spool::{Item, Spool};
use crate::{Client, Error, Options};

/// What is sent, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FolderUpload<'a> {
    /// The folder here.
    pub(crate) from: &'a Path,
    /// The folder on the server.
    pub(crate) path: &'a OsStr,
    /// Whether the server refuses each file that it has already.
    pub(crate) is_new: bool,
}

/// An upload under way.
struct Upload<'a> {
    what: FolderUpload<'a>,
    /// The folder on the server, with a slash at its end.
    path: OsString,
    server: &'a Endpoint,
    options: &'a Options,
    transfer: FolderTransfer,
    root: Arc<Folder>,
    /// Folders with nothing in them to send.
    empty: Mutex<Spool>,
}

/// Sends a folder, N files at once, and logs a line about it at the end.
///
/// # Errors
/// If the folder cannot be read, or anything of it has failed.
pub(crate) fn run(
    what: FolderUpload,
    server: &Endpoint,
    options: &Options,
    jobs: NonZeroUsize,
) -> Result<(), Error> {
    let mut path = what.path.to_owned();
    if !path.as_bytes().ends_with(b"/") {
        path.push("/");
    }
    let upload = Upload {
        what,
        path,
        server,
        options,
        transfer: FolderTransfer::new(options.show_progress),
        root: Arc::new(Folder::open(what.from).map_err(Error::read(what.from))?),
        empty: Mutex::new(Spool::new()),
    };
    upload
        .transfer
        .run(jobs, || upload.walk(), || upload.worker())?;
    if !upload.transfer.is_stopped() {
        upload.create_empty_folders()?;
    }
    upload.transfer.finish("Sent", what.from)
}

/// What stands under a name.
enum Found {
    File(Metadata),
    Folder,
    /// Why it is left out.
    Other(&'static str),
    /// It is gone.
    Nothing,
}

impl Upload<'_> {
    /// Names the files below the folder.
    fn walk(&self) -> Result<(), Error> {
        let mut descent = Descent::new(&self.root, Links::Follow);
        let mut folders = Folders::new()?;
        while let Some(folder) = folders.next()? {
            if self.transfer.is_stopped() {
                break;
            }
            let is_first = folder.as_os_str().is_empty();
            match self.visit(&mut descent, &folder, &mut folders) {
                Ok(()) => {}
                Err(error @ Error::Spool(_)) => return Err(error),
                Err(error) if is_first => return Err(error),
                Err(error) => self.transfer.failed(error),
            }
        }
        Ok(())
    }

    /// Names what is in one folder.
    fn visit(
        &self,
        descent: &mut Descent,
        path: &Path,
        folders: &mut Folders,
    ) -> Result<(), Error> {
        let shown = self.what.from.join(path);
        let failed = Error::read(&shown);
        let folder = descent.folder(path).map_err(&failed)?;
        let mut is_empty = true;
        for name in folder.names().map_err(&failed)? {
            let name = name.map_err(&failed)?;
            // They come and go while files are sent.
            if is_sidecar(name.as_bytes()) {
                continue;
            }
            let place = folder.place(&name);
            if is_reserved(name.as_bytes()) {
                self.transfer.left_out(&place.path(), RESERVED);
                continue;
            }
            let found = find(descent, path, &place).map_err(Error::read(&place.path()));
            let added = found.and_then(|found| match found {
                Found::File(found) => {
                    is_empty = false;
                    self.transfer.add(&Item {
                        bytes: found.len(),
                        ..Item::folder(joined(path, &name)?)
                    })
                }
                Found::Folder => {
                    is_empty = false;
                    folders.push(joined(path, &name)?)
                }
                Found::Other(why) => {
                    self.transfer.left_out(&place.path(), why);
                    Ok(())
                }
                Found::Nothing => Ok(()),
            });
            match added {
                Ok(()) => {}
                Err(error @ Error::Spool(_)) => return Err(error),
                Err(error) => self.transfer.failed(error),
            }
        }
        if !is_empty {
            return Ok(());
        }
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let pushed = empty.push(&Item::folder(path.to_owned()));
        pushed.map_err(Error::Spool)
    }

    /// What sends one file after the other.
    fn worker(&self) -> impl FnMut(&Item) -> Result<Outcome, Error> {
        let client = Client::new(self.server.clone(), self.options.clone());
        let mut client = client.part_of(self.transfer.total());
        let mut descent = Descent::new(&self.root, Links::Follow);
        move |item| {
            let shown = self.what.from.join(&item.path);
            let place = descent.place(&item.path).map_err(Error::read(&shown))?;
            // There is room for the name of its state.
            let has_room = sidecar::named(&place, UPLOAD_PREFIX).is_ok();
            let source = Source::at(place)?;
            let path = below(&self.path, &item.path);
            if let Some(update) = self.options.update
                && client.is_sent(update, &source, &path)?
            {
                return Ok(Outcome::Skipped);
            }
            let can_resume = has_room && source.bytes() > AT_ONCE_BYTES_MAX;
            let sent = client.send(&source, &path, self.what.is_new, can_resume)?;
            let (bytes, answer) = (sent.bytes, sent.answer);
            above_bars(|| log::debug!("Sent {}: {bytes} bytes, {answer}", escaped(&shown)));
            Ok(Outcome::Transferred(bytes))
        }
    }

    /// Has the server create the empty folders. If it creates none, one line says so.
    fn create_empty_folders(&self) -> Result<(), Error> {
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = Client::new(self.server.clone(), self.options.clone());
        let mut refused = None;
        let mut not_made = 0;
        while let Some(folder) = empty.next().map_err(Error::Spool)? {
            if self.transfer.is_stopped() {
                break;
            }
            let mut path = below(&self.path, &folder.path);
            if !path.as_bytes().ends_with(b"/") {
                path.push("/");
            }
            match client.create_folders(&path) {
                Ok(()) => {}
                Err(error @ Error::NotManaged { .. }) => {
                    not_made += 1;
                    refused.get_or_insert((error.exit(), path));
                }
                Err(error) => self.transfer.failed(error),
            }
        }
        if let Some((exit, path)) = refused {
            let path = escaped(&path);
            above_bars(|| {
                log::error!(
                    "{path}: empty folders need a server with --manage; not made: {not_made}"
                );
            });
            self.transfer.count_failed(not_made, exit);
        }
        Ok(())
    }
}

/// Looks at a name in a folder, through a symbolic link.
fn find(descent: &Descent, folder: &Path, place: &Place) -> std::io::Result<Found> {
    let found = match place.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        found => found?,
    };
    let is_link = found.is_symlink();
    let found = if is_link {
        match place.metadata_followed() {
            Ok(found) => found,
            Err(_) => return Ok(Found::Other("it is a link that leads nowhere")),
        }
    } else {
        found
    };
    if found.is_file() {
        return Ok(Found::File(found));
    }
    if !found.is_dir() {
        return Ok(Found::Other("it is not a regular file"));
    }
    let id = (found.dev(), found.ino());
    if is_link && descent.is_within(folder, id)? {
        return Ok(Found::Other("it is a link to a folder that it is in"));
    }
    Ok(Found::Folder)
}
