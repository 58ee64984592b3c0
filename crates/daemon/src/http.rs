//! The HTTP loop: reads a head, checks which host and page it comes from (`visitors`) and who makes it
//! (`login`), has the service handle the request, writes the reply, and reads the next head while both
//! sides want to continue.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use proto::http::response::{Field, Persistence};
use proto::http::{Refusal, RequestHead, Status, request};

use rustix::time::{ClockId, clock_gettime};

use crate::caller::{Caller, Role};
use crate::connection::{AbortHandle, Connection};
use crate::input::Deadline;
use crate::metrics::{Kind, Outcome};
use crate::pending_reply::PendingReply;

mod incoming;
mod login;
pub mod page;
mod parameters;
mod probes;
mod probes_only;
mod response;

pub use incoming::BODY_STALL;
pub use parameters::{Parameters, query};
pub use probes::Probes;
pub use response::{Content, Live, PieceStream, Pieces, Response};

use incoming::Incoming;
use probes::Probe;
use response::{Exchange, put, send};

/// A head must be whole this long after its first byte.
pub const HEAD_WAIT: Duration = Duration::from_secs(10);

/// A service that speaks HTTP.
pub trait HttpHandler: Send + Sync + 'static {
    /// Answers one request. A body that is not read to its end closes the connection after
    /// the reply. Errors of `body` turn into refusals with [`body_refusal`].
    ///
    /// # Errors
    /// A refusal, which [`HttpHandler::refuse`] puts into words.
    fn handle(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal>;

    /// The role that a request needs; asked only where there are accounts.
    fn needs(&self, request: &RequestHead<'_>) -> Role {
        match request.method {
            "GET" | "HEAD" | "OPTIONS" => Role::Read,
            _ => Role::Write,
        }
    }

    /// The reply that tells a client why its request was refused.
    fn refuse(&self, refusal: &Refusal) -> Response;

    /// The same, where the request is known: a browser may want a page.
    fn refuse_request(&self, _request: &RequestHead<'_>, refusal: &Refusal) -> Response {
        self.refuse(refusal)
    }

    /// Called when a reply was sent, unless another thread completes it: for an access log. The head is
    /// as it arrived, and empty if none did; `bytes` is the length of the reply's body.
    fn replied(&self, _caller: &Caller, _head: &[u8], _status: Status, _bytes: u64) {}

    /// How long a connection may be idle, by how many are open.
    fn idle_timeout(&self, open_connections: usize) -> Duration;

    /// How long the sender of a body may be silent.
    fn body_timeout(&self) -> Duration {
        BODY_STALL
    }
}

/// The body of a request.
pub trait RequestBody: Read {
    /// Sends an interim response (RFC 9110 section 15.2) before the one that ends the request.
    ///
    /// # Errors
    /// Those of the stream.
    fn inform(&mut self, _status: Status, _fields: &[Field]) -> io::Result<()> {
        Ok(())
    }

    /// Aborts the request from another thread: a read of its body fails.
    fn abort_handle(&mut self) -> AbortHandle {
        AbortHandle::default()
    }
}

/// A body at hand.
impl RequestBody for &[u8] {}

/// What a handler makes of a request.
pub enum Handled {
    /// A reply.
    Now(Response),
    /// A reply that another thread completes.
    Later {
        /// About how long its body is, in bytes.
        body_bytes: usize,
        /// Called at once, hands it to that thread.
        hand_over: Box<dyn FnOnce(PendingResponse)>,
    },
    /// A reply that is made on the connection, because that has to wait for something else than its
    /// peer's body.
    OnConnection(OnConnection),
}

