//! The listeners that a service manager, or any other parent, passes to a server (sd_listen_fds(3)): it
//! opens them, and keeps them open while the server restarts, so that no client is refused meanwhile.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use rustix::net::sockopt;

use crate::error::StartError;
use crate::listener::Listener;
use crate::peer::Address;

/// The first descriptor that is passed (SD_LISTEN_FDS_START).
const FIRST_FD: usize = 3;

/// The listeners that were passed, for ports that have equally many of them.
pub(crate) struct Inherited {
    listeners: VecDeque<Listener>,
    per_port: usize,
}

impl Inherited {
    /// Takes the listeners that were passed to this process; `None` if it was started without any. Who
    /// asks again gets none.
    ///
    /// # Errors
    /// If one is not a listening stream socket, or they cannot be shared out among this many ports.
    pub(crate) fn take(ports: usize) -> Result<Option<Self>, StartError> {
        // It removes the variables, so they are not passed on.
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        if count == 0 {
            return Ok(None);
        }
        if !count.is_multiple_of(ports) {
            return Err(StartError::InheritedCount { count, ports });
        }
        let listeners = (0..count).map(|at| take(&mut passed, at));
        Ok(Some(Self {
            listeners: listeners.collect::<Result<_, _>>()?,
            per_port: count / ports,
        }))
    }

    /// Those of the next port.
    pub(crate) fn next_port(&mut self) -> impl Iterator<Item = Listener> {
        let count = self.per_port.min(self.listeners.len());
        self.listeners.drain(..count)
    }

    /// The first that other machines can reach, of those that no port has got yet.
    pub(crate) fn exposed(&self) -> Option<&Address> {
        let mut addresses = self.listeners.iter().map(Listener::address);
        addresses.find(|address| !address.is_local())
    }
}

fn take(passed: &mut ListenFd, at: usize) -> Result<Listener, StartError> {
    let fd = FIRST_FD + at;
    let no_stream = |_| StartError::InheritedNoStream { fd };
    let tcp = passed
        .take_tcp_listener(at)
        .map(|tcp| tcp.map(OwnedFd::from));
    let socket = match tcp {
        Ok(tcp) => tcp,
        Err(_) => {
            let unix = passed.take_unix_listener(at).map_err(no_stream)?;
            unix.map(OwnedFd::from)
        }
    };
    let socket = socket.ok_or(StartError::InheritedNoStream { fd })?;
    let failed = |source| StartError::Inherited { fd, source };
    let listens = sockopt::socket_acceptconn(&socket);
    if !listens.map_err(|error| failed(error.into()))? {
        return Err(StartError::InheritedNotListening { fd });
    }
    Listener::inherited(socket).map_err(failed)
}
