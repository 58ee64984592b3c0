//! The queues over HTTP: what a frame can ask, for curl, browsers and every language, and a page for people.
//!
//! A request becomes the [`Request`] that a frame would be (`asked`), and its outcome the reply (`reply`);
//! `requests` acts on it, as on a frame. `route` is the table of all paths, which `openapi.json` describes
//! for programs. The page (`page`) works without its script; with it, the numbers change as they do
//! (`events`).

mod asked;
mod events;
mod lists;
mod page;
mod reply;
mod route;
mod rows;
#[cfg(feature = "postgres")]
mod standby;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use daemon::http::page::{is_wanted, script, style, with_always};
use daemon::http::{Handled, HttpHandler, PendingResponse, RequestBody, Response};
use daemon::{Caller, Connection, Role};
use proto::http::{Refusal, RequestHead, Status};
use proto::queue::Request;

use crate::arrival::{must_arrive, receive};
use crate::error::QueueError;
use crate::keys::Sender;
use crate::memory::Room;
use crate::queues::{Outcome, Pending, Queues, millis};
use crate::requests::{self, Requester};
use asked::Asked;
use events::Watched;
use reply::{refusal, refused, response};
use route::{NoRoute, Route, Target, Verb};
use rows::View;

#[cfg(feature = "postgres")]
pub(crate) use standby::StandbyHttp;

/// How long a connection may be idle between two requests.
const IDLE: Duration = Duration::from_secs(60);

const OPENAPI: &str = include_str!("http/openapi.json");
const OWN_STYLE: &str = include_str!("http/page/style.css");
const OWN_SCRIPT: &str = include_str!("http/page/page.js");

/// The queues behind a port that speaks HTTP.
pub(crate) struct QueueHttp {
    queues: Arc<Queues>,
    watched: Arc<Watched>,
}

/// Why a request is not carried out.
enum Denied {
    /// It is wrong as a request over HTTP.
    Refusal(Refusal),
    /// The queues refuse it.
    Queue(QueueError),
}

impl QueueHttp {
    pub(crate) fn new(queues: &Arc<Queues>) -> Self {
        Self {
            queues: Arc::clone(queues),
            watched: Arc::new(Watched::new(queues)),
        }
    }

