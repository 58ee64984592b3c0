//! What programs that watch a server ask: `/metrics`, how it does, and `/healthz`, whether it serves.
//!
//! The HTTP loop answers both before the service sees them, on every port alike. A page of metrics can
//! be long, so only a few are on their way at the same time, of which each source has a share, and one is
//! made after the other.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex};

use proto::http::{Refusal, RequestHead, Status};

use super::response::{PieceStream, Pieces, Response};
use crate::lock;
use crate::metrics::page::{CONTENT_TYPE, Figures, Sources};
use crate::registry::Registration;
use crate::shares::Scarce;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Where a server answers probes, and what a page of metrics says about its service.
#[derive(Clone)]
pub struct Probes {
    /// What stands in front of `/metrics` and `/healthz`.
    prefix: &'static str,
    figures: Arc<dyn Figures>,
    /// Why the server does not serve.
    unavailable: Option<&'static str>,
    /// Held while a page is made: the service's figures are copied for that.
    making: Arc<Mutex<()>>,
}

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// Whether the server serves.
    Health,
    /// How it does.
    Metrics,
}

impl Probes {
    /// Answers below `prefix`, which is empty or a path without a slash at its end.
    pub fn new(prefix: &'static str, figures: Arc<dyn Figures>) -> Self {
        Self {
            prefix,
            figures,
            unavailable: None,
            making: Arc::default(),
        }
    }

    /// Of a server that answers, but does not serve at the moment: `/healthz` says why.
    pub fn unavailable(self, why: &'static str) -> Self {
        Self {
            unavailable: Some(why),
            ..self
        }
    }

    /// What a request asks, if it is a probe.
    pub(super) fn find(&self, request: &RequestHead) -> Option<Probe> {
        match request.path.strip_prefix(self.prefix)? {
            "/healthz" => Some(Probe::Health),
            "/metrics" => Some(Probe::Metrics),
            _ => None,
        }
    }

    /// The reply to a probe.
    pub(super) fn reply(
        &self,
        probe: Probe,
        request: &RequestHead,
        registration: &Arc<Registration>,
    ) -> Result<Response, Refusal> {
        if !matches!(request.method, "GET" | "HEAD") {
            let mut refused = text(
                Status::MethodNotAllowed,
                "the methods here are GET and HEAD",
            );
            refused.fields.push(("Allow", Cow::Borrowed("GET, HEAD")));
            return Ok(refused);
        }
        match probe {
            Probe::Health if registration.registry.is_stopping() => {
                Ok(text(Status::ServiceUnavailable, "stopping"))
            }
            Probe::Health => Ok(match self.unavailable {
                Some(why) => text(Status::ServiceUnavailable, why),
                None => text(Status::Ok, "ok"),
            }),
            Probe::Metrics => self.page(registration),
        }
    }

    fn page(&self, registration: &Arc<Registration>) -> Result<Response, Refusal> {
        if let Err(error) = registration.acquire(Scarce::Page) {
            return Err(Refusal::new(Status::ServiceUnavailable, error.to_string()));
        }
        let page = MetricsPage {
            sources: Some(Sources {
                registry: Arc::clone(&registration.registry),
                figures: Arc::clone(&self.figures),
            }),
            making: Arc::clone(&self.making),
            registration: Arc::clone(registration),
        };
        let body = super::Content::Stream(PieceStream::new(page));
        Ok(Response {
            body,
            ..Response::new(Status::Ok, CONTENT_TYPE, "")
        }
        .with_field("Cache-Control", "no-store"))
    }
}

fn text(status: Status, word: &str) -> Response {
    Response::new(status, TEXT, format!("{word}\n")).with_field("Cache-Control", "no-store")
}

/// A page on its way. It is made only when it is sent, so a request with HEAD costs nothing. Dropping it makes
/// room for another.
struct MetricsPage {
    sources: Option<Sources>,
    making: Arc<Mutex<()>>,
    registration: Arc<Registration>,
}

impl Pieces for MetricsPage {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if let Some(sources) = self.sources.take() {
            let _making = lock(&self.making);
            let page = sources.page().map_err(io::Error::other)?;
            out.extend(page.into_bytes());
        }
        Ok(false)
    }
}

impl Drop for MetricsPage {
    fn drop(&mut self) {
        self.registration.release(Scarce::Page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_told_from_what_only_begins_like_them() {
        let check = |prefix, target: &str, want| {
            let head = format!("GET {target} HTTP/1.0\r\n\r\n");
            let request = RequestHead::parse(head.as_bytes()).unwrap();
            let found = Probes::new(prefix, Arc::new(())).find(&request);
            assert_eq!(found, want, "{prefix} {target}");
        };
        check("", "/metrics", Some(Probe::Metrics));
        check("", "/healthz?verbose", Some(Probe::Health));
        check("", "/healthz/", None);
        check("", "//metrics", None);
        check("", "/.quartet/metrics", None);
        check("/.quartet", "/.quartet/metrics", Some(Probe::Metrics));
        check("/.quartet", "/.quartet/healthz", Some(Probe::Health));
        check("/.quartet", "/metrics", None);
        check("/.quartet", "/.quartetmetrics", None);
    }
}
