//! The entries of a folder, as rows of a table and as JSON.

use std::os::unix::ffi::OsStrExt;

use askama::Template;
use percent_encoding::percent_encode;
use proto::http::date;
use serde_json::json;

use super::query::{COLUMNS, Query};
use crate::files::Entry;
use crate::page::{Heading, LINK_ESCAPES, picture};

/// The headings of a list.
pub(super) fn headings(query: &Query) -> Vec<Heading> {
    let heading = |(column, name, title)| {
        let is_ordered = column == query.order.column;
        Heading {
            name,
            title,
            is_ascending: is_ordered && !query.order.is_descending,
            is_descending: is_ordered && query.order.is_descending,
        }
    };
    COLUMNS.map(heading).into()
}

/// A row of the page's table.
#[derive(Template)]
#[template(path = "row.html")]
struct Row<'a> {
    picture: &'static str,
    link: String,
    name: &'a str,
    slash: &'static str,
    size: String,
    time: String,
}

/// Appends a row of the page's table.
pub(super) fn put_row(entry: &Entry, text: &mut String) {
    let row = Row {
        picture: picture(entry.name.as_ref(), entry.is_folder),
        link: link(entry),
        name: &entry.name.to_string_lossy(),
        slash: if entry.is_folder { "/" } else { "" },
        size: if entry.is_folder {
            String::new()
        } else {
            size(entry.bytes)
        },
        time: date::format_short(entry.modified),
    };
    // A string takes all that is written to it.
    let _ = row.render_into(text);
    text.push('\n');
}

/// An element of the JSON array. Only a symbolic link has a `link`.
pub(super) fn element(entry: &Entry) -> serde_json::Value {
    let mut element = json!({
        "name": entry.name.to_string_lossy(),
        "href": link(entry),
        "type": if entry.is_folder { "folder" } else { "file" },
        "bytes": if entry.is_folder { None } else { Some(entry.bytes) },
        "modified": date::format(entry.modified),
    });
    if entry.is_link {
        element["link"] = true.into();
    }
    element
}

/// The link to an entry, from the page of its folder. The dot keeps a colon in the name from ending a
/// scheme.
fn link(entry: &Entry) -> String {
    let name = percent_encode(entry.name.as_bytes(), LINK_ESCAPES);
    let slash = if entry.is_folder { "/" } else { "" };
    format!("./{name}{slash}")
}

/// A length for people: `999 B`, `4.4 KB`, `10 MB`.
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
