//! Whom a connection acts for.

use std::io::Write;
use std::sync::Arc;

use super::Connection;
use crate::accounts::{Account, Accounts, LoginError};
use crate::caller::Caller;
use crate::entry::Entry;
use crate::eviction::State;
use crate::metrics::Metrics;

impl Connection<'_> {
    /// Has the connection act for a user, if the password is right, until it acts for another or
    /// [`Connection::log_out`]. If the password has to be checked, everything written so far is sent first.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(crate) fn log_in(
        &mut self,
        accounts: &Accounts,
        user: &str,
        password: &str,
    ) -> Result<Caller, LoginError> {
        let account = match accounts.proven(user, password) {
            Some(account) => Ok(account),
            None => self.while_evictable(|entry| {
                let is_gone = || entry.is_lost();
                accounts.log_in(entry.peer, user, password, &is_gone)
            }),
        };
        let caller = account.and_then(|account| self.act_for(accounts, &account));
        if caller == Err(LoginError::Wrong) {
            Metrics::count(&self.registry().metrics.logins_failed);
        }
        caller
    }

    /// Waits for the turn of a password, without effect on anything. It may be evicted meanwhile, because
    /// many of those that guess wait, and then does not act. So it must not owe anything then.
    fn while_evictable(
        &mut self,
        log_in: impl FnOnce(&Entry) -> Result<Arc<Account>, LoginError>,
    ) -> Result<Arc<Account>, LoginError> {
        self.flush().map_err(|_| LoginError::Gone)?;
        let (registry, entry) = (self.registry(), self.entry());
        entry.unpark_on_abort();
        entry.eviction.set(State::Slow(registry.millis()));
        let account = log_in(entry);
        match entry.eviction.resume() {
            true => account,
            false => Err(LoginError::Gone),
        }
    }

    /// The same without a password.
    ///
    /// # Errors
    /// [`LoginError::Wrong`] if the account has changed meanwhile.
    pub(crate) fn act_for(
        &self,
        accounts: &Accounts,
        account: &Arc<Account>,
    ) -> Result<Caller, LoginError> {
        self.entry().set_account(Some(Arc::clone(account)));
        match accounts.has(account) {
            true => Ok(account.caller(self.peer())),
            false => {
                self.log_out();
                Err(LoginError::Wrong)
            }
        }
    }

    /// Ends that.
    pub(crate) fn log_out(&self) {
        self.entry().set_account(None);
    }
}
