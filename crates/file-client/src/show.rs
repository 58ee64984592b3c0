//! `head` and `list`: what there is, without getting it.

use std::ffi::OsStr;
use std::io::Write;

use cli::escape::Escaped;
use cli::stream::{Output, output};

use crate::{Client, Error};

/// Writes what the server says of a file, `NAME: VALUE` on each line.
pub(crate) fn head(client: &mut Client, path: &OsStr) -> Result<(), Error> {
    let mut out = output().map_err(Error::Output)?;
    let fields = client.head(path)?;
    let line = |(name, value): &(String, String)| format!("{name}: {}\n", Escaped(value));
    print(&mut out, &fields.iter().map(line).collect::<String>())
}

/// Writes what stands in a folder, an entry on each line: name, bytes, time, with tabs between. A
/// folder's name ends in a slash, and it has no bytes.
pub(crate) fn list(client: &mut Client, path: &OsStr) -> Result<(), Error> {
    let mut out = output().map_err(Error::Output)?;
    let mut text = String::new();
    for entry in client.list(path)? {
        let name = Escaped(&entry.name);
        let modified = Escaped(&entry.modified);
        text += &match entry.bytes {
            Some(bytes) => format!("{name}\t{bytes}\t{modified}\n"),
            None => format!("{name}/\t\t{modified}\n"),
        };
    }
    print(&mut out, &text)
}

fn print(out: &mut Output, text: &str) -> Result<(), Error> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Error::Output)
}
