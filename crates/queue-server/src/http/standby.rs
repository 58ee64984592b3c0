//! HTTP of a server that stands by.

use std::time::Duration;

use daemon::http::page::style;
use daemon::http::{Handled, HttpHandler, RequestBody, Response};
use daemon::{Caller, Role};
use proto::http::{Refusal, RequestHead};

use super::route::{Route, Target};
use super::{Denied, IDLE, OWN_STYLE, needs, refused, refused_request};
use crate::error::QueueError;

/// Refuses every request, and has the sheet for the page that says so.
pub(crate) struct StandbyHttp;

impl HttpHandler for StandbyHttp {
    fn handle(
        &self,
        _caller: &Caller,
        request: &RequestHead<'_>,
        _body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        Ok(Handled::Now(match Route::of(request) {
            Ok(route) if route.row.target == Target::Style => style(OWN_STYLE),
            Ok(_) | Err(_) => refused_request(request, &Denied::Queue(QueueError::Standby)),
        }))
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
