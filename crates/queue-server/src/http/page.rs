//! The page: all queues, the messages of one, and the question before something is gone.
//!
//! What a button does is a `POST` to the path that a program would use, and then the browser is sent back.
//! All of the page is at `/`, so a page of another site can open it, and nothing else.

use askama::Template;
use daemon::http::page::{TEXT, html, with_always};
use daemon::http::{Parameters, Response, query};
use daemon::{Caller, Role};
use proto::http::{Refusal, RequestHead, Status};
use proto::queue::{QueueName, Request};

use super::asked::{Asked, state};
use super::events::Watched;
use super::route::Route;
use super::rows::{MessageRow, QueueRow, View};
use super::{Denied, apply};
use crate::keys::Sender;
use crate::memory::Room;
use crate::queues::{Outcome, Pending, Queues, Stats};
use crate::replies::reply;

/// The most messages on a page.
const MESSAGES_MAX: usize = 50;

/// What a tab shows, by the word in the address.
const STATES: [&str; 4] = ["ready", "reserved", "delayed", "dead"];

#[derive(Template)]
#[template(path = "queues.html")]
struct QueuesPage<'a> {
    viewer: Viewer<'a>,
    view: &'a View,
    is_draining: bool,
    rows: Vec<QueueRow>,
    events: String,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "queue.html")]
struct QueuePage<'a> {
    viewer: Viewer<'a>,
    name: &'a str,
    row: QueueRow,
    events: String,
    state: &'a str,
    tabs: Vec<Tab>,
    messages: Vec<MessageRow>,
    is_first: bool,
    next: Option<String>,
    /// Where a browser goes from a button of this page.
    back: String,
}

/// One of the states of messages, and how many are in it.
struct Tab {
    state: &'static str,
    count: usize,
    link: String,
}

#[derive(Template)]
#[template(path = "ask.html")]
struct AskPage<'a> {
    question: String,
    name: &'a str,
    message: Option<MessageRow>,
    action: String,
    yes: &'static str,
    home: String,
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    status: String,
    sentence: &'a str,
    home: &'a str,
}

/// Who looks, and what the page offers because of that.
struct Viewer<'a> {
    login: Option<&'a str>,
    can_manage: bool,
    can_log_in: bool,
}

impl<'a> Viewer<'a> {
    fn of(caller: &'a Caller) -> Self {
        Self {
            login: caller.user.as_deref(),
            can_manage: caller.role >= Role::Admin,
            can_log_in: caller.user.is_none() && caller.role < Role::Admin,
        }
    }
}

/// The page that a query asks for.
pub(super) fn show(
    queues: &Queues,
    watched: &Watched,
    caller: &Caller,
    request: &RequestHead,
    route: &Route,
) -> Result<Response, Denied> {
    let parameters = Parameters::of_query(request, route.row.query)?;
    let view = View::of_parameters(&parameters)?;
    let stats = watched.fresh();
    let viewer = Viewer::of(caller);
    let page = match (&*view.queue, parameters.get("ask")) {
        ("", "drain") => ask_to_drain().render(),
        ("", "") => all(viewer, &view, &stats).render(),
        (_, "") => one(queues, viewer, &view, &stats, &parameters)?.render(),
        (_, _) => ask(queues, &view, &stats, &parameters)?.render(),
    };
    Ok(html(Status::Ok, page)?)
}

fn all<'a>(viewer: Viewer<'a>, view: &'a View, stats: &Stats) -> QueuesPage<'a> {
    let shown = view.rows(stats);
    QueuesPage {
        viewer,
        view,
        is_draining: stats.totals.is_draining,
        rows: shown.rows,
        events: format!("events{}", view.link(&view.from)),
        next: shown.next.map(|name| view.link(&name)),
    }
}

fn one<'a>(
    queues: &Queues,
    viewer: Viewer<'a>,
    view: &'a View,
    stats: &Stats,
    parameters: &'a Parameters,
) -> Result<QueuePage<'a>, Denied> {
    let (name, row) = found(view, stats)?;
    let shown_state = match parameters.get("state") {
        "" => "ready",
        word => word,
    };
    let dead = name.dead();
    let (queue, state) = match shown_state {
        "dead" => (QueueName::new(&dead).unwrap_or(name), state("ready")?),
        word => (name, state(word)?),
    };
    let mut after = parameters.number("after")?.unwrap_or(0);
    let is_first = after == 0;
    let mut messages = Vec::new();
    while messages.len() < MESSAGES_MAX {
        let peek = Request::Peek {
            queue,
            state,
            after,
        };
        let Some(message) = peeked(queues, &peek)? else {
            break;
        };
        after = message.position;
        messages.push(message);
    }
    let link = |state: &str, after: &str| {
        query(&[("queue", name.as_str()), ("state", state), ("after", after)])
    };
    let counts = [row.ready, row.reserved, row.delayed, row.dead];
    let has_dead = !name.is_dead();
    let tabs = STATES.into_iter().zip(counts);
    let tabs = tabs.filter(|(state, _)| has_dead || *state != "dead");
    let next = (messages.len() == MESSAGES_MAX).then(|| link(shown_state, &after.to_string()));
    Ok(QueuePage {
        viewer,
        name: &view.queue,
        row,
        events: format!("events{}", view.link("")),
        state: shown_state,
        tabs: tabs
            .map(|(state, count)| Tab {
                state,
                count,
                link: link(state, ""),
            })
            .collect(),
        messages,
        is_first,
        next,
        back: query(&[("back", &link(shown_state, ""))]),
    })
}

