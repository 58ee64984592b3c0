//! Who makes a request, and what it may do.

use std::fmt;
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

/// The words for the roles.
const ROLES: [(Role, &str); 3] = [
    (Role::Read, "read"),
    (Role::Write, "write"),
    (Role::Admin, "admin"),
];

impl Role {
    /// The role that a word stands for.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let found = ROLES.into_iter().find(|(_, name)| *name == word);
        found.map(|(role, _)| role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ROLES.iter().find(|(role, _)| role == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
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

    /// A caller that has not logged in.
    pub(crate) fn stranger(peer: Peer) -> Self {
        Self {
            peer,
            user: None,
            role: Role::Read,
        }
    }
}
