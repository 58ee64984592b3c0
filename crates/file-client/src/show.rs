//! `head` and `list`: what there is, without getting it.

use std::ffi::OsStr;
use std::io::{BufWriter, Write};

use cli::escape::Escaped;
use cli::stream::{Output, output};

use crate::transfer::shown;
use crate::{Client, Error};

/// Writes what the server says of a file, `NAME: VALUE` on each line.
pub(crate) fn head(client: &mut Client, path: &OsStr) -> Result<(), Error> {
    let mut out = output().map_err(Error::Output)?;
    let fields = client.head(path)?;
    let line = |(name, value): &(String, String)| format!("{name}: {}\n", Escaped(value));
    print(&mut out, &fields.iter().map(line).collect::<String>())
}

/// Writes what stands in a folder, an entry on each line: name, bytes, time, with tabs between. A
/// folder's name ends in a slash, and it has no bytes. A list that lacks some is written as far as it
/// goes, and is an error then.
pub(crate) fn list(client: &mut Client, path: &OsStr) -> Result<(), Error> {
    let mut out = BufWriter::new(output().map_err(Error::Output)?);
    let listed = client.list(path, |entry| {
        let name = Escaped(&entry.name);
        let modified = Escaped(&entry.modified);
        let written = match entry.bytes {
            Some(bytes) => writeln!(out, "{name}\t{bytes}\t{modified}"),
            None => writeln!(out, "{name}/\t\t{modified}"),
        };
        written.map_err(Error::Output)
    });
    let flushed = out.flush().map_err(Error::Output);
    match listed? {
        true => flushed,
        false => flushed.and(Err(Error::ListIncomplete(shown(path).to_string()))),
    }
}

fn print(out: &mut Output, text: &str) -> Result<(), Error> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Error::Output)
}
