//! What stands in front of every path (`--path-prefix`), for a proxy that does not remove it.
//!
//! The service never sees it: all links that it makes are relative. Probes are answered without it.

use std::sync::Arc;
use std::time::Duration;

use daemon::http::{Handled, HttpHandler, RequestBody, Response};
use daemon::{Caller, Role};
use proto::http::{Refusal, RequestHead, Status};

use crate::download::with_slash;
use crate::service::FileService;

/// A service below a prefix, which begins with a slash and does not end in one.
pub(crate) struct Prefixed {
    pub(crate) service: Arc<FileService>,
    pub(crate) prefix: String,
}

/// Where the path of a request stands to the prefix.
enum Place<'a> {
    /// Below it, with what is left of the path.
    Below(RequestHead<'a>),
    /// At it, without a slash behind it, to be read. A browser follows a redirect of anything else by a GET.
    At,
    Elsewhere,
}

impl Prefixed {
    fn place<'a>(&self, request: &RequestHead<'a>) -> Place<'a> {
        // `*`, of OPTIONS, is no path.
        if request.path == "*" {
            return Place::Below(request.clone());
        }
        match request.path.strip_prefix(self.prefix.as_str()) {
            Some("") if matches!(request.method, "GET" | "HEAD") => Place::At,
            Some(path) if path.starts_with('/') => {
                let mut below = request.clone();
                below.path = path;
                Place::Below(below)
            }
            Some(_) | None => Place::Elsewhere,
        }
    }
}

impl HttpHandler for Prefixed {
    fn handle(
        &self,
        caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        match self.place(request) {
            Place::Below(request) => self.service.handle(caller, &request, body),
            Place::At => {
                let sentence = "this folder's path ends in a slash";
                let moved = Refusal::new(Status::MovedPermanently, sentence);
                let link = with_slash(request.path, request.query);
                let moved = self.service.refuse(&moved);
                Ok(Handled::Now(moved.with_field("Location", link)))
            }
            Place::Elsewhere => {
                let sentence = format!("the files of this server are below {}/", self.prefix);
                let refusal = Refusal::new(Status::NotFound, sentence);
                Ok(Handled::Now(self.refuse_request(request, &refusal)))
            }
        }
    }

    fn needs(&self, request: &RequestHead<'_>) -> Role {
        match self.place(request) {
            Place::Below(request) => self.service.needs(&request),
            Place::At | Place::Elsewhere => Role::Read,
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        self.service.refuse(refusal)
    }

    fn refuse_request(&self, request: &RequestHead<'_>, refusal: &Refusal) -> Response {
        self.service.refuse_request(request, refusal)
    }

    fn replied(&self, caller: &Caller, head: &[u8], status: Status, bytes: u64) {
        self.service.replied(caller, head, status, bytes);
    }

    fn idle_timeout(&self, open_connections: usize) -> Duration {
        self.service.idle_timeout(open_connections)
    }

    fn body_timeout(&self) -> Duration {
        self.service.body_timeout()
    }
}