/// What makes a reply on a connection. The body of the request was read before.
///
/// # Errors
/// Those of the connection. Inside, a refusal.
pub type OnConnection =
    Box<dyn FnOnce(&mut Connection<'_>) -> io::Result<Result<Handled, Refusal>>>;

/// The reply to a request, to be completed by another thread. Dropping it aborts the connection.
#[must_use = "the peer waits for its reply"]
pub struct PendingResponse {
    reply: PendingReply,
    is_head: bool,
    persistence: Persistence,
    date: Date,
}

impl PendingResponse {
    /// Completes the reply; neither a file nor a stream can be its body. This never waits for the
    /// peer.
    pub fn complete(mut self, response: &Response) {
        let kept = match &response.body {
            Content::Kept(bytes) if !self.is_head => Some(Arc::clone(bytes)),
            Content::Kept(_) | Content::None | Content::Bytes(_) | Content::Shared(_) => None,
            Content::File { .. } | Content::Stream(_) | Content::Live(_) | Content::Bare(_) => None,
        };
        let persistence = match self.reply.is_stopping() {
            true => Persistence::Close,
            false => self.persistence,
        };
        let mut out = Vec::new();
        let date = self.date.now();
        self.reply.set_outcome(Outcome::Status(response.status));
        put(&mut out, response, self.is_head, persistence, date);
        self.reply.complete_with(out, kept);
    }
}

/// What an error of a request's body means for the reply.
pub fn body_refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            Refusal::new(Status::RequestTimeout, "the body did not arrive in time")
        }
        io::ErrorKind::FileTooLarge => Refusal::new(Status::ContentTooLarge, error.to_string()),
        _ => Refusal::new(Status::BadRequest, error.to_string()),
    }
}

/// HTTP on a port.
#[derive(Clone)]
pub struct Http {
    /// Handles the requests.
    pub handler: Arc<dyn HttpHandler>,
    /// What it tells programs that watch it.
    pub probes: Probes,
}

/// A request that was handled or refused: what its head means for the reply, and who makes it.
type Handling = (Exchange, Caller, Result<Handled, Refusal>);

/// How much memory a reply keeps that another thread completes, in bytes, beside its body: a head and a
/// line.
const PENDING_BYTES: usize = 512;

impl Http {
    /// How long a connection may be idle, by how many are open.
    pub(crate) fn idle_timeout(&self, open_connections: usize) -> Duration {
        self.handler.idle_timeout(open_connections)
    }

