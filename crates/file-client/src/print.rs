//! The verbs `head` and `list`: they print what the server has, without getting it.

use std::ffi::OsStr;
use std::io::{BufWriter, Write};

use cli::ClientError;
use cli::escape::Escaped;
use cli::stream::output;

use crate::escaped::escaped;
use crate::{Client, Error};

/// Prints the fields of a reply, `NAME: VALUE` on each line.
pub(crate) fn head(client: &mut Client, path: &OsStr) -> Result<(), Error> {
    let mut out = output()?;
    let fields = client.head(path)?;
    let line = |(name, value): &(String, String)| format!("{name}: {}\n", Escaped(value));
    let text: String = fields.iter().map(line).collect();
    Ok(out.print(&text)?)
}

/// Prints the list of a folder, an entry on each line: name, bytes, time, with tabs between. A folder's
/// name ends in a slash, and it has no bytes. A list that is not complete is printed, and is an error.
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
        false => Err(Error::ListIncomplete(escaped(path).to_string())),
    }
}
