//! What a port serves, which can be exchanged while it runs.
//!
//! A connection is served to its end by what is current when it begins. Who exchanges that sets it first and
//! aborts the connections then ([`Handle::abort_connections`](crate::Handle::abort_connections)). A
//! connection registers first and reads what is current then. So one of the two sees the other: a connection
//! that the abort misses is served by the new.

use std::sync::{Arc, Mutex};

use crate::http::Http;
use crate::lock;
use crate::protocol::Protocols;

/// What a port serves: [`Protocols`], or a [`DatagramService`](crate::DatagramService). Each clone is the same switch. It keeps what
/// is current, also when the server has stopped.
pub struct Switch<S: ?Sized = Protocols>(Arc<Mutex<Arc<S>>>);

impl<S: ?Sized> Switch<S> {
    /// Serves this at first.
    pub fn new(first: impl Into<Arc<S>>) -> Self {
        Self(Arc::new(Mutex::new(first.into())))
    }

    /// Serves this to the connections that begin from now on, or from the next datagram on. The present ones
    /// keep what they began with.
    pub fn set(&self, next: impl Into<Arc<S>>) {
        let former = std::mem::replace(&mut *lock(&self.0), next.into());
        // Its end may take a while, and nobody should wait for the lock meanwhile.
        drop(former);
    }

    /// What is served to a connection that is registered.
    pub(crate) fn current(&self) -> Arc<S> {
        Arc::clone(&lock(&self.0))
    }

    /// Keeps everyone from reading what is current.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> std::sync::MutexGuard<'_, Arc<S>> {
        lock(&self.0)
    }

    /// What is current when it is called, as long as somebody has the switch; for a thread that a shutdown
    /// does not wait for, so it must not keep the service.
    pub(crate) fn while_kept(&self) -> impl Fn() -> Option<Arc<S>> + use<S> {
        let switch = Arc::downgrade(&self.0);
        move || switch.upgrade().map(|switch| Self(switch).current())
    }
}

impl<S: ?Sized> Clone for Switch<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl From<Protocols> for Switch {
    fn from(protocols: Protocols) -> Self {
        Self::new(protocols)
    }
}

impl From<Http> for Switch {
    fn from(http: Http) -> Self {
        Self::new(Protocols::from(http))
    }
}
