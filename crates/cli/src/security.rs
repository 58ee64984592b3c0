//! How a client knows its server, and how the server knows the client: the files that its options name.
//!
//! They are read once, when they are first needed, and every connection uses what was read: a client
//! that connects again and again parses nothing twice, and standard input can be read only once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;

use crate::account::{Account, AccountSource};
use crate::error::ClientError;
use crate::tls::TlsFiles;

/// TLS and the account of a client; neither by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    tls: Option<Once<TlsFiles, Arc<ClientConfig>>>,
    account: Option<Once<AccountSource, Account>>,
}

impl Security {
    /// Names the files; nothing is read yet.
    pub fn new(tls: Option<TlsFiles>, account: Option<AccountSource>) -> Self {
        Self {
            tls: tls.map(Once::new),
            account: account.map(Once::new),
        }
    }

    /// Whether connections are encrypted.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether there is an account.
    pub fn has_account(&self) -> bool {
        self.account.is_some()
    }

    /// Whether the account is on standard input, which then holds nothing else.
    pub fn reads_stdin(&self) -> bool {
        let source = self.account.as_ref().map(|account| &account.source);
        source == Some(&AccountSource::Stdin)
    }

    /// The same without an account, for other servers than the one that it is for.
    pub fn without_account(&self) -> Self {
        Self {
            account: None,
            ..self.clone()
        }
    }

    /// The account.
    ///
    /// # Errors
    /// As [`Account::read`].
    pub fn account(&self) -> Result<Option<Account>, ClientError> {
        let account = self.account.as_ref();
        account.map(|once| once.get(Account::read)).transpose()
    }

    /// Reads the files now, so that what is wrong with them is said before anything else happens.
    ///
    /// # Errors
    /// [`ClientError::File`], [`ClientError::Input`], or [`ClientError::Tls`] if there is nothing to
    /// trust.
    pub fn read(&self) -> Result<(), ClientError> {
        self.tls()?;
        self.account().map(drop)
    }

    pub(crate) fn tls(&self) -> Result<Option<Arc<ClientConfig>>, ClientError> {
        let tls = self.tls.as_ref();
        tls.map(|once| once.get(TlsFiles::config)).transpose()
    }
}

/// Where something is, and the thing itself once it has been read. Clones share it.
#[derive(Clone)]
struct Once<S, T> {
    source: S,
    read: Arc<Mutex<Option<T>>>,
}

impl<S, T: Clone> Once<S, T> {
    fn new(source: S) -> Self {
        Self {
            source,
            read: Arc::default(),
        }
    }

    /// The thing, read by `read` if it has not been yet. After an error it is tried again.
    fn get<E>(&self, read: impl FnOnce(&S) -> Result<T, E>) -> Result<T, E> {
        let mut there = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thing) = &*there {
            return Ok(thing.clone());
        }
        let thing = read(&self.source)?;
        Ok(there.insert(thing).clone())
    }
}

impl<S: PartialEq, T> PartialEq for Once<S, T> {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl<S: Eq, T> Eq for Once<S, T> {}

impl<S: fmt::Debug, T> fmt::Debug for Once<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}
