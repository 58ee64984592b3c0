//! Replies that other threads complete, as the connection's own thread sees them.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::SendFlags;

use super::Connection;
use crate::pending_reply::{Pending, PendingReply, Replies};
use crate::stream::Wait;
use crate::wakeup::Polled;

impl Connection<'_> {
    /// Leaves the reply to the present request to another thread. What is written from now on is sent
    /// behind it. `bytes` is about how much memory is kept until it is sent; where that would be too
    /// much, this waits for the replies that are pending before.
    ///
    /// # Errors
    /// Those of the stream; also if there are no more descriptors.
    pub fn pending_reply(&mut self, bytes: usize) -> io::Result<PendingReply> {
        let replies = match &self.pending {
            Some(replies) => Arc::clone(replies),
            None => {
                let replies = Replies::new(
                    self.registration(),
                    self.wakeup()?,
                    self.stream.is_encrypted(),
                );
                Arc::clone(self.pending.insert(Arc::new(replies)))
            }
        };
        let asked = self.meter.hand_over();
        loop {
            match replies.open(&mut self.output.bytes, bytes, asked) {
                Some(reply) => return Ok(reply),
                None => self.flush()?,
            }
        }
    }

    /// Waits until every pending reply is completed, so that what those replies tell has happened.
    /// Returns whether there were any.
    ///
    /// # Errors
    /// If the connection was aborted or reset, or if there is no memory for the wait.
    pub fn wait_for_replies(&mut self) -> io::Result<bool> {
        let (Some(replies), Some(wakeup)) = (&self.pending, &self.waiting.wakeup) else {
            return Ok(false);
        };
        loop {
            match replies.begin_reply_wait() {
                Pending::None => return Ok(false),
                Pending::Completed => return Ok(true),
                Pending::Open | Pending::Full => {
                    let aborted = (self.stream.socket(), PollFlags::empty());
                    let waited = wakeup.wait(Some(aborted), None);
                    replies.end_wait();
                    if waited? == Polled::Socket {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
            }
        }
    }

    pub(super) fn has_open_reply(&self) -> bool {
        (self.pending.as_ref()).is_some_and(|replies| replies.has_open())
    }

    /// Waits for all pending replies and gathers them, in front of what was written behind them.
    pub(super) fn gather_pending(&mut self) -> io::Result<()> {
        self.meter.flush();
        self.wait_for_replies()?;
        match self.pending.clone() {
            Some(replies) => self.gather_completed(&replies),
            None => Ok(()),
        }
    }

    /// Sends the completed replies up to the first that is open.
    pub(super) fn send_completed(&mut self, replies: &Replies) -> io::Result<()> {
        self.gather_completed(replies)?;
        self.output.send(&mut self.stream, SendFlags::empty())
    }

    /// Gathers the completed replies up to the first that is open; sends them where they are many.
    fn gather_completed(&mut self, replies: &Replies) -> io::Result<()> {
        for reply in replies.take_completed(&mut self.output.bytes) {
            self.output.bytes.extend(reply.bytes);
            if let Some(body) = reply.body {
                self.output
                    .send_behind(&mut self.stream, (*body).as_ref())?;
            } else if self.output.is_large() {
                self.output.send(&mut self.stream, SendFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Waits for input while replies are pending; returns whether the connection continues. `None` if
    /// nothing is pending any more, or the server stops. Meanwhile the connection is busy. It may be
    /// evicted once the last reply has been sent.
    pub(super) fn wait_beside_pending(
        &mut self,
        replies: &Replies,
        idle: Option<Duration>,
    ) -> io::Result<Option<bool>> {
        let from_now = || idle.map(|idle| Instant::now() + idle);
        let mut deadline = from_now();
        let wakeup = self.wakeup()?;
        loop {
            // No new request begins. What is owed is sent before the connection ends.
            if self.is_stopping() {
                return Ok(None);
            }
            match replies.begin_request_wait(self.stream.is_evictable(), &mut self.output.bytes) {
                Pending::None => return Ok(None),
                Pending::Completed => {
                    self.send_completed(replies)?;
                    deadline = from_now();
                    continue;
                }
                // It reads no more before there is room for the replies.
                Pending::Full => {
                    self.flush()?;
                    continue;
                }
                Pending::Open => {}
            }
            self.shrink();
            let socket = (self.stream.socket(), PollFlags::IN);
            let polled = wakeup.wait(Some(socket), deadline);
            let is_empty = replies.end_wait();
            if !self.resume()? {
                return Ok(Some(false));
            }
            match polled? {
                Polled::Woken => {}
                Polled::Socket if self.is_stopping() => return Ok(None),
                Polled::TimedOut if is_empty => return Ok(Some(false)),
                // The peer is not silent: it waits for a reply.
                Polled::TimedOut => return Ok(None),
                // A part of a record. Meanwhile a reply may be completed.
                Polled::Socket if !self.stream.receive_arrived()? => {}
                Polled::Socket => {
                    self.input.refill(&mut self.stream, Wait::ForRequest)?;
                    self.meter.arrived();
                    return Ok(Some(true));
                }
            }
        }
    }
}
