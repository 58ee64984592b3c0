//! The other side of a connection: clients of a few bytes, and a server that says what it is told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::door::{Address, door};
use super::{PATIENCE, Stream, signed};

/// A connection through the door, which gives up in time.
#[track_caller]
pub fn connect(addr: Address) -> Stream {
    door().connect(addr).unwrap()
}

/// A connection from this address, which gives up in time.
#[track_caller]
pub fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    connect_with(from, to, None)
}

/// A connection from this address that has room for next to nothing that is not read.
#[track_caller]
pub fn connect_narrow(from: [u8; 4], to: SocketAddr) -> TcpStream {
    const NARROW_BYTES: usize = 2304;
    connect_with(from, to, Some(NARROW_BYTES))
}

#[track_caller]
fn connect_with(from: [u8; 4], to: SocketAddr, receive_buffer: Option<usize>) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    if let Some(bytes) = receive_buffer {
        sockopt::set_socket_recv_buffer_size(&socket, bytes).unwrap();
    }
    let from = SocketAddr::from((from, 0));
    rustix::net::bind(&socket, &from).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Idle connections, so that the one under test is not alone.
#[track_caller]
pub fn crowd(addr: Address) -> Vec<Stream> {
    (0..32).map(|_| connect(addr)).collect()
}

/// Sends bytes, signed if they are HTTP, ends our half, and reads all that comes back. A reset counts
/// as the end.
#[track_caller]
pub fn exchange(addr: Address, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    // A server that has refused may have closed before it was all written.
    let _ = stream.write_all(&signed(request));
    let _ = stream.shutdown(Shutdown::Write);
    read_to_end(stream)
}

/// Reads all that comes, up to the end or a reset.
#[track_caller]
pub fn read_to_end(mut stream: impl Read) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return reply,
            Ok(bytes) => reply.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return reply,
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&reply)),
        }
    }
}

/// What a [`fake_server`] does when it has said what it has to say.
#[derive(Clone, Copy)]
pub enum Then {
    /// It ends the connection.
    Close,
    /// It says nothing more until the client has gone.
    Wait,
}

impl Then {
    /// The options that keep a client from waiting long for a server that does this.
    pub fn timeout(self) -> &'static [&'static str] {
        match self {
            Self::Close => &[],
            Self::Wait => &["--timeout", "0.3"],
        }
    }
}

/// A server that answers the first request of each connection with these bytes, whatever it is.
/// Returns its port.
pub fn fake_server(reply: Vec<u8>, then: Then) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // The client may leave at any time.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&reply);
            if let Then::Close = then {
                let _ = stream.shutdown(Shutdown::Write);
            }
            while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
        }
    });
    port
}
