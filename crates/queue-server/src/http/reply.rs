//! Outcomes and refusals as HTTP replies.

use std::sync::Arc;

use daemon::http::page::with_always;
use daemon::http::{Content, Response};
use proto::ErrorCode;
use proto::http::{Refusal, Status};
use proto::queue::{MessageJson, Reply};
use serde_json::{Value, json};

use super::Denied;
use super::asked::Asked;
use super::route::Verb;
use crate::queues::Outcome;
use crate::replies::{code, long_body, reply};

pub(super) const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// The reply to a request that was carried out.
pub(super) fn response(asked: &Asked, outcome: &Outcome) -> Response {
    let response = match reply(outcome) {
        Reply::Stored { id } => {
            let location = format!("messages/{id}");
            to_json(Status::Created, &json!({"id": id})).with_field("Location", location)
        }
        // It is there, but was not made by this request.
        Reply::StoredBefore { id } => {
            let location = format!("messages/{id}");
            to_json(Status::Ok, &json!({"id": id})).with_field("Location", location)
        }
        Reply::Leased {
            token,
            id,
            queue_index,
            attempt,
            body,
        } => bytes(outcome, body)
            .with_field("Queue-Token", token.to_string())
            .with_field("Queue-Id", id.to_string())
            .with_field("Queue-Name", asked.name_of(queue_index).to_owned())
            .with_field("Queue-Attempt", attempt.to_string()),
        Reply::Message { id, body, .. } => {
            bytes(outcome, body).with_field("Queue-Id", id.to_string())
        }
        Reply::Peeked { id, body, .. } if asked.verb == Verb::Body => {
            bytes(outcome, body).with_field("Queue-Id", id.to_string())
        }
        peeked @ Reply::Peeked { .. } => {
            let message = MessageJson::of(&peeked, asked.start_bytes);
            to_json(Status::Ok, &json!(message))
        }
        // A session is of frames alone.
        Reply::Empty | Reply::Session { .. } => Response::empty(Status::NoContent),
        Reply::Done { messages } => to_json(Status::Ok, &json!({"messages": messages})),
        Reply::Stats { totals, queues } => {
            let mut all = json!(totals);
            all["queues"] = json!(queues);
            to_json(Status::Ok, &all)
        }
        Reply::Error(error) => error_json(status(error.code), error.code, error.sentence),
    };
    with_always(response)
}

fn bytes(outcome: &Outcome, body: &[u8]) -> Response {
    let response = Response::new(Status::Ok, BYTES, "");
    let body = match long_body(outcome) {
        Some(long) => Content::Kept(long as Arc<_>),
        None => Content::Bytes(body.to_vec()),
    };
    Response { body, ..response }
}

pub(super) fn to_json(status: Status, value: &Value) -> Response {
    Response::new(status, JSON, format!("{value}\n"))
}

/// The reply to a request that is refused.
pub(super) fn refused(denied: &Denied) -> Response {
    log::debug!("Refused: {denied}");
    let (status, code) = match denied {
        Denied::Refusal(refusal) => (refusal.status, code_of(refusal.status)),
        Denied::Queue(error) => (status(code(error)), code(error)),
    };
    with_always(error_json(status, code, &denied.to_string()))
}

/// The refusal that says the same as a page.
pub(super) fn refusal(denied: &Denied) -> Refusal {
    match denied {
        Denied::Refusal(refusal) => refusal.clone(),
        Denied::Queue(error) => Refusal::new(status(code(error)), error.to_string()),
    }
}

fn error_json(status: Status, code: ErrorCode, sentence: &str) -> Response {
    let (name, code) = (code.name(), code.number());
    to_json(
        status,
        &json!({"code": code, "name": name, "error": sentence}),
    )
}

/// The status of each code; a new one is named here.
fn status(code: ErrorCode) -> Status {
    match code {
        ErrorCode::BadRequest | ErrorCode::Unsupported | ErrorCode::Unknown => Status::BadRequest,
        ErrorCode::TooLarge => Status::ContentTooLarge,
        ErrorCode::Busy | ErrorCode::Draining | ErrorCode::ShuttingDown | ErrorCode::Standby => {
            Status::ServiceUnavailable
        }
        // Not 503: after that a proxy may ask again by itself, because nothing was carried out.
        ErrorCode::Storage | ErrorCode::InDoubt => Status::InternalServerError,
        ErrorCode::Forbidden => Status::Forbidden,
        ErrorCode::NotFound => Status::NotFound,
        ErrorCode::Full => Status::InsufficientStorage,
        ErrorCode::Paused | ErrorCode::Conflict => Status::Conflict,
        ErrorCode::Unauthorized => Status::Unauthorized,
        ErrorCode::TooManyLogins => Status::TooManyRequests,
    }
}

/// The code of what the front door refuses, or what is wrong with HTTP itself.
fn code_of(status: Status) -> ErrorCode {
    match status {
        Status::Unauthorized => ErrorCode::Unauthorized,
        Status::Forbidden | Status::MisdirectedRequest => ErrorCode::Forbidden,
        Status::NotFound => ErrorCode::NotFound,
        Status::TooManyRequests => ErrorCode::TooManyLogins,
        Status::ContentTooLarge | Status::UriTooLong | Status::HeaderFieldsTooLarge => {
            ErrorCode::TooLarge
        }
        Status::ServiceUnavailable => ErrorCode::Busy,
        Status::MethodNotAllowed | Status::NotImplemented | Status::HttpVersionNotSupported => {
            ErrorCode::Unsupported
        }
        Status::InternalServerError => ErrorCode::Storage,
        Status::InsufficientStorage => ErrorCode::Full,
        Status::Conflict => ErrorCode::Conflict,
        Status::BadRequest
        | Status::RequestTimeout
        | Status::LengthRequired
        | Status::PreconditionFailed
        | Status::UnsupportedMediaType
        | Status::RangeNotSatisfiable
        | Status::ExpectationFailed
        | Status::Locked
        | Status::BadGateway
        // These refuse nothing.
        | Status::Continue
        | Status::UploadResumptionSupported
        | Status::Ok
        | Status::Created
        | Status::NoContent
        | Status::PartialContent
        | Status::MovedPermanently
        | Status::SeeOther
        | Status::NotModified => ErrorCode::BadRequest,
    }
}
