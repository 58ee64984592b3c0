//! New lines as server-sent events (WHATWG HTML, "Server-sent events"): each a row of the table, whose
//! id is its sequence number. A deletion is an event `deleted`, with the first and the last number.

use std::io::{self, Write as _};

use askama::Template as _;
use daemon::{Caller, Connection};
use proto::http::{Refusal, RequestHead, Status};

use super::query::Query;
use super::rows::{Row, Single};
use crate::follow::follow;
use crate::history::{Event, Finder};
use crate::service::Service;

/// Where a page begins: behind the last line that it has; `None` for new lines alone.
pub(super) fn begin(request: &RequestHead, behind: Option<u64>) -> Result<Option<u64>, Refusal> {
    match request.single("Last-Event-ID") {
        None => Ok(behind),
        Some(id) => {
            let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            let sentence = "Last-Event-ID must be the sequence number of a line";
            id.ok_or(Refusal::new(Status::BadRequest, sentence))
                .map(Some)
        }
    }
}

/// Sends lines as they come.
pub(super) fn send(
    service: &Service,
    behind: u64,
    caller: &Caller,
    query: &Query,
    connection: &mut Connection,
) -> io::Result<()> {
    let finder = Finder::new(query.filter());
    // So that the browser knows that it is connected.
    connection.write_all(b": lines as they come\n\n")?;
    let put = |event: Option<Event>, out: &mut Vec<u8>| match event {
        None => out.extend_from_slice(b":\n\n"),
        Some(Event::Deleted(removed)) => {
            let _ = write!(
                out,
                "event: deleted\ndata: {}-{}\n\n",
                removed.first, removed.last
            );
        }
        Some(Event::Line { sequence, record }) if finder.is_met(record) => {
            let row = Row::of(sequence, record, caller, &query.user);
            let Ok(text) = (Single { row: &row }).render() else {
                return;
            };
            let _ = writeln!(out, "id: {sequence}");
            // A line of an event ends at any of these.
            for line in text.split(['\r', '\n']) {
                let _ = writeln!(out, "data: {line}");
            }
            out.push(b'\n');
        }
        Some(Event::Line { .. }) => {}
    };
    // The end of the stream says that it is over, whatever the cause.
    let may_follow = || service.may_look(caller, &query.user);
    let _ = follow(&service.history, behind, connection, may_follow, put)?;
    Ok(())
}