/// The question before something is gone that does not come back.
fn ask<'a>(
    queues: &Queues,
    view: &'a View,
    stats: &Stats,
    parameters: &Parameters,
) -> Result<AskPage<'a>, Denied> {
    let (name, row) = found(view, stats)?;
    let home = query(&[("queue", name.as_str()), ("state", parameters.get("state"))]);
    let back = query(&[("back", &home)]);
    let page = AskPage {
        question: String::new(),
        name: &view.queue,
        message: None,
        action: String::new(),
        yes: "",
        home,
    };
    match parameters.get("ask") {
        "purge" => Ok(AskPage {
            question: format!("Delete the messages of {name} that nobody has reserved?"),
            action: format!("queues/{name}/purge{back}"),
            yes: if row.ready + row.delayed == 1 {
                "Yes, delete it"
            } else {
                "Yes, delete all of them"
            },
            ..page
        }),
        "delete" => {
            let id = parameters.number("id")?.unwrap_or(0);
            let peek = Request::PeekOne { queue: name, id };
            let gone = || Refusal::new(Status::NotFound, format!("there is no message {id}"));
            Ok(AskPage {
                question: "Delete this message?".to_owned(),
                message: Some(peeked(queues, &peek)?.ok_or_else(gone)?),
                action: format!("queues/{name}/messages/{id}/delete{back}"),
                yes: "Yes, delete it",
                ..page
            })
        }
        other => {
            let other = cli::escape::Escaped(other);
            let sentence = format!("ask must be purge, delete or drain, not '{other}'");
            Err(Refusal::new(Status::BadRequest, sentence).into())
        }
    }
}

fn ask_to_drain() -> AskPage<'static> {
    AskPage {
        question: "Refuse new messages, in all queues?".to_owned(),
        name: "",
        message: None,
        action: "drain".to_owned(),
        yes: "Yes, refuse them",
        home: String::new(),
    }
}

/// The queue that a view is of, and its row.
fn found<'a>(view: &'a View, stats: &Stats) -> Result<(QueueName<'a>, QueueRow), Refusal> {
    let name = super::asked::name(&view.queue)?;
    let gone = || Refusal::new(Status::NotFound, format!("there is no queue '{name}'"));
    let row = view.rows(stats).rows.pop().ok_or_else(gone)?;
    Ok((name, row))
}

fn peeked(queues: &Queues, peek: &Request) -> Result<Option<MessageRow>, Denied> {
    let mut room = Room::new(queues.memory());
    match apply(queues, &Sender::default(), peek, &mut room)? {
        Pending::Done(outcome @ Outcome::Peeked(..)) => Ok(MessageRow::of(&reply(&outcome))),
        Pending::Done(_) | Pending::Submitted(..) => Ok(None),
    }
}

/// A refusal as a page, from which the others are at `home`.
pub(super) fn refused(refusal: &Refusal, home: &str) -> Response {
    log::debug!("Refused: {refusal}");
    let page = RefusedPage {
        status: refusal.status.to_string(),
        sentence: &refusal.sentence,
        home,
    };
    let failed = |failed: Refusal| Response::new(failed.status, TEXT, &*failed.sentence);
    html(refusal.status, page.render()).unwrap_or_else(failed)
}

/// The page, as seen from a path with this many folders below it.
pub(super) fn home(path: &str) -> String {
    format!(
        "./{}",
        "../".repeat(path.matches('/').count().saturating_sub(1))
    )
}

/// The reply to a button: back to the page, or to all queues if that of the page is gone.
pub(super) fn done(queues: &Queues, asked: &Asked) -> Response {
    if asked.queue().is_ok_and(|queue| !queues.exists(queue)) {
        return back(&asked.home);
    }
    // The address is made anew, so that nothing but a query of the page is in it.
    let parameters = form_urlencoded::parse(
        asked
            .parameters
            .get("back")
            .trim_start_matches('?')
            .as_bytes(),
    );
    let parameters: Vec<_> = parameters.collect();
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    back(&format!("{}{}", asked.home, query(&parameters)))
}

/// Sends a browser to another place.
pub(super) fn back(location: &str) -> Response {
    let response = Response::new(Status::SeeOther, TEXT, "See there.\n");
    with_always(response.with_field("Location", location.to_owned()))
}
