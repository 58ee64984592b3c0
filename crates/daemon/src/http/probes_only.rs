//! HTTP on a port that is not for browsers: probes, and a sentence that says so.

use std::sync::Arc;
use std::time::Duration;

use proto::http::{Refusal, RequestHead, Status};

use super::probes::TEXT;
use super::{Handled, Http, HttpHandler, Probes, RequestBody, Response};
use crate::caller::Caller;

/// How long a connection may be idle between two probes: longer than most programs wait between them.
const IDLE: Duration = Duration::from_secs(90);

/// Refuses every request.
struct ProbesOnly {
    /// What the port is for, as a sentence that goes on.
    what_for: &'static str,
}

impl Http {
    /// HTTP on a port that only answers probes. To other requests it says what the port is for:
    /// "this port is ...".
    pub fn probes_only(probes: Probes, what_for: &'static str) -> Self {
        let handler = Arc::new(ProbesOnly { what_for });
        Self { handler, probes }
    }
}

impl HttpHandler for ProbesOnly {
    fn handle(
        &self,
        _caller: &Caller,
        _request: &RequestHead<'_>,
        _body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        let what_for = self.what_for;
        let sentence =
            format!("this port is {what_for}; over HTTP it has nothing but /metrics and /healthz");
        Err(Refusal::new(Status::NotFound, sentence))
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let body = format!("{}\n", refusal.sentence);
        Response::new(refusal.status, TEXT, body)
    }

    fn idle_timeout(&self, _open_connections: usize) -> Duration {
        IDLE
    }
}
