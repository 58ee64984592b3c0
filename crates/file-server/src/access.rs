//! Access control in HTTP: which requests need an account, how others are refused, and what no shared
//! cache may keep.

use daemon::Peer;
use daemon::http::Response;
use proto::http::response::Field;
use proto::http::{Refusal, RequestHead, Status, basic};

use crate::accounts::Access;
use crate::service::FileService;

/// How a client logs in (RFC 7617).
const CHALLENGE: &str = "Basic realm=\"files\", charset=\"UTF-8\"";

impl FileService {
    /// Refuses a request that needs an account and comes without one.
    pub(crate) fn check_access(
        &self,
        peer: Peer,
        request: &RequestHead,
        is_resource: bool,
    ) -> Option<Response> {
        let accounts = self.accounts.as_ref()?;
        let is_read = matches!(request.method, "GET" | "HEAD" | "OPTIONS") && !is_resource;
        if is_read && !self.config.is_reading_closed() {
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

    /// The user of a request, for the access log. The password is right, or it is why the request was
    /// refused.
    pub(crate) fn user_of(&self, head: &[u8], status: Status) -> Option<String> {
        let accounts = self.accounts.as_ref()?;
        let (user, password) = basic::credentials(&RequestHead::parse(head).ok()?)?;
        let is_refused = matches!(status, Status::Unauthorized | Status::TooManyRequests);
        (is_refused || accounts.is_proven(&user, &password)).then_some(user)
    }

    /// The same reply. If it needed a password, it is kept out of shared caches, which would serve it to
    /// clients without one (RFC 9111 sections 3.5 and 5.2.2.7).
    pub(crate) fn keep_private(&self, mut response: Response) -> Response {
        // The shared fields say so already.
        if response.shared_fields.is_none() {
            self.make_private(&mut response.fields);
        }
        response
    }

    /// Adds the fields that keep a reply out of shared caches, if it needed a password.
    pub(crate) fn make_private(&self, fields: &mut Vec<Field>) {
        if !self.config.is_reading_closed() {
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
