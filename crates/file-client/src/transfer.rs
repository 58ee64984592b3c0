//! One file, there or back.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use cli::stream;

use crate::escaped::escaped;
use crate::progress::above_bars;
use crate::replacement::SaveTo;
use crate::source::Source;
use crate::{Client, Error, Input};

/// The name that the page of a folder is saved under.
const INDEX: &str = "index.html";

/// One file, there or back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// Get a file.
    Get {
        /// Where it is on the server.
        path: OsString,
        /// Where it goes.
        output: Output,
    },
    /// Send a file.
    Post {
        /// The file.
        file: Input,
        /// Where it goes on the server.
        path: OsString,
        /// Whether the server refuses if it has a file there.
        is_new: bool,
    },
}

/// Where a download goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To a file.
    File(PathBuf),
    /// To standard output.
    Stdout,
}

impl Transfer {
    /// Gets a file into the current folder, under its own name.
    ///
    /// # Errors
    /// A sentence, if the path ends in no name.
    pub fn get(path: OsString) -> Result<Self, &'static str> {
        let name = match path.as_bytes().rsplit(|b| *b == b'/').next() {
            None | Some(b"") => INDEX.into(),
            Some(b"." | b"..") => return Err("the PATH has no base name to save the file under"),
            Some(name) => PathBuf::from(OsStr::from_bytes(name)),
        };
        let output = Output::File(name);
        Ok(Self::Get { path, output })
    }

    /// Sends a file to a path on the server. If the path is empty or ends in a slash, the file keeps its
    /// own name in that folder. (`.` and `..` have none: they are folders, and what is in them goes
    /// there.)
    ///
    /// # Errors
    /// A sentence, if the file has no name, and the path says no folder.
    pub fn post(file: Input, mut path: OsString, is_new: bool) -> Result<Self, &'static str> {
        match (path.as_bytes().last(), Self::name_of(&file)) {
            (None | Some(b'/'), Ok(name)) => path.push(name),
            (Some(b'/'), Err(_)) if file != Input::Stdin => {}
            (None | Some(b'/'), Err(error)) => return Err(error),
            (Some(_), _) => {}
        }
        Ok(Self::Post { file, path, is_new })
    }

    /// The name of a file.
    fn name_of(file: &Input) -> Result<OsString, &'static str> {
        match file {
            Input::File(file) => file
                .file_name()
                .map(OsStr::to_owned)
                .ok_or("the FILE has no base name to send it under"),
            Input::Stdin => Err("standard input has no name to send it under; say a PATH"),
        }
    }

    /// Transfers the file, and logs a line when it is done.
    ///
    /// # Errors
    /// Those of the server, the network and the local file.
    pub fn run(&self, client: &mut Client) -> Result<(), Error> {
        match self {
            Self::Get { path, output } => match output {
                Output::Stdout => {
                    let mut out = stream::output()?;
                    let bytes = client.get(path, &mut out)?;
                    above_bars(|| log::info!("Received {}: {bytes} bytes", escaped(path)));
                }
                Output::File(to) => {
                    if let Some(update) = client.options.update
                        && client.is_saved(update, path, SaveTo::Path(to), None)?
                    {
                        skipped(path);
                        return Ok(());
                    }
                    let bytes = client.download(path, to)?;
                    above_bars(|| log::info!("Saved {}: {bytes} bytes", escaped(to)));
                }
            },
            Self::Post { file, path, is_new } => {
                let source = Source::open(file)?;
                let is_file = *file != Input::Stdin;
                if let Some(update) = client.options.update
                    && is_file
                    && client.is_sent(update, &source, path)?
                {
                    skipped(file.path());
                    return Ok(());
                }
                let sent = client.send(&source, path, *is_new, is_file)?;
                let name = file.path();
                let name = name.file_name().unwrap_or(name.as_os_str());
                let (name, bytes, answer) = (escaped(name), sent.bytes, sent.answer);
                above_bars(|| log::info!("Sent {name}: {bytes} bytes, {answer}"));
            }
        }
        Ok(())
    }
}

fn skipped(path: &(impl AsRef<OsStr> + ?Sized)) {
    let path = escaped(path);
    above_bars(|| log::info!("Skipped {path}: it is the same on both sides"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_get(path: &str, want: Option<&str>) {
        let got = match Transfer::get(path.into()) {
            Ok(Transfer::Get { output, .. }) => Some(output),
            _ => None,
        };
        assert_eq!(got, want.map(|name| Output::File(name.into())), "{path}");
    }

    #[test]
    fn a_download_has_the_last_name_of_its_path() {
        check_get("a.txt", Some("a.txt"));
        check_get("/a/b/c", Some("c"));
        check_get("a\\b", Some("a\\b"));
        check_get("/", Some("index.html"));
        check_get("", Some("index.html"));
        check_get("a//", Some("index.html"));
        check_get("..", None);
        check_get("a/.", None);
    }

    #[track_caller]
    fn check_post(file: &str, path: &str, want: Option<&str>) {
        let got = match Transfer::post(Input::new(file.into()), path.into(), false) {
            Ok(Transfer::Post { path, .. }) => Some(path),
            _ => None,
        };
        assert_eq!(got, want.map(OsString::from), "{file} to {path}");
    }

    #[test]
    fn an_upload_has_the_name_of_its_file_unless_it_is_given_one() {
        check_post("a.txt", "", Some("a.txt"));
        check_post("../a/b", "", Some("b"));
        check_post("a/b", "c", Some("c"));
        check_post("a/b", "c/d/", Some("c/d/b"));
        check_post("a/b", "/", Some("/b"));
        check_post("-", "c", Some("c"));
        check_post(".", "b/", Some("b/"));
        check_post("a/..", "/", Some("/"));
        check_post("..", "b", Some("b"));
        for (file, path) in [("/", ""), ("a/..", ""), ("-", ""), ("-", "b/")] {
            check_post(file, path, None);
        }
    }
}
