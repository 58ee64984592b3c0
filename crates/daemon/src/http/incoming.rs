//! The body of a request as it arrives: how long its sender may take, and when it is asked to continue.

use std::io::{self, Read, Write as _};
use std::time::{Duration, Instant};

use proto::http::response::{self, Field};
use proto::http::{Body, BodyLength, RequestHead, Status, body};

use super::RequestBody;
use crate::connection::{AbortHandle, Connection};
use crate::input::Deadline;

/// How long the sender of a body may be silent, unless the service says otherwise.
pub const BODY_STALL: Duration = Duration::from_secs(10);

/// The whole body may take this many times as long, plus a second for each [`BODY_BYTES_A_SECOND`].
const BODY_STALLS_MAX: u32 = 10;

/// The least rate at which a body must arrive.
const BODY_BYTES_A_SECOND: u64 = 1024;

/// A request's body. If the client waits for `100 Continue`, it is sent when the service first
/// reads, which is when the service has decided to take the body.
pub(super) struct Incoming<'a, 'c> {
    minor_version: u8,
    /// How long its sender may be silent.
    stall: Duration,
    must_continue: bool,
    is_chunked: bool,
    /// When the body was first waited for.
    started: Option<Instant>,
    received_bytes: u64,
    /// The error of a read whose bytes before it were returned first.
    failed: Option<io::Error>,
    body: Body<&'a mut Connection<'c>>,
}

impl<'a, 'c> Incoming<'a, 'c> {
    /// The body behind the head of a request.
    pub(super) fn new(
        connection: &'a mut Connection<'c>,
        request: &RequestHead,
        stall: Duration,
    ) -> Self {
        Self {
            minor_version: request.minor_version,
            stall,
            must_continue: request.expects_continue,
            is_chunked: request.body == BodyLength::Chunked,
            started: None,
            received_bytes: 0,
            failed: None,
            body: Body::new(connection, request.body),
        }
    }

    /// Whether it was read to its end, so that the next request can follow.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_done()
    }
}

impl RequestBody for Incoming<'_, '_> {
    fn inform(&mut self, status: Status, fields: &[Field]) -> io::Result<()> {
        // A 1.0 client knows no interim responses.
        if self.minor_version == 0 {
            return Ok(());
        }
        let connection = self.body.input();
        response::put_interim(connection.output(), status, fields);
        connection.flush()
    }

    fn abort_handle(&mut self) -> AbortHandle {
        self.body.input().abort_handle()
    }
}

impl Read for Incoming<'_, '_> {
    /// Of a body in small chunks, this reads all that has arrived, but never waits for more than the
    /// first byte.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let is_done = self.body.is_done();
        // What has arrived is not waited for, and needs no clock; but the end of a chunk's first line
        // may be.
        if self.is_chunked || self.body.input().buffered().is_empty() {
            let earned = Duration::from_secs(self.received_bytes / BODY_BYTES_A_SECOND);
            let started = *self.started.get_or_insert_with(Instant::now);
            let until = started + self.stall * BODY_STALLS_MAX + earned;
            let deadline = Deadline::StallUntil(self.stall, until);
            self.body.input().set_deadline(deadline);
        }
        let connection = self.body.input();
        if std::mem::take(&mut self.must_continue) && !is_done {
            response::put_interim(connection.output(), Status::Continue, &[]);
            connection.flush()?;
        }
        let mut bytes = self.body.read(out)?;
        while bytes > 0
            && bytes < out.len()
            && !self.body.is_done()
            && body::has_next_chunk(self.body.input().buffered())
        {
            match self.body.read(&mut out[bytes..]) {
                Ok(more) => bytes += more,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self.received_bytes += bytes as u64;
        Ok(bytes)
    }
}
