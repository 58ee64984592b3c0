//! Receiving: reserving the oldest message, and sleeping until there is one.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Connection, Waited, Wakeup};
use proto::frame::Message as _;
use proto::queue::{Delivery, QueueName, Reply};

use super::{Session, millis, put_reply};
use crate::begun::Begun;
use crate::message::Taken;
use crate::{QueueError, RESERVED_MAX};

impl Session<'_> {
    /// Takes the oldest message, and waits for one if there is none.
    pub(super) fn receive(
        &mut self,
        queue: QueueName,
        wait: Duration,
        delivery: Delivery,
        connection: &mut Connection,
    ) -> io::Result<Result<Option<Begun>, QueueError>> {
        if delivery == Delivery::AtLeastOnce {
            self.settle(connection)?;
            if self.held.len() >= RESERVED_MAX {
                return Ok(Err(QueueError::TooManyReserved));
            }
            if let Err(error) = connection.become_waiter() {
                return Ok(Err(cannot_wait(&error)));
            }
        }
        let mut taken = self.queues.reserve(queue);
        if !matches!(taken, Ok(Some(_))) && !self.begun.is_empty() {
            // What this connection has sent or given back before, it must be able to receive.
            self.settle(connection)?;
            taken = self.queues.reserve(queue);
        }
        if !matches!(taken, Ok(Some(_))) && !wait.is_zero() {
            taken = self.wait_for(queue, wait, connection)?;
        }
        let taken = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => {
                Reply::Empty.encode(connection.output());
                return Ok(Ok(None));
            }
            Err(error) => return Ok(Err(error)),
        };
        let body_bytes = taken.message.body.len();
        let begun = match delivery {
            Delivery::AtMostOnce => self.queues.deliver(taken),
            Delivery::Lease { lease_millis } => self.queues.lease(taken, millis(lease_millis)),
            Delivery::AtLeastOnce => {
                let long = taken.message.body.shared();
                put_reply(&taken.reply(), long.is_some(), connection.output());
                self.held.push_back(taken);
                self.send_long(long, connection)?;
                return Ok(Ok(None));
            }
        };
        self.begun_bytes += body_bytes;
        Ok(Ok(Some(begun)))
    }

    /// Sleeps until there is a message, or the wait is over.
    ///
    /// # Errors
    /// If the client has hung up: who is told that there is nothing has waited for as long as he
    /// wanted to.
    fn wait_for(
        &mut self,
        queue: QueueName,
        wait: Duration,
        connection: &mut Connection,
    ) -> io::Result<Result<Option<Taken>, QueueError>> {
        let deadline = Instant::now() + wait;
        let wakeup = match self.wakeup(connection) {
            Ok(wakeup) => wakeup,
            Err(error) => return Ok(Err(cannot_wait(&error))),
        };
        loop {
            let in_line = match self.queues.get_in_line(queue, &wakeup) {
                Ok(in_line) => in_line,
                Err(error) => return Ok(Err(error)),
            };
            let waited = match in_line {
                Some(_) => connection.wait(&wakeup, deadline)?,
                None => Waited::Woken,
            };
            match waited {
                Waited::Woken => {}
                Waited::TimedOut => return Ok(self.queues.reserve(queue)),
                Waited::Stopping => {
                    self.is_told_of_stop = true;
                    return Ok(Err(QueueError::ShuttingDown));
                }
                Waited::HungUp => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            if let taken @ Ok(Some(_)) = self.queues.reserve(queue) {
                return Ok(taken);
            }
        }
    }

    /// What this connection is woken by; made when it first waits.
    fn wakeup(&mut self, connection: &mut Connection) -> io::Result<Arc<Wakeup>> {
        let wakeup = match self.wakeup.take() {
            Some(wakeup) => wakeup,
            None => Arc::new(connection.wakeup()?),
        };
        self.wakeup = Some(Arc::clone(&wakeup));
        Ok(wakeup)
    }
}

/// Tells why a receiver is refused.
fn cannot_wait(error: &io::Error) -> QueueError {
    log::warn!("A receiver is refused: {error}");
    QueueError::CannotWait
}
