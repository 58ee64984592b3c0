//! The entries of a folder, as rows of a table and as JSON.

use std::os::unix::ffi::OsStrExt;

use percent_encoding::percent_encode;
use proto::http::date;
use serde_json::json;

use crate::files::{Column, ENTRIES_MAX, Entry, Order};
use crate::page::{LINK_ESCAPES, escape};

/// The row of the folder above.
pub(super) const WAY_UP: &str = "<tr><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n";

/// The text below a list that is cut off.
pub(super) const REST: &str =
    "<p>This folder has over 100,000 names; the others are not shown.</p>\n";

const _: () = assert!(ENTRIES_MAX == 100_000, "the sentence above says 100,000");

/// The columns: their names in requests, and their titles.
const COLUMNS: [(Column, &str, &str); 3] = [
    (Column::Name, "name", "name"),
    (Column::Size, "size", "size"),
    (Column::Time, "time", "time (UTC)"),
];

/// The column with this name.
pub(super) fn column(name: &str) -> Option<Column> {
    let named = |(_, word, _): &&(Column, &str, &str)| *word == name;
    COLUMNS.iter().find(named).map(|(column, ..)| *column)
}

/// The row of headings. A click on one orders the list by it, and a second click reverses the order.
/// They are buttons and not links: a program that follows links would get the folder once for each.
pub(super) fn headings(order: Order) -> String {
    let mut row = "<tr>".to_owned();
    for (column, name, title) in COLUMNS {
        let (attribute, arrow, reverse) = match (column == order.column, order.is_descending) {
            (true, false) => (
                " aria-sort=\"ascending\"",
                " \u{2191}",
                "<input type=\"hidden\" name=\"desc\">",
            ),
            (true, true) => (" aria-sort=\"descending\"", " \u{2193}", ""),
            (false, _) => ("", "", ""),
        };
        row.push_str(&format!(
            "<th{attribute}><form>{reverse}<button name=\"sort\" value=\"{name}\">{title}{arrow}\
             </button></form></th>"
        ));
    }
    row + "</tr>\n"
}

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
