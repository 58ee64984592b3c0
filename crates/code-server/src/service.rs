//! The handlers of the two ports: a request's body in, a reply out.
//!
//! A code is replied at once, or after a wait for the disk if it is new. The reply to a message is left to
//! the thread that writes the log. What is not a POST of a small body to `/` is refused.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use daemon::http::{Content, Handled, HttpHandler, RequestBody, Response, body_refusal};
use daemon::{Caller, Role};
use proto::code::{BODY_BYTES_MAX, BodyError, CodeRequest, MessageRequest, Reply};
use proto::http::conditional::{self, Verdict};
use proto::http::{BodyLength, Refusal, RequestHead, Status};
use storage::{NotStored, Pending};
use uuid::Uuid;

use crate::codes::{Codes, CodesError};
use crate::messages::Messages;

/// How long a connection may be idle between two requests.
const IDLE: Duration = Duration::from_secs(60);

/// The room that is made for a body at once, in bytes. A longer one gets more as its bytes arrive.
const USUAL_BODY_BYTES: usize = 1024;

/// One of the two ports. They differ only in what the body of a request asks for.
pub(crate) struct Port<S> {
    pub(crate) service: S,
    pub(crate) python_replies: bool,
}

/// What a port does with the body of a request.
pub(crate) trait Answer: Send + Sync + 'static {
    fn answer(&self, body: &[u8]) -> Result<Answered, Refusal>;
}

/// The answer to the body of a request.
pub(crate) enum Answered {
    /// The code that was asked for.
    Code(Uuid),
    /// The message will be in the log when this change is committed.
    Logging(Pending<()>),
}

/// The port where codes are asked for.
pub(crate) struct CodePort {
    pub(crate) codes: Arc<Codes>,
}

/// The port where messages are left.
pub(crate) struct MessagePort {
    pub(crate) codes: Arc<Codes>,
    pub(crate) messages: Arc<Messages>,
}

impl<S: Answer> HttpHandler for Port<S> {
    fn handle(
        &self,
        _caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        if !matches!(request.path, "/" | "*") {
            return Err(Refusal::new(Status::NotFound, "the only path here is /"));
        }
        if request.method != "POST" {
            let refusal = Refusal::new(Status::MethodNotAllowed, "the only method here is POST");
            let response = self.refuse(&refusal).with_field("Allow", "POST");
            return Ok(Handled::Now(response));
        }
        // Replies have no ETag or Last-Modified, so a precondition can never hold.
        if conditional::judge(request, None) != Verdict::Go {
            let sentence = "the request's condition is false";
            return Err(Refusal::new(Status::PreconditionFailed, sentence));
        }
        let pending = match self.service.answer(&read_body(request, body)?)? {
            Answered::Code(code) => {
                let response = respond(Status::Ok, &Reply::Code(code), self.python_replies);
                return Ok(Handled::Now(response));
            }
            Answered::Logging(pending) => pending,
        };
        // The bare reply of the original ends the connection, which its own thread must do.
        if self.python_replies {
            return Ok(Handled::Now(logged(pending.wait(), true)));
        }
        Ok(Handled::Later {
            body_bytes: 0,
            hand_over: Box::new(|reply| {
                pending.on_complete(move |outcome| reply.complete(&logged(outcome, false)));
            }),
        })
    }

    fn needs(&self, _request: &RequestHead<'_>) -> Role {
        Role::Write
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        refuse(refusal, self.python_replies)
    }

    fn idle_timeout(&self, _open_connections: usize) -> Duration {
        IDLE
    }
}

fn respond(status: Status, reply: &Reply, python_replies: bool) -> Response {
    let mut response = Response::new(status, "application/json", reply.to_json());
    if python_replies {
        response.body = Content::Bare(reply.to_python().into_bytes());
    }
    response
}

fn refuse(refusal: &Refusal, python_replies: bool) -> Response {
    let reply = Reply::Refused(refusal.sentence.clone().into_owned());
    respond(refusal.status, &reply, python_replies)
}

