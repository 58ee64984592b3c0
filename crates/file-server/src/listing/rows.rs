//! What stands in a folder, name by name: as rows of a table, and as JSON.

use std::os::unix::ffi::OsStrExt;

use percent_encoding::percent_encode;
use proto::http::date;
use serde_json::json;

use crate::files::Entry;
use crate::page::{LINK_ESCAPES, escape};

/// A row of the page's table.
pub(super) fn row(entry: &Entry) -> String {
    let name = entry.name.to_string_lossy();
    let (slash, size) = match entry.is_folder {
        true => ("/", String::new()),
        false => ("", size(entry.bytes)),
    };
    format!(
        "<tr><td><a href=\"{}\">{}{slash}</a></td><td>{size}</td><td>{}</td></tr>\n",
        link(entry),
        escape(&name),
        date::format_short(entry.modified)
    )
}

/// An element of the JSON array.
pub(super) fn element(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.name.to_string_lossy(),
        "href": link(entry),
        "type": if entry.is_folder { "folder" } else { "file" },
        "bytes": if entry.is_folder { None } else { Some(entry.bytes) },
        "modified": date::format(entry.modified),
    })
}

/// A link to an entry, from the page of its folder. The dot in front keeps a colon in the name from
/// ending a scheme.
fn link(entry: &Entry) -> String {
    let name = percent_encode(entry.name.as_bytes(), LINK_ESCAPES);
    let slash = if entry.is_folder { "/" } else { "" };
    format!("./{name}{slash}")
}

/// A length as people read it: `999 B`, `4.4 KB`, `10 MB`.
fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KB", "MB", "GB", "TB"] {
        match size < 999.5 || unit == "TB" {
            true if unit == "B" || size >= 9.95 => return format!("{size:.0} {unit}"),
            true => return format!("{size:.1} {unit}"),
            false => size /= 1000.0,
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KB"),
            (4505, "4.5 KB"),
            (10_000, "10 KB"),
            (999_999, "1.0 MB"),
            (5_000_000_000, "5.0 GB"),
        ] {
            assert_eq!(size(bytes), want);
        }
    }
}
