//! The floors: the least that a server of this shape, or a disk, has to do.
//!
//! [`respond`] is a blocking server with a thread for each connection that only reads and writes.
//! [`sync_each`] appends one record after the other to a file, each with an `fdatasync` of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::contestant::{Clients, Contestant, Lab, Sample, rounds};
use crate::error::Error;
use crate::load::latencies;

/// As much stack as a connection has in our servers, in bytes.
const STACK_BYTES: usize = 192 * 1024;

/// The end of a request's head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// About the length of a line of the history or of the messages, in bytes.
const RECORD_BYTES: usize = 100;

/// Answers every request with `reply`, for ever. A request is a head and `body_bytes` bytes.
///
/// # Errors
/// If it cannot listen, accept, or start a thread.
pub fn respond(port: u16, reply: Vec<u8>, body_bytes: usize) -> Result<(), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = listener.map_err(Error::io(format!("listen on port {port}")))?;
    respond_on(&listener, reply, body_bytes)
}

/// The same, on a listener that is there already.
///
/// # Errors
/// If it cannot accept, or start a thread.
pub fn respond_on(listener: &TcpListener, reply: Vec<u8>, body_bytes: usize) -> Result<(), Error> {
    let reply: Arc<[u8]> = reply.into();
    loop {
        let (stream, peer) = listener.accept().map_err(Error::io("accept"))?;
        let reply = Arc::clone(&reply);
        // When the load generator hangs up, the connection is over, whatever the error.
        let serve = move || drop(serve(&stream, &reply, body_bytes));
        let thread = thread::Builder::new().name(peer.to_string());
        let started = thread.stack_size(STACK_BYTES).spawn(serve);
        started.map_err(Error::io("start a thread"))?;
    }
}

fn serve(mut stream: &TcpStream, reply: &[u8], body_bytes: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        let head_ends = |four| four == HEAD_END;
        let head = buffer[..filled].windows(HEAD_END.len()).position(head_ends);
        match head.map(|end| end + HEAD_END.len() + body_bytes) {
            Some(whole) if filled >= whole => {
                stream.write_all(reply)?;
                buffer.copy_within(whole..filled, 0);
                filled -= whole;
            }
            _ => match stream.read(&mut buffer[filled..])? {
                // Hung up, or a request that does not fit.
                0 => return Ok(()),
                bytes => filled += bytes,
            },
        }
    }
}

/// One `fdatasync` a record, as a side of a row.
///
/// # Errors
/// If no folder can be made.
pub fn sync_each(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let (path, measured) = (dir.path().join("records"), lab.scale.measured);
    let round = move || {
        let failed = || Error::io("append and fdatasync");
        let mut file = File::create(&path).map_err(failed())?;
        let mut times = latencies();
        let begun = Instant::now();
        let mut before = begun;
        while before.duration_since(begun) < measured {
            file.write_all(&[b'x'; RECORD_BYTES]).map_err(failed())?;
            file.sync_data().map_err(failed())?;
            let after = Instant::now();
            times.saturating_record(after.duration_since(before).as_nanos() as u64);
            before = after;
        }
        Ok(Sample {
            value: times.len() as f64 / measured.as_secs_f64(),
            latency_nanos: Some(times),
        })
    };
    Ok(rounds(None, dir, round))
}