/// The reply to a message when its change is committed or refused.
fn logged(outcome: Result<(), NotStored>, python_replies: bool) -> Response {
    match outcome {
        Ok(()) => respond(Status::Ok, &Reply::Logged, python_replies),
        Err(error) => {
            let refusal = not_stored(&error, format!("the message is {error}"));
            log::debug!("Refused: {refusal}");
            refuse(&refusal, python_replies)
        }
    }
}

impl Answer for CodePort {
    fn answer(&self, body: &[u8]) -> Result<Answered, Refusal> {
        let asked = CodeRequest::decode(body).map_err(bad_body)?;
        let code = self.codes.get_or_make(asked.uuid).map_err(no_code)?;
        log::debug!("{} has a code", asked.uuid);
        Ok(Answered::Code(code))
    }
}

impl Answer for MessagePort {
    fn answer(&self, body: &[u8]) -> Result<Answered, Refusal> {
        let message = MessageRequest::decode(body).map_err(bad_body)?;
        let forbidden = |sentence| Refusal::new(Status::Forbidden, sentence);
        let code = self.codes.get(message.uuid);
        let code = code.ok_or(forbidden("no code was handed out for this UUID"))?;
        if Uuid::try_parse(&message.unique) != Ok(code) {
            return Err(forbidden("wrong code for this UUID"));
        }
        log::debug!("{} leaves a message", message.uuid);
        let pending = self.messages.add(message.uuid, message.text);
        Ok(Answered::Logging(pending))
    }
}

fn read_body(request: &RequestHead, body: &mut dyn RequestBody) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let sentence = format!("the body exceeds {BODY_BYTES_MAX} bytes");
        Refusal::new(Status::ContentTooLarge, sentence)
    };
    let expected = match request.body {
        BodyLength::Bytes(bytes) if bytes > BODY_BYTES_MAX as u64 => return Err(too_large()),
        BodyLength::Bytes(bytes) => bytes as usize,
        BodyLength::None => {
            let sentence = "a request needs a body, and a Content-Length or chunked coding";
            return Err(Refusal::new(Status::LengthRequired, sentence));
        }
        _ => 0,
    };
    // What a client announces costs no memory beyond this.
    let mut bytes = Vec::with_capacity(expected.min(USUAL_BODY_BYTES));
    let read = match expected {
        // One read to a known end; read_to_end would look for it with another.
        1..=USUAL_BODY_BYTES => {
            bytes.resize(expected, 0);
            body.read_exact(&mut bytes)
        }
        _ => body
            .take(BODY_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map(drop),
    };
    read.map_err(|error| body_refusal(&error))?;
    match bytes.len() {
        0..=BODY_BYTES_MAX => Ok(bytes),
        _ => Err(too_large()),
    }
}

fn bad_body(error: BodyError) -> Refusal {
    Refusal::new(Status::BadRequest, error.to_string())
}

fn no_code(error: CodesError) -> Refusal {
    let sentence = error.to_string();
    match &error {
        CodesError::TooMany(_) => Refusal::new(Status::ServiceUnavailable, sentence),
        CodesError::NotStored(error) => not_stored(error, sentence),
    }
}

fn not_stored(error: &NotStored, sentence: String) -> Refusal {
    let status = match error {
        NotStored::Refused(_) => Status::InsufficientStorage,
        NotStored::Unknown => Status::InternalServerError,
    };
    Refusal::new(status, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_whole_however_long_it_is_and_however_that_is_said() {
        let read = |framing: &str, bytes: usize| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
            let request = RequestHead::parse(head.as_bytes()).unwrap();
            let read = read_body(&request, &mut vec![b'x'; bytes].as_slice());
            read.map_err(|refusal| refusal.status)
        };
        let (usual, max) = (USUAL_BODY_BYTES, BODY_BYTES_MAX);
        for bytes in [0, 1, usual, usual + 1, max, max + 1] {
            let want = match bytes <= max {
                true => Ok(vec![b'x'; bytes]),
                false => Err(Status::ContentTooLarge),
            };
            assert_eq!(read(&format!("Content-Length: {bytes}"), bytes), want);
            assert_eq!(read("Transfer-Encoding: chunked", bytes), want);
        }
        assert_eq!(read("Content-Length: 2", 1), Err(Status::BadRequest));
        assert_eq!(read("X: none", 0), Err(Status::LengthRequired));
    }
}
