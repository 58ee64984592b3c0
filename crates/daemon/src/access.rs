//! Who may: what is checked before a handler sees a request.
//!
//! Without accounts everyone may do everything. With them a request needs a role, and a connection, or
//! an HTTP request, logs in to have one. Reading may be free. From where a request may come is a matter
//! of HTTP alone ([`Hosts`]).

use std::sync::Arc;
use std::time::Duration;

use cli::ServerOptions;
use proto::ErrorCode;
use proto::http::Status;

use crate::accounts::{Account, Accounts, LoginError};
use crate::caller::{Caller, Role};
use crate::error::AccountsError;
use crate::peer::Peer;
use crate::visitors::Hosts;

/// What a server was told about who may use it.
#[derive(Default)]
pub(crate) struct Access {
    pub(crate) hosts: Hosts,
    pub(crate) accounts: Option<Accounts>,
    /// Whether reading needs no account.
    pub(crate) is_read_free: bool,
    /// Whether `/metrics` needs none.
    pub(crate) is_metrics_free: bool,
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It comes without a login.
    NoLogin,
    /// Its user or its password is wrong.
    WrongLogin,
    /// Its password is not checked now, but may be after this time.
    Wait(Duration),
    /// Its password is not checked: too many others are.
    Busy,
    /// Its user may do less.
    Role {
        user: Arc<str>,
        has: Role,
        needs: Role,
    },
}

impl Access {
    /// Reads the accounts, if there are any.
    ///
    /// # Errors
    /// If the file of accounts is wrong.
    pub(crate) fn open(options: &ServerOptions) -> Result<Self, AccountsError> {
        let auth = options.auth.as_ref();
        Ok(Self {
            hosts: Hosts::new(options.hosts.clone()),
            accounts: auth
                .map(|auth| Accounts::read(&auth.file, options.served.as_deref()))
                .transpose()?,
            is_read_free: auth.is_some_and(|auth| auth.is_read_free),
            is_metrics_free: options.is_metrics_free,
        })
    }

    /// Who a connection is before it has logged in.
    pub(crate) fn newcomer(&self, peer: Peer) -> Caller {
        match self.accounts {
            Some(_) => Caller::stranger(peer),
            None => Caller::anyone(peer),
        }
    }

    /// Whether a request that needs this role needs no login.
    pub(crate) fn is_free(&self, needs: Role) -> bool {
        self.accounts.is_none() || (self.is_read_free && needs == Role::Read)
    }

    /// Checks whether a caller may make a request that needs this role.
    ///
    /// # Errors
    /// [`Denied::NoLogin`], [`Denied::Role`].
    pub(crate) fn check(&self, caller: &Caller, needs: Role) -> Result<(), Denied> {
        match &caller.user {
            Some(user) if caller.role < needs => Err(Denied::Role {
                user: Arc::clone(user),
                has: caller.role,
                needs,
            }),
            Some(_) => Ok(()),
            None if self.is_free(needs) => Ok(()),
            None => Err(Denied::NoLogin),
        }
    }
}

impl Account {
    /// Who a connection of this peer is that has logged in.
    pub(crate) fn caller(&self, peer: Peer) -> Caller {
        Caller {
            peer,
            user: Some(Arc::clone(self.user())),
            role: self.role(),
        }
    }
}

impl From<LoginError> for Denied {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => Self::WrongLogin,
            LoginError::Wait(wait) => Self::Wait(wait),
            LoginError::Busy | LoginError::Gone => Self::Busy,
        }
    }
}

impl Denied {
    /// What the caller is told.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::NoLogin => {
                "this needs a user and a password: the server has accounts (--auth-file)".to_owned()
            }
            Self::WrongLogin => "the user or the password is wrong".to_owned(),
            Self::Wait(wait) => {
                let secs = whole_secs(*wait);
                format!("too many wrong passwords from this address; try again in {secs} s")
            }
            Self::Busy => "too many passwords are being checked; try again in 1 s".to_owned(),
            Self::Role { user, has, needs } => {
                format!("this needs the role {needs}, and the user '{user}' has the role {has}")
            }
        }
    }

    /// What an HTTP client is told.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NoLogin | Self::WrongLogin => Status::Unauthorized,
            Self::Wait(_) | Self::Busy => Status::TooManyRequests,
            Self::Role { .. } => Status::Forbidden,
        }
    }

    /// What a client is told that speaks in frames.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::NoLogin | Self::WrongLogin => ErrorCode::Unauthorized,
            Self::Wait(_) | Self::Busy => ErrorCode::TooManyLogins,
            Self::Role { .. } => ErrorCode::Forbidden,
        }
    }
}

/// A wait in seconds, not less.
pub(crate) fn whole_secs(wait: Duration) -> u64 {
    wait.as_nanos().div_ceil(1_000_000_000) as u64
}
