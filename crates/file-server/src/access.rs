//! Access control: which role a request needs, and what no shared cache may keep.

use daemon::http::Response;
use daemon::{Caller, Role};
use proto::http::response::Field;
use proto::http::{RequestHead, Status, basic};

use crate::service::FileService;

impl FileService {
    /// The role that a request needs. What asks about an unfinished upload is part of writing.
    pub(crate) fn role(&self, request: &RequestHead) -> Role {
        match request.method {
            "GET" | "HEAD" | "OPTIONS" if !self.is_resource(request) => Role::Read,
            _ => Role::Write,
        }
    }

    /// The user of a request, for the access log: the one that has logged in, or that tried to.
    pub(crate) fn user_of(&self, caller: &Caller, head: &[u8], status: Status) -> Option<String> {
        let user = caller.user.as_deref().map(str::to_owned);
        let tried = || {
            let is_refused = matches!(status, Status::Unauthorized | Status::TooManyRequests);
            let head = RequestHead::parse(head).ok().filter(|_| is_refused)?;
            basic::credentials(&head).map(|(user, _)| user)
        };
        user.or_else(tried)
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
        if self.config.is_reading_closed() {
            make_private(fields);
        }
    }
}

/// Adds the fields that keep a reply out of shared caches.
pub(crate) fn make_private(fields: &mut Vec<Field>) {
    add_value(fields, "Cache-Control", "private");
    add_value(fields, "Vary", "Authorization");
}

/// Adds a value to those of a field.
pub(crate) fn add_value(fields: &mut Vec<Field>, name: &'static str, value: &'static str) {
    match fields.iter_mut().find(|(other, _)| *other == name) {
        Some((_, there)) if there.contains(value) => {}
        Some((_, there)) => *there = format!("{there}, {value}").into(),
        None => fields.push((name, value.into())),
    }
}
