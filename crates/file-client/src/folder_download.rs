//! Gets a folder: every file that the server lists below it, or those in it whose names match a pattern.
//!
//! The server may say anything. A name is taken only if it is a plain one, and each file is saved below
//! a folder that is open, through no symbolic link. So nothing is written outside the folder that the
//! command line names, whatever the server lists and whatever is in that folder already.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use cli::Endpoint;
use cli::exit::with_causes;
use proto::http::date;

use crate::cleanup::remove_stale_in;
use crate::client::{RETRY_PAUSE, TRIES};
use crate::escaped::escaped;
use crate::folder_transfer::{AT_ONCE_BYTES_MAX, FolderTransfer, Folders, Outcome, below, joined};
use crate::list::FileName;
use crate::name_pattern::NamePattern;
use crate::place::{Descent, Folder, Links};
use crate::progress::above_bars;
use crate::replacement::SaveTo;
use crate::sidecar::RESERVED;
use crate::spool::{Item, Spool};
use crate::{Client, Error, Options, Output, Transfer};

/// How many names of one list may be unsafe. A list with more is none.
const UNSAFE_MAX: usize = 100;

/// What is got, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FolderDownload<'a> {
    /// The folder on the server. It ends in a slash, or is empty.
    pub(crate) path: &'a OsStr,
    /// Of the names of files in it; without one, all of it is got.
    pub(crate) pattern: Option<&'a NamePattern>,
    /// The folder here. It is made if there is none.
    pub(crate) into: &'a Path,
}

/// What a list has, by what is done with it. The paths are single names.
struct Listed {
    files: Spool,
    folders: Spool,
    links: Spool,
    reserved: Spool,
    /// Names that no file here can have, escaped.
    refused: Vec<String>,
    is_complete: bool,
}

/// A download under way.
struct Download<'a> {
    what: FolderDownload<'a>,
    server: &'a Endpoint,
    options: &'a Options,
    transfer: FolderTransfer,
    /// The folder here, as soon as the server has listed its own.
    root: OnceLock<Arc<Folder>>,
}

/// Gets a folder, N files at once, and logs a line about it at the end.
///
/// # Errors
/// If the server does not list the folder, or anything of it has failed.
pub(crate) fn run(
    what: FolderDownload,
    server: &Endpoint,
    options: &Options,
    jobs: NonZeroUsize,
) -> Result<(), Error> {
    let download = Download {
        what,
        server,
        options,
        transfer: FolderTransfer::new(options.show_progress),
        root: OnceLock::new(),
    };
    download
        .transfer
        .run(jobs, || download.walk(), || download.worker())?;
    let into = if what.into.as_os_str().is_empty() {
        Path::new(".")
    } else {
        what.into
    };
    download.transfer.finish("Saved", into)
}

/// Gets the files whose names match the pattern at the end of a path. A file whose name is that pattern,
/// letter by letter, comes first: it is got alone. So a name with brackets in it needs no quotes.
///
/// # Errors
/// If no name matches, or anything of it has failed.
pub(crate) fn run_matching(
    path: &OsStr,
    output: Option<&Output>,
    server: &Endpoint,
    options: &Options,
    jobs: NonZeroUsize,
) -> Result<(), Error> {
    let mut client = Client::new(server.clone(), options.clone());
    let (folder, pattern) = match (client.head(path), split_pattern(path)) {
        (Err(Error::Refused { status: 404, .. }), Some(split)) => split,
        (Ok(_), _) => {
            let name = path.as_bytes().rsplit(|byte| *byte == b'/').next();
            let name = OsStr::from_bytes(name.unwrap_or_default());
            let output = output.cloned().unwrap_or_else(|| Output::File(name.into()));
            let path = path.to_owned();
            return Transfer::Get { path, output }.run(&mut client);
        }
        (Err(error), _) => return Err(error),
    };
    let into = match output {
        None => Path::new(""),
        Some(Output::File(into)) => into,
        Some(Output::Stdout) => return Err(Error::OneFile(escaped(path).to_string())),
    };
    let what = FolderDownload {
        path: &folder,
        pattern: Some(&pattern),
        into,
    };
    run(what, server, options, jobs)
}

