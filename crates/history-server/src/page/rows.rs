//! A line of the history, as a row of the table and as JSON.

use std::io;

use askama::Template;
use daemon::http::{Pieces, query};
use daemon::{Caller, Role};
use serde::Serialize;

use super::query::Query;
use crate::history::{Finder, Newest, Record};
use crate::service::only_own;

/// About how much of the JSON is made at once, in bytes.
const PIECE_BYTES: usize = 32 * 1024;

/// A row of the table.
pub(super) struct Row {
    pub(super) sequence: u64,
    pub(super) time: String,
    pub(super) from: String,
    pub(super) user: String,
    pub(super) text: String,
    pub(super) can_delete: bool,
    /// The parameters of the link that deletes it.
    pub(super) link: String,
}

/// A row alone.
#[derive(Template)]
#[template(path = "row.html")]
pub(super) struct Single<'a> {
    pub(super) row: &'a Row,
}

impl Row {
    /// The row of a record, for a caller that calls itself `user`.
    pub(super) fn of(sequence: u64, record: &[u8], caller: &Caller, user: &str) -> Self {
        let record = String::from_utf8_lossy(record);
        let record = Record::parse(&record);
        let is_own = only_own(caller).is_none_or(|own| own == record.user);
        Self {
            sequence,
            time: record.time.to_owned(),
            from: record.from.to_owned(),
            user: record.user.to_owned(),
            text: record.text.to_owned(),
            can_delete: is_own && caller.role >= Role::Write,
            link: query(&[("sequence", &sequence.to_string()), ("user", user)]),
        }
    }

    pub(super) fn is_note(&self) -> bool {
        self.text.starts_with("note ")
    }

    pub(super) fn shown_text(&self) -> &str {
        self.text.strip_prefix("note ").unwrap_or(&self.text)
    }

    /// The time to the second, in UTC.
    pub(super) fn shown_time(&self) -> String {
        let second = self.time.split('.').next().unwrap_or_default();
        second.trim_end_matches('Z').replace('T', " ")
    }
}

/// A line in JSON.
#[derive(Serialize)]
struct JsonLine<'a> {
    line: u64,
    sequence: u64,
    time: Option<&'a str>,
    from: Option<&'a str>,
    user: Option<&'a str>,
    text: &'a str,
}

/// The lines that a query asks for, as a JSON array.
pub(super) struct JsonLines {
    newest: Newest,
    query: Query,
    left: u64,
    separator: &'static str,
}

impl JsonLines {
    pub(super) fn new(newest: Newest, query: Query) -> Self {
        Self {
            newest,
            left: query.last,
            query,
            separator: "[\n",
        }
    }
}

impl Pieces for JsonLines {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let finder = Finder::new(self.query.filter());
        while out.len() < PIECE_BYTES {
            let line = match self.left {
                0 => None,
                _ => self.newest.next().map_err(io::Error::other)?,
            };
            let Some(found) = line else {
                let end = if self.separator == "[\n" {
                    "[]\n"
                } else {
                    "\n]\n"
                };
                out.extend_from_slice(end.as_bytes());
                return Ok(false);
            };
            if !finder.is_met(found.record) {
                continue;
            }
            let record = String::from_utf8_lossy(found.record);
            let record = Record::parse(&record);
            let ours = |part| (!record.time.is_empty()).then_some(part);
            out.extend_from_slice(self.separator.as_bytes());
            self.separator = ",\n";
            let line = JsonLine {
                line: found.line,
                sequence: found.sequence,
                time: ours(record.time),
                from: ours(record.from),
                user: ours(record.user),
                text: record.text,
            };
            serde_json::to_writer(&mut *out, &line)?;
            self.left -= 1;
        }
        Ok(true)
    }
}
