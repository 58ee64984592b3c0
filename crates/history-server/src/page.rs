//! The history over HTTP: a page for people, JSON for scripts, and new lines as they come.
//!
//! To look is not recorded, because a picture on any web page could do that. Notes and deletions are
//! recorded as those in frames. The page works without its script.

mod events;
mod query;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use daemon::http::page::{self, TEXT, check_site, is_wanted, with_always};
use daemon::http::{
    Content, Handled, HttpHandler, Live, Parameters, PieceStream, RequestBody, Response,
};
use daemon::{Caller, Connection, Handle, Role};
use proto::history::{NOTE_BYTES_MAX, is_user_name};
use proto::http::{Refusal, RequestHead, Status};
use storage::{NotStored, Space};

use crate::HistoryError;
use crate::history::{Exact, Finder};
use crate::service::{Service, check_name, only_own};
use query::{FORM_BYTES_MAX, Query};
use rows::{JsonLines, Row};

/// How long a connection may be idle between two requests.
const IDLE: Duration = Duration::from_secs(60);

/// The most lines on a page; page.js has the same.
const ROWS_MAX: usize = 200;

/// A page has no further line after this many bytes of them.
const PAGE_BYTES: usize = 64 * 1024;

const OWN_STYLE: &str = include_str!("page/style.css");
const OWN_SCRIPT: &str = include_str!("page/page.js");

/// The handler of HTTP.
pub(crate) struct HistoryPage {
    pub(crate) service: Arc<Service>,
    pub(crate) server: Handle,
}

#[derive(Template)]
#[template(path = "history.html")]
struct Page<'a> {
    login: Option<&'a str>,
    can_write: bool,
    query: &'a Query,
    rows: &'a [Row],
    has_older: bool,
    home: String,
    newest: String,
    older: String,
    json: String,
    events: String,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    login: Option<&'a str>,
    row: &'a Row,
    user: &'a str,
    home: String,
}

#[derive(Template)]
#[template(path = "refused.html")]
struct Refused<'a> {
    status: String,
    sentence: &'a str,
    asks_user: bool,
    home: String,
}

impl HttpHandler for HistoryPage {
    fn handle(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        let response = self
            .dispatch(caller, request, body)
            .unwrap_or_else(|refusal| {
                log::debug!("Refused: {refusal}");
                self.refuse_request(request, &refusal)
            });
        Ok(Handled::Now(response))
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let body = format!("{}\n", refusal.sentence);
        with_always(Response::new(refusal.status, TEXT, body))
    }

    fn refuse_request(&self, request: &RequestHead<'_>, refusal: &Refusal) -> Response {
        if !is_wanted(request) {
            return self.refuse(refusal);
        }
        let refused = Refused {
            status: refusal.status.to_string(),
            sentence: &refusal.sentence,
            asks_user: refusal.sentence == HistoryError::NotAUser.to_string(),
            home: String::new(),
        };
        page::html(refusal.status, refused.render()).unwrap_or_else(|refusal| self.refuse(&refusal))
    }

    fn idle_timeout(&self, _open_connections: usize) -> Duration {
        IDLE
    }
}