impl Download<'_> {
    /// Names the files of the folder and of those below it, and makes the folders here.
    fn walk(&self) -> Result<(), Error> {
        let mut client = Client::new(self.server.clone(), self.options.clone());
        let mut folders = Folders::new()?;
        let mut found_any = false;
        while let Some(folder) = folders.next()? {
            if self.transfer.is_stopped() {
                break;
            }
            let is_first = folder.as_os_str().is_empty();
            match self.visit(&mut client, &folder, &mut folders) {
                Ok(found) => found_any |= found,
                Err(error @ Error::Spool(_)) => return Err(error),
                Err(error) if is_first => return Err(error),
                Err(error) => self.transfer.failed(error),
            }
        }
        match self.what.pattern {
            Some(pattern) if !found_any => {
                let pattern = below(self.what.path, Path::new(pattern.text()));
                Err(Error::NoMatch(escaped(&pattern).to_string()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Names what is in one folder. Returns whether there is any file.
    fn visit(
        &self,
        client: &mut Client,
        folder: &Path,
        folders: &mut Folders,
    ) -> Result<bool, Error> {
        let mut path = below(self.what.path, folder);
        if !folder.as_os_str().is_empty() {
            path.push("/");
        }
        let mut listed = list_again(client, &path, self.what.pattern)?;
        for name in &listed.refused {
            let path = escaped(&path).to_string();
            let name = name.clone();
            self.transfer.failed(Error::UnsafeName { path, name });
        }
        if !listed.is_complete {
            let path = escaped(&path).to_string();
            self.transfer.failed(Error::ListIncomplete(path));
        }
        let mut found_any = false;
        if self.what.pattern.is_none() {
            self.make(folder)?;
        }
        while let Some(item) = listed.links.next().map_err(Error::Spool)? {
            let path = below(&path, &item.path);
            self.transfer.left_out(&path, "it is a link to a folder");
        }
        while let Some(item) = listed.reserved.next().map_err(Error::Spool)? {
            self.transfer.left_out(&below(&path, &item.path), RESERVED);
        }
        while let Some(item) = listed.files.next().map_err(Error::Spool)? {
            if self.what.pattern.is_some() && !found_any {
                self.make(folder)?;
            }
            found_any = true;
            match joined(folder, item.path.as_os_str()) {
                Ok(path) => self.transfer.add(&Item { path, ..item })?,
                Err(error) => self.transfer.failed(error),
            }
        }
        while let Some(item) = listed.folders.next().map_err(Error::Spool)? {
            let pushed = joined(folder, item.path.as_os_str()).and_then(|path| folders.push(path));
            match pushed {
                Ok(()) => {}
                Err(error @ Error::Spool(_)) => return Err(error),
                Err(error) => self.transfer.failed(error),
            }
        }
        Ok(found_any)
    }

    /// Makes a folder here, unless there is one. What a client that was killed has left in it goes.
    fn make(&self, folder: &Path) -> Result<(), Error> {
        let Some(name) = folder.file_name() else {
            let root = make_root(self.what.into).map_err(Error::write(self.what.into))?;
            remove_stale_in(self.root.get_or_init(|| Arc::new(root)));
            return Ok(());
        };
        let Some(root) = self.root.get() else {
            return Ok(());
        };
        let parent = folder.parent().unwrap_or(Path::new(""));
        let made = Descent::new(root, Links::Refuse)
            .folder(parent)
            .and_then(|parent| parent.make_folder(name));
        let made = made.map_err(Error::write(&self.what.into.join(folder)))?;
        remove_stale_in(&Arc::new(made));
        Ok(())
    }

    /// What gets one file after the other.
    fn worker(&self) -> impl FnMut(&Item) -> Result<Outcome, Error> {
        let client = Client::new(self.server.clone(), self.options.clone());
        let mut client = client.part_of(self.transfer.total());
        let mut descent = None;
        move |item| {
            let Some(root) = self.root.get() else {
                unreachable!("the folder is made before a file of it is named");
            };
            let descent = descent.get_or_insert_with(|| Descent::new(root, Links::Refuse));
            let shown = self.what.into.join(&item.path);
            let place = descent.place(&item.path).map_err(Error::write(&shown))?;
            let (path, to) = (below(self.what.path, &item.path), SaveTo::Place(&place));
            if let Some(update) = self.options.update
                && client.is_saved(update, &path, to, Some(item))?
            {
                return Ok(Outcome::Skipped);
            }
            let bytes = client.save(&path, to, item.bytes > AT_ONCE_BYTES_MAX)?;
            above_bars(|| log::debug!("Saved {}: {bytes} bytes", escaped(&shown)));
            Ok(Outcome::Transferred(bytes))
        }
    }
}

/// Opens the folder that files are saved below, or makes it.
fn make_root(path: &Path) -> io::Result<Folder> {
    match Folder::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(path)?;
            Folder::open(path)
        }
        opened => opened,
    }
}

/// The list of a folder. It is asked for again if the connection is lost.
fn list_again(
    client: &mut Client,
    path: &OsStr,
    pattern: Option<&NamePattern>,
) -> Result<Listed, Error> {
    let mut tries_left = TRIES;
    loop {
        tries_left -= 1;
        match list(client, path, pattern) {
            Err(error) if error.is_lost_reply() && tries_left > 0 => {
                above_bars(|| log::warn!("{}; trying again", with_causes(&error)));
                thread::park_timeout(RETRY_PAUSE);
            }
            listed => return listed,
        }
    }
}

fn list(client: &mut Client, path: &OsStr, pattern: Option<&NamePattern>) -> Result<Listed, Error> {
    let mut listed = Listed {
        files: Spool::new(),
        folders: Spool::new(),
        links: Spool::new(),
        reserved: Spool::new(),
        refused: Vec::new(),
        is_complete: true,
    };
    listed.is_complete = client.list(path, |entry| {
        let (name, is_reserved) = match entry.file_name() {
            FileName::Plain(name) => (name, false),
            FileName::Reserved(name) => (name, true),
            FileName::Unsafe if listed.refused.len() == UNSAFE_MAX => {
                return Err(Error::NoList(escaped(path).to_string()));
            }
            FileName::Unsafe => {
                listed.refused.push(escaped(&entry.name).to_string());
                return Ok(());
            }
        };
        let is_folder = entry.is_folder();
        if pattern.is_some_and(|pattern| is_folder || !pattern.matches(&name)) {
            return Ok(());
        }
        let spool = match (is_reserved, is_folder, entry.is_link) {
            (true, _, _) => &mut listed.reserved,
            (false, false, _) => &mut listed.files,
            (false, true, false) => &mut listed.folders,
            (false, true, true) => &mut listed.links,
        };
        let item = Item {
            path: PathBuf::from(name),
            bytes: entry.bytes.unwrap_or(0),
            modified: date::parse(&entry.modified).unwrap_or(0),
        };
        spool.push(&item).map_err(Error::Spool)
    })?;
    Ok(listed)
}

/// A path whose last name is a pattern: the folder, and the pattern in it.
pub(crate) fn split_pattern(path: &OsStr) -> Option<(OsString, NamePattern)> {
    let path = path.as_bytes();
    let start = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let pattern = NamePattern::new(OsStr::from_bytes(&path[start..]))?;
    Some((OsStr::from_bytes(&path[..start]).to_owned(), pattern))
}
