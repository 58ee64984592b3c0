//! `head` and `list`: what there is, without getting it.

use std::ffi::OsStr;
use std::io::{BufWriter, Write};

use cli::ClientError;
use cli::escape::Escaped;
use cli::stream::output;

use crate::transfer::shown;
use crate::{Client, Error};

/// Writes what the server says of a file, `NAME: VALUE` on each line.
pub(crate) fn head(client: &mut Client, path: &OsStr) -> Result<(), Error> {
    let mut out = output()?;
    let fields = client.head(path)?;
    let line = |(name, value): &(String, String)| format!("{name}: {}\n", Escaped(value));
    let text: String = fields.iter().map(line).collect();
    Ok(out.print(&text)?)
}

/// Writes what stands in a folder, an entry on each line: name, bytes, time, with tabs between. A
/// folder's name ends in a slash, and it has no bytes. A list that lacks some is written as far as it
/// goes, and is an error then.
pub(crate) fn list(client: &mut Client, path: &OsStr) -> Result<(), Error> {
    let mut out = BufWriter::new(output()?);
    let listed = client.list(path, |entry| {
        let name = Escaped(&entry.name);
        let modified = Escaped(&entry.modified);
        let written = match entry.bytes {
            Some(bytes) => writeln!(out, "{name}\t{bytes}\t{modified}"),
            None => writeln!(out, "{name}/\t\t{modified}"),
        };
        Ok(written.map_err(ClientError::Output)?)
    });
    let flushed = out.flush().map_err(ClientError::Output);
    let is_complete = listed?;
    flushed?;
    match is_complete {
        true => Ok(()),
        false => Err(Error::ListIncomplete(shown(path).to_string())),
    }
}
