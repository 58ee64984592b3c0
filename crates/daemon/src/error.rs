//! Why a server could not start.

use std::io;
use std::path::PathBuf;

use cli::FileError;

use crate::descriptors::{Besides, connections_within};
use crate::peer::Address;

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The name of a place to listen at has no address.
    #[error("cannot find an address of '{name}' (--bind)")]
    Resolve {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A file for TLS cannot be read, or is not right.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel has no random bytes for the keys of session tickets.
    #[error("cannot read random bytes for TLS")]
    NoRandomness,
    /// A descriptor that was passed is not a stream socket.
    #[error(
        "descriptor {fd} (LISTEN_FDS) is not a TCP socket or a Unix stream socket; UDP cannot be passed"
    )]
    InheritedNoStream {
        /// The descriptor.
        fd: usize,
    },
    /// A socket that was passed does not listen: it may be a connection.
    #[error("descriptor {fd} (LISTEN_FDS) does not listen; with systemd, Accept=no is right")]
    InheritedNotListening {
        /// The descriptor.
        fd: usize,
    },
    /// A socket that was passed cannot be used.
    #[error("cannot use descriptor {fd} (LISTEN_FDS)")]
    Inherited {
        /// The descriptor.
        fd: usize,
        /// Why.
        source: io::Error,
    },
    /// The sockets that were passed cannot be shared out among the ports.
    #[error(
        "{count} sockets were passed (LISTEN_FDS), and the server's {ports} ports need as many each"
    )]
    InheritedCount {
        /// How many were passed.
        count: usize,
        /// How many ports the server has.
        ports: usize,
    },
    /// Sockets were passed, and the command line says where to listen, too.
    #[error("LISTEN_FDS says where to listen, so --bind and a port cannot")]
    InheritedAndBind,
    /// Sockets were passed to a server of UDP.
    #[error("sockets were passed (LISTEN_FDS), and UDP sockets cannot be; use TCP")]
    InheritedAndUdp,
    /// The system allows fewer descriptors than the server may need.
    #[error(
        "{connections} connections (--max-connections){besides} need {needed} descriptors (ulimit -n), \
         and {allowed} are allowed{}", enough_for(*.allowed, *.besides)
    )]
    Descriptors {
        /// How many it allows.
        allowed: usize,
        /// How many are needed.
        needed: usize,
        /// For how many connections.
        connections: usize,
        /// For what else.
        besides: Besides,
    },
    /// The file of accounts is wrong.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The signal handler could not be set.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
}

impl StartError {
    /// Whether it is the network that keeps the server from starting, and not its own machine.
    pub fn is_of_network(&self) -> bool {
        match self {
            Self::Bind { .. } | Self::Resolve { .. } => true,
            Self::InheritedNoStream { .. }
            | Self::InheritedNotListening { .. }
            | Self::Inherited { .. }
            | Self::InheritedCount { .. }
            | Self::InheritedAndBind
            | Self::InheritedAndUdp => false,
            Self::File(_) | Self::NoRandomness | Self::Accounts(_) => false,
            Self::Descriptors { .. } | Self::Thread(_) | Self::Signals(_) => false,
        }
    }
}

/// What is wrong with the file of accounts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountsError {
    /// It cannot be read, or others can read a plain password in it.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is no account. The text does not show the line: it may hold a password.
    #[error("{}, line {line}: {sentence}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        sentence: &'static str,
    },
    /// It holds no account.
    #[error("{} holds no account", .0.display())]
    Empty(PathBuf),
}

/// What would be right.
fn enough_for(allowed: usize, besides: Besides) -> String {
    match connections_within(allowed, besides) {
        0 => String::new(),
        connections => format!(", enough for --max-connections {connections}"),
    }
}