    /// Serves a connection until it ends.
    pub(crate) fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        let mut head = Vec::new();
        let mut date = Date::default();
        loop {
            let idle = self.handler.idle_timeout(connection.open_connections());
            if connection.next_request(Some(idle))?.is_none() {
                return Ok(());
            }
            let Some((mut exchange, caller, handled)) = self.exchange(connection, &mut head)?
            else {
                return Ok(());
            };
            let mut handled = handled;
            let continues = loop {
                let is_refused = |refusal: Refusal| {
                    log::debug!("Refused: {refusal}");
                    Handled::Now(self.handler.refuse(&refusal))
                };
                let ready = handled.unwrap_or_else(is_refused);
                if connection.ends_next() {
                    exchange.persistence = Persistence::Close;
                }
                match ready {
                    Handled::OnConnection(act) => handled = act(connection)?,
                    Handled::Now(response) => {
                        let (sent, status, bytes) =
                            self.reply(connection, response, &exchange, date.now());
                        self.handler.replied(&caller, &head, status, bytes);
                        break sent?;
                    }
                    Handled::Later {
                        body_bytes,
                        hand_over,
                    } => {
                        // Formatted here once a second, and not for each reply.
                        date.now();
                        hand_over(PendingResponse {
                            reply: connection.pending_reply(PENDING_BYTES + body_bytes)?,
                            is_head: exchange.is_head,
                            persistence: exchange.persistence,
                            date: date.clone(),
                        });
                        break exchange.persistence != Persistence::Close;
                    }
                }
            };
            // The next request may be another user's.
            if caller.user.is_some() {
                connection.log_out();
            }
            if !continues {
                return Ok(());
            }
        }
    }

    /// Sends a reply. Returns whether the connection continues, and for the log the status and the length
    /// of the body.
    fn reply(
        &self,
        connection: &mut Connection,
        mut response: Response,
        exchange: &Exchange,
        date: &str,
    ) -> (io::Result<bool>, Status, u64) {
        if let (Content::Live(_), false) = (&response.body, exchange.is_head)
            && let Err(no_room) = connection
                .become_waiter()
                .and_then(|()| connection.wakeup())
        {
            let status = Status::ServiceUnavailable;
            let refusal = Refusal::new(status, no_room.to_string());
            response = self.handler.refuse(&refusal);
        }
        connection.answered(Outcome::Status(response.status));
        let sent = send(connection, &mut response, exchange, date);
        let bytes = match exchange.is_head {
            true => 0,
            false => response.body.bytes(),
        };
        (sent, response.status, bytes)
    }

    /// The reply to a connection that is not served.
    pub(crate) fn refusal(&self, status: Status, sentence: &'static str) -> Vec<u8> {
        let refusal = Refusal::new(status, sentence);
        let response = self.handler.refuse(&refusal);
        let mut out = Vec::new();
        let mut date = Date::default();
        let close = Persistence::Close;
        put(&mut out, &response, false, close, date.now());
        out
    }

    /// Reads one request and has it handled. `None` is the end of the connection.
    fn exchange(
        &self,
        connection: &mut Connection,
        head: &mut Vec<u8>,
    ) -> io::Result<Option<Handling>> {
        let mut exchange = Exchange {
            is_head: false,
            can_chunk: false,
            persistence: Persistence::Close,
        };
        let access = connection.access();
        let newcomer = access.newcomer(connection.peer());
        connection.set_deadline(Deadline::Within(HEAD_WAIT));
        let whole = match request::read_head(connection, head) {
            Ok(whole) => whole,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let sentence = "the head of the request did not arrive within 10 s";
                Err(Refusal::new(Status::RequestTimeout, sentence))
            }
            Err(error) => return Err(error),
        };
        let request = match whole {
            Ok(true) => RequestHead::parse(head),
            Ok(false) => return Ok(None),
            Err(refusal) => Err(refusal),
        };
        // A HEAD request gets no body, even if its head could not be parsed.
        exchange.is_head = head.starts_with(b"HEAD ");
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                connection.begin(Kind::http(""));
                return Ok(Some((exchange, newcomer, Err(refusal))));
            }
        };
        exchange.can_chunk = request.minor_version > 0;
        log::debug!("{} {}", request.method, request.path);
        let kind = Kind::http(request.method);
        let probe = self.probes.find(&request);
        match probe {
            Some(_) => connection.begin_probe(kind),
            None => connection.begin(kind),
        }
        if let Err(refusal) = access.hosts.check(&request) {
            return Ok(Some((exchange, newcomer, Err(refusal))));
        }
        let needs = match probe {
            Some(Probe::Health) => None,
            Some(Probe::Metrics) if access.is_metrics_free => None,
            Some(Probe::Metrics) => Some(Role::Read),
            None if access.accounts.is_none() => None,
            None => Some(self.handler.needs(&request)).filter(|needs| !access.is_free(*needs)),
        };
        let caller = login::caller(needs, &request, connection);
        let stall = self.handler.body_timeout();
        let registration = connection.registration();
        let mut body = Incoming::new(connection, &request, stall);
        let (caller, handled) = match caller {
            Ok(caller) => {
                let handled = match probe {
                    Some(probe) => {
                        let reply = self.probes.reply(probe, &request, registration);
                        reply.map(Handled::Now)
                    }
                    None => self.handler.handle(&caller, &request, &mut body),
                };
                (caller, handled)
            }
            Err((caller, denied)) => {
                let response = login::refuse(&*self.handler, &request, &denied);
                (caller, Ok(Handled::Now(response)))
            }
        };
        if body.is_done() {
            exchange.persistence = request.persistence;
        }
        Ok(Some((exchange, caller, handled)))
    }
}

/// The value of the `Date` field, formatted anew only when the second has changed.
#[derive(Clone, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let second = u64::try_from(now.tv_sec).unwrap_or(0);
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = proto::http::date::format(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests;
