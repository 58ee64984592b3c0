//! Who may do what, asked and answered in HTTP: what needs an account, what is said to those who have
//! none, and what no cache may keep.

use std::net::SocketAddr;

use daemon::http::Response;
use proto::http::response::Field;
use proto::http::{Refusal, RequestHead, Status, basic};

use crate::accounts::Access;
use crate::connection::Connections;

/// How a client is to prove who it is (RFC 7617).
const CHALLENGE: &str = "Basic realm=\"files\", charset=\"UTF-8\"";

impl Connections {
    /// The refusal of a request that needs an account and comes without one.
    pub(crate) fn check_access(
        &self,
        peer: SocketAddr,
        request: &RequestHead,
        is_resource: bool,
    ) -> Option<Response> {
        let accounts = self.accounts.as_ref()?;
        let is_read = matches!(request.method, "GET" | "HEAD" | "OPTIONS") && !is_resource;
        if is_read && !self.auth_all {
            return None;
        }
        let access = match basic::credentials(request) {
            Some((user, password)) => accounts.check(peer.into(), &user, &password),
            None => Access::Denied,
        };
        match access {
            Access::Granted => None,
            Access::Denied => {
                let sentence = "this needs a user and a password";
                let refusal = Refusal::new(Status::Unauthorized, sentence);
                let refused = self.refused(request, &refusal);
                Some(refused.with_field("WWW-Authenticate", CHALLENGE))
            }
            Access::Wait(wait) => {
                let secs = wait.as_secs_f64().ceil();
                let sentence =
                    format!("too many wrong passwords from this address; try again in {secs} s");
                let refusal = Refusal::new(Status::TooManyRequests, sentence);
                let refused = self.refused(request, &refusal);
                Some(refused.with_field("Retry-After", secs.to_string()))
            }
        }
    }

    /// The user of a request, for the log: whose password is right, or who it said it was when it was
    /// refused for that.
    pub(crate) fn user_of(&self, head: &[u8], status: Status) -> Option<String> {
        let accounts = self.accounts.as_ref()?;
        let (user, password) = basic::credentials(&RequestHead::parse(head).ok()?)?;
        let is_refused = matches!(status, Status::Unauthorized | Status::TooManyRequests);
        (is_refused || accounts.is_proven(&user, &password)).then_some(user)
    }

    /// The same reply, kept out of the caches that many share if it needed a password: they would give
    /// it to those who have none (RFC 9111 sections 3.5 and 5.2.2.7).
    pub(crate) fn keep_private(&self, mut response: Response) -> Response {
        // The shared fields say so already.
        if response.shared_fields.is_none() {
            self.make_private(&mut response.fields);
        }
        response
    }

    /// Says so in the fields of a reply.
    pub(crate) fn make_private(&self, fields: &mut Vec<Field>) {
        if !self.auth_all {
            return;
        }
        for (name, value) in [("Cache-Control", "private"), ("Vary", "Authorization")] {
            match fields.iter_mut().find(|(other, _)| *other == name) {
                Some((_, there)) if there.contains(value) => {}
                Some((_, there)) => *there = format!("{there}, {value}").into(),
                None => fields.push((name, value.into())),
            }
        }
    }
}
