//! Who makes a request, and what it may do.

use std::sync::Arc;

use crate::peer::Peer;

/// What a caller may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read.
    Read,
    /// Read and write; the role of an account whose line names none.
    Write,
    /// Also what concerns others.
    Admin,
}

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The other end of its connection.
    pub peer: Peer,
    /// The account it has logged in with.
    pub user: Option<Arc<str>>,
    /// What it may do. Where there are no accounts, everyone may do everything.
    pub role: Role,
}

impl Caller {
    /// A caller of a server without accounts.
    pub fn anyone(peer: impl Into<Peer>) -> Self {
        Self {
            peer: peer.into(),
            user: None,
            role: Role::Admin,
        }
    }
}