    fn dispatch(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Denied> {
        daemon::http::page::check_site(request)?;
        let route = match Route::of(request) {
            Ok(route) => route,
            Err(NoRoute::Refusal(refusal)) => return Err(refusal.into()),
            Err(NoRoute::Method(methods)) => {
                let sentence = format!("the methods here are {methods}");
                let refusal = Refusal::new(Status::MethodNotAllowed, sentence);
                let response = self.refuse_request(request, &refusal);
                return Ok(Handled::Now(response.with_field("Allow", methods)));
            }
        };
        Ok(Handled::Now(match route.row.target {
            Target::Verb(verb) => {
                let asked = Asked::of(request, &route, verb)?;
                return self.ask(caller, asked, request, body);
            }
            Target::Page => page::show(&self.queues, &self.watched, caller, request, &route)?,
            Target::Events => events::follow(&self.watched, View::of(request, &route)?),
            Target::Login => page::back("./"),
            Target::Style => style(OWN_STYLE),
            Target::Script => script(OWN_SCRIPT),
            Target::OpenApi => with_always(Response::new(Status::Ok, "application/json", OPENAPI)),
        }))
    }

    /// Reads the rest of a request, which is then acted on where it can wait.
    fn ask(
        &self,
        caller: &Caller,
        mut asked: Asked,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Denied> {
        // What is wrong with its head is said before its body is read.
        asked.request()?;
        let mut room = Room::new(self.queues.memory());
        asked.read_body(request, body, &self.queues, &mut room)?;
        let call = Call {
            queues: Arc::clone(&self.queues),
            sender: caller.into(),
            asked: Arc::new(asked),
            room,
            wants_page: is_wanted(request),
        };
        Ok(Handled::OnConnection(Box::new(|connection| {
            Ok(Ok(call.act(connection)?))
        })))
    }
}

impl HttpHandler for QueueHttp {
    fn handle(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        let handled = self.dispatch(caller, request, body);
        Ok(handled.unwrap_or_else(|denied| Handled::Now(refused_request(request, &denied))))
    }

    fn needs(&self, request: &RequestHead<'_>) -> Role {
        needs(request)
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        refused(&Denied::Refusal(refusal.clone()))
    }

    fn refuse_request(&self, request: &RequestHead<'_>, refusal: &Refusal) -> Response {
        refused_request(request, &Denied::Refusal(refusal.clone()))
    }

    fn idle_timeout(&self, _open_connections: usize) -> Duration {
        IDLE
    }
}

/// The role that a request needs.
fn needs(request: &RequestHead<'_>) -> Role {
    let Ok(route) = Route::of(request) else {
        return Role::Read;
    };
    match route.row.target {
        Target::Verb(verb) => {
            let asked = Asked::of(request, &route, verb);
            let role = asked.and_then(|asked| Ok(requests::role(&asked.request()?)));
            // One that cannot be read is refused.
            role.unwrap_or(Role::Read)
        }
        // Who may only look without an account asks for more by that.
        Target::Login => Role::Write,
        Target::Page | Target::Events | Target::Style | Target::Script | Target::OpenApi => {
            Role::Read
        }
    }
}

/// The reply to a request that is not carried out: a page for a browser.
fn refused_request(request: &RequestHead<'_>, denied: &Denied) -> Response {
    if is_wanted(request) {
        page::refused(&refusal(denied), &page::home(request.path))
    } else {
        refused(denied)
    }
}

/// A request that was read whole.
struct Call {
    queues: Arc<Queues>,
    sender: Sender,
    asked: Arc<Asked>,
    /// What its body takes on the account, and then its reply.
    room: Room,
    wants_page: bool,
}

impl Call {
    fn act(mut self, connection: &mut Connection) -> io::Result<Handled> {
        let (queues, asked) = (Arc::clone(&self.queues), Arc::clone(&self.asked));
        let request = match asked.request() {
            Ok(request) => request,
            Err(refusal) => return Ok(self.reply(Err(refusal.into()))),
        };
        log::debug!("{}", requests::shown(&request));
        if requests::sees_all(&request) {
            connection.wait_for_replies()?;
        }
        if asked.verb == Verb::Peek {
            return Ok(Handled::Now(lists::messages(queues, asked)));
        }
        let (room, sender) = (&mut self.room, self.sender.clone());
        let mut attempt = || apply(&queues, &sender, &request, room);
        let applied = if let Request::Receive {
            queues: names,
            wait_millis,
            ..
        } = &request
        {
            match must_arrive(connection)? {
                Ok(()) => {
                    let wait = millis(*wait_millis);
                    receive(&queues, names, wait, connection, attempt)?
                }
                Err(error) => Err(error),
            }
        } else {
            attempt()
        };
        Ok(match applied {
            Ok(pending @ Pending::Submitted(..)) => self.reply_later(pending),
            Ok(Pending::Done(outcome)) => self.reply(Ok(outcome)),
            Err(error) => self.reply(Err(error.into())),
        })
    }

    /// The reply to a request that is done or refused.
    fn reply(self, result: Result<Outcome, Denied>) -> Handled {
        let response = match result {
            Ok(Outcome::Stats(stats)) => lists::queues(stats, self.room),
            Ok(outcome) => {
                let response = self.response(Ok(&outcome));
                if let Outcome::Reserved(leased) = outcome {
                    self.queues.start_lease(leased);
                }
                response
            }
            Err(denied) => self.response(Err(&denied)),
        };
        Handled::Now(response)
    }

    fn response(&self, result: Result<&Outcome, &Denied>) -> Response {
        match (result, self.wants_page) {
            (Err(denied), true) => page::refused(&refusal(denied), &self.asked.home),
            (Err(denied), false) => refused(denied),
            (Ok(Outcome::Done(_)), true) => page::done(&self.queues, &self.asked),
            (Ok(outcome), _) => response(&self.asked, outcome),
        }
    }

    /// Has the writer thread reply when a change is committed.
    fn reply_later(self, pending: Pending) -> Handled {
        let body_bytes = pending.delivered_bytes().unwrap_or(0);
        let unanswered = Unanswered {
            queues: Arc::clone(&self.queues),
            pending: Some(pending),
        };
        let hand_over = move |reply: PendingResponse| {
            let encode = move |result: Result<&Outcome, &QueueError>| {
                let denied = |error: &QueueError| Denied::Queue(error.clone());
                self.response(result.map_err(denied).as_ref().map(|outcome| *outcome))
            };
            unanswered.on_complete(encode, move |response| reply.complete(&response));
        };
        Handled::Later {
            body_bytes,
            hand_over: Box::new(hand_over),
        }
    }
}

/// Does what a request asks.
fn apply(
    queues: &Queues,
    sender: &Sender,
    request: &Request,
    room: &mut Room,
) -> Result<Pending, QueueError> {
    let prepared = requests::apply(queues, sender, request, &mut Requester::Http { room })?;
    Ok(queues.submit(prepared, None))
}

/// A change that nobody may be told of any more. Dropping it has what is in memory follow the disk.
struct Unanswered {
    queues: Arc<Queues>,
    pending: Option<Pending>,
}

impl Unanswered {
    fn on_complete<R>(
        mut self,
        encode: impl FnOnce(Result<&Outcome, &QueueError>) -> R + Send + 'static,
        send: impl FnOnce(R) + Send + 'static,
    ) {
        if let Some(pending) = self.pending.take() {
            self.queues.on_complete(pending, encode, send);
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.queues.on_complete(pending, |_| (), |()| ());
        }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<QueueError> for Denied {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => f.write_str(&refusal.sentence),
            Self::Queue(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