impl HistoryPage {
    fn dispatch(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Response, Refusal> {
        check_site(request)?;
        let (allowed, is_get) = (
            match request.path {
                "/" | "/history" | "/events" | "/style.css" | "/page.js" => "GET, HEAD",
                "/notes" => "POST",
                "/delete" => "GET, HEAD, POST",
                _ => return Err(no_such_page()),
            },
            matches!(request.method, "GET" | "HEAD"),
        );
        let is_allowed = allowed.split(", ").any(|method| method == request.method);
        if !is_allowed {
            let sentence = format!("the methods here are {allowed}");
            let refusal = Refusal::new(Status::MethodNotAllowed, sentence);
            return Ok(self
                .refuse_request(request, &refusal)
                .with_field("Allow", allowed));
        }
        match request.path {
            "/style.css" => Ok(page::style(OWN_STYLE)),
            "/page.js" => Ok(page::script(OWN_SCRIPT)),
            "/notes" => {
                let known = ["user", "text"];
                let form = Parameters::of_form(request, body, &known, FORM_BYTES_MAX)?;
                self.note(caller, &form)
            }
            "/delete" if is_get => self.confirm(caller, request),
            "/delete" => {
                let known = ["user", "sequence", "time", "text"];
                let form = Parameters::of_form(request, body, &known, FORM_BYTES_MAX)?;
                self.delete(caller, &form)
            }
            "/history" => self.json(caller, request),
            "/events" => self.events(caller, request),
            "/" => self.show(caller, request),
            _ => Err(no_such_page()),
        }
    }

    /// The page.
    fn show(&self, caller: &Caller, request: &RequestHead) -> Result<Response, Refusal> {
        let query = Query::of(request, &["before"])?;
        self.check_reader(caller, &query.user)?;
        let mut newest = self.service.history.newest(query.before)?;
        let finder = Finder::new(query.filter());
        let (mut rows, mut bytes, mut has_older) = (Vec::new(), 0, false);
        let last = newest.last();
        while let Some(line) = newest.next()? {
            if !finder.is_met(line.record) {
                continue;
            }
            if rows.len() == ROWS_MAX || bytes > PAGE_BYTES {
                has_older = true;
                break;
            }
            bytes += line.record.len();
            rows.push(Row::of(line.sequence, line.record, caller, &query.user));
        }
        let first = rows.last().map_or(0, |row| row.sequence);
        page::html(
            Status::Ok,
            Page {
                login: caller.user.as_deref(),
                can_write: caller.role >= Role::Write,
                rows: &rows,
                has_older,
                home: query::home(&query.user),
                newest: query.link(&[]),
                older: query.link(&[("before", first)]),
                json: query.link(&[]),
                events: format!("events{}", query.link(&[("behind", last)])),
                query: &query,
            }
            .render(),
        )
    }

    /// The lines as JSON.
    fn json(&self, caller: &Caller, request: &RequestHead) -> Result<Response, Refusal> {
        let query = Query::of(request, &["before", "last"])?;
        self.check_reader(caller, &query.user)?;
        let newest = self.service.history.newest(query.before)?;
        let body = Content::Stream(PieceStream::new(JsonLines::new(newest, query)));
        let response = Response::new(Status::Ok, "application/json", "");
        Ok(with_always(Response { body, ..response }))
    }

    /// New lines as they come.
    fn events(&self, caller: &Caller, request: &RequestHead) -> Result<Response, Refusal> {
        let query = Query::of(request, &["behind"])?;
        self.check_reader(caller, &query.user)?;
        let (service, caller) = (Arc::clone(&self.service), caller.clone());
        let history = &service.history;
        let behind = match events::begin(request, query.behind)? {
            Some(behind) => behind,
            None => history.now().before_last(0)?,
        };
        let write = move |connection: &mut Connection<'_>| {
            events::send(&service, behind, &caller, &query, connection)
        };
        let response = Response::new(Status::Ok, "text/event-stream", "");
        let body = Content::Live(Live::new(write));
        Ok(with_always(Response { body, ..response }))
    }

    /// Adds a note.
    fn note(&self, caller: &Caller, form: &Parameters) -> Result<Response, Refusal> {
        let user = name(caller, form)?;
        let text = form.get("text");
        if text.is_empty() || text.len() > NOTE_BYTES_MAX {
            let sentence = format!(
                "text must be 1 to {NOTE_BYTES_MAX} bytes, and has {}",
                text.len()
            );
            return Err(Refusal::new(Status::BadRequest, sentence));
        }
        let asked = self
            .service
            .asked(user, format!("note {text}"), caller.peer);
        self.service.append(&asked, Space::Usual)?;
        Ok(done(user, "Noted.\n"))
    }

