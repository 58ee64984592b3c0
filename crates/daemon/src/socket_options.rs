//! The options of stream sockets: how long a peer that vanished, or reads nothing, is borne with.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt;

/// How many connections the kernel keeps until they are accepted. std asks for 128, too few for a
/// burst.
pub(crate) const BACKLOG: i32 = 4096;

/// A silent connection is probed after this long.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// The time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection is given up after this many probes without an answer. So a peer that vanished is gone
/// after two minutes.
const KEEPALIVE_PROBES: u32 = 6;

/// How long something that was sent may wait for its acknowledgement, in milliseconds. Keepalive does
/// not probe meanwhile, and the kernel would try for a quarter of an hour.
const UNACKNOWLEDGED_MILLIS: u32 = 120_000;

/// A peer that reads nothing of what is written to it for this long is given up.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(30);

/// What each TCP connection has.
pub(crate) fn set_tcp_options(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, Some(WRITE_STALL))?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED_MILLIS)?;
    Ok(())
}

/// What each connection over a Unix socket has. There is no network that could lose it.
pub(crate) fn set_unix_options(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, Some(WRITE_STALL))?;
    Ok(())
}
