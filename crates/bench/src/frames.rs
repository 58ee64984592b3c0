//! A connection that speaks frames, one request after the other: for what is done beside the load.

use std::io::{BufReader, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use proto::frame::{self, Message};

use crate::conversation::Wrong;
use crate::error::Error;

/// How long a single reply may take.
const WAIT: Duration = Duration::from_secs(30);

/// A connection whose reads and writes give up in time.
///
/// # Errors
/// If it cannot be made.
pub fn connect(addr: SocketAddrV4) -> Result<TcpStream, Error> {
    let connect = || {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connect().map_err(Error::io(format!("connect to {addr}")))
}

/// A connection to our queue or history.
pub struct Frames {
    stream: BufReader<TcpStream>,
    /// The payload of the frame that was read last.
    pub payload: Vec<u8>,
}

impl Frames {
    /// Speaks on this connection.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream: BufReader::new(stream),
            payload: Vec::new(),
        }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn send<'a>(&mut self, request: &impl Message<'a>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let sent = self.stream.get_mut().write_all(&bytes);
        sent.map_err(Error::io("send"))
    }

    /// Reads one frame; its kind.
    ///
    /// # Errors
    /// If the connection is lost, or what comes is no frame.
    pub fn read(&mut self) -> Result<u8, Error> {
        let kind = frame::read(
            &mut self.stream,
            frame::PAYLOAD_BYTES_MAX,
            &mut self.payload,
        );
        match kind {
            Ok(Some(kind)) => Ok(kind),
            Ok(None) | Err(_) => Err(self.wrong("a frame")),
        }
    }

    /// What was read last is wrong.
    pub fn wrong(&self, want: &'static str) -> Error {
        Wrong::new(want, &self.payload).into()
    }
}