    /// The page that asks whether to delete a line.
    fn confirm(&self, caller: &Caller, request: &RequestHead) -> Result<Response, Refusal> {
        let parameters = Parameters::of_query(request, &["user", "sequence"])?;
        let user = parameters.get("user");
        self.check_reader(caller, user)?;
        let sequence = parameters.number("sequence")?.unwrap_or(0_u64);
        let mut newest = self.service.history.newest(sequence.saturating_add(1))?;
        let line = newest.next()?.filter(|line| line.sequence == sequence);
        let gone = Refusal::new(Status::NotFound, format!("there is no line #{sequence}"));
        let line = line.ok_or(gone)?;
        let mut row = Row::of(sequence, line.record, caller, user);
        row.can_delete = false;
        page::html(
            Status::Ok,
            Confirm {
                login: caller.user.as_deref(),
                row: &row,
                user,
                home: query::home(user),
            }
            .render(),
        )
    }

    /// Deletes a line that is still what it was on the page.
    fn delete(&self, caller: &Caller, form: &Parameters) -> Result<Response, Refusal> {
        let user = name(caller, form)?;
        let sequence = form.number("sequence")?.ok_or_else(|| {
            let sentence = "a deletion needs sequence, time and text, as /history has them";
            Refusal::new(Status::BadRequest, sentence)
        })?;
        let exact = Exact {
            sequence,
            time: form.get("time"),
            text: form.get("text"),
            user: only_own(caller),
        };
        let asked = self
            .service
            .asked(user, format!("1 #{sequence}"), caller.peer);
        self.service.append(&asked, Space::Reserved)?;
        let is_stopping = || self.server.is_stopping();
        self.service.history.delete_exact(&exact, is_stopping)?;
        Ok(done(user, "Line deleted.\n"))
    }

    /// Checks the name of who only looks, where not everyone may.
    fn check_reader(&self, caller: &Caller, user: &str) -> Result<(), Refusal> {
        match self.service.may_look(caller, user) {
            true => Ok(()),
            false => Err(HistoryError::NotAUser.into()),
        }
    }
}

fn no_such_page() -> Refusal {
    let sentence = "there is no such page; the history is at /";
    Refusal::new(Status::NotFound, sentence)
}

/// The name of who changes something: that of the login, or of the form.
fn name<'a>(caller: &'a Caller, form: &'a Parameters) -> Result<&'a str, Refusal> {
    let given = form.get("user");
    let name = match &caller.user {
        Some(login) if given.is_empty() => login,
        Some(_) | None => given,
    };
    check_name(caller, name)?;
    if !is_user_name(name) {
        let sentence = "user must be 1 to 64 of A-Z a-z 0-9 . _ -";
        return Err(Refusal::new(Status::BadRequest, sentence));
    }
    Ok(name)
}

/// The reply to a change: back to the page.
fn done(user: &str, sentence: &'static str) -> Response {
    let response = Response::new(Status::SeeOther, TEXT, sentence);
    with_always(response.with_field("Location", format!("./{}", query::home(user))))
}

impl From<HistoryError> for Refusal {
    fn from(error: HistoryError) -> Self {
        let status = match &error {
            HistoryError::NotAUser
            | HistoryError::OtherName { .. }
            | HistoryError::NamesAreLogins
            | HistoryError::NoRegister
            | HistoryError::NotOwn(_) => Status::Forbidden,
            HistoryError::TooManyNames => Status::TooManyRequests,
            HistoryError::NoSuchLine { .. } => Status::NotFound,
            HistoryError::NoMatch { .. } | HistoryError::Changed(_) | HistoryError::Meanwhile => {
                Status::Conflict
            }
            HistoryError::Busy(_) | HistoryError::Stopping => Status::ServiceUnavailable,
            HistoryError::NotStored(NotStored::Refused(_)) => Status::InsufficientStorage,
            HistoryError::NotStored(NotStored::Unknown) | HistoryError::Read(_) => {
                Status::InternalServerError
            }
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_a_conflict_and_no_lack_of_space() {
        let status = |error: HistoryError| Refusal::from(error).status.code();
        assert_eq!(status(HistoryError::Meanwhile), 409);
        assert_eq!(status(HistoryError::Changed(1)), 409);
        let full = NotStored::Refused("the disk is full".to_owned());
        assert_eq!(status(HistoryError::NotStored(full)), 507);
    }
}
