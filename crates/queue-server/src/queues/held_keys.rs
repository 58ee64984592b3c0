//! Which message holds a key: from when it is sent until it is acknowledged, and for a while longer.

use std::sync::Arc;

use proto::queue::{MessageId, QueueName};

use super::state::{Entry, State};
use crate::clock::Micros;
use crate::error::QueueError;
use crate::keys::{Acked, Holder};
use crate::message::{Message, Reserved};

/// Refuses a message with a key for a queue of dead letters: it would hold none after a restart.
fn refuse_dead(name: &str) -> Result<(), QueueError> {
    if name.ends_with(QueueName::DEAD_SUFFIX) {
        return Err(QueueError::NoKeys(name.to_owned()));
    }
    Ok(())
}

impl Entry<'_> {
    /// Has a message that is sent hold its key. Returns the one that holds it already.
    pub(super) fn claim_key(
        &mut self,
        message: &Message,
        now: Micros,
    ) -> Result<Option<MessageId>, QueueError> {
        let Some(keyed) = message.keyed() else {
            return Ok(None);
        };
        refuse_dead(self.name)?;
        let keys = &mut self.common.keys;
        match keys.claim(self.name, keyed, message.id, now)? {
            Holder::Itself => Ok(None),
            Holder::Before { id, .. } => Ok(Some(id)),
        }
    }

    /// Has the key of an acknowledged message held for a while.
    pub(super) fn keep_key(&mut self, message: &Message, now: Micros) {
        let until = self.common.keys.until(now);
        if let Some(acked) = message.acked_key(self.name, until) {
            self.common.keys.acked(&acked);
        }
    }

    /// Has a message hold its key no more.
    pub(super) fn release_key(&mut self, message: &Message) {
        if let Some(keyed) = message.keyed() {
            self.common.keys.release(self.name, keyed, message.id);
        }
    }

    /// Has a message hold its key that was found in this queue at the start; a dead letter holds none.
    pub(super) fn hold_key(&mut self, message: &Message, now: Micros) {
        if let Some(keyed) = message.keyed()
            && !self.name.ends_with(QueueName::DEAD_SUFFIX)
        {
            let keys = &mut self.common.keys;
            keys.hold(self.name, keyed, message.id, now);
        }
    }
}

impl State {
    /// What a message holds its key by after it is acknowledged now, if it holds it.
    pub(super) fn acked_key(&self, reserved: &Reserved, now: Micros) -> Option<Acked> {
        let Reserved { queue, message, .. } = reserved;
        let keys = &self.common.keys;
        let holds = |acked: &Acked| keys.holds(queue, &acked.keyed, message.id);
        message.acked_key(queue, keys.until(now)).filter(holds)
    }

    /// Has a message hold its key in the queue that it is to be moved to, or have none if another one holds
    /// that: so after a restart the same one holds it.
    pub(super) fn hold_key_in(&mut self, queue: &Arc<str>, reserved: &mut Reserved, now: Micros) {
        let is_another = reserved.queue != *queue;
        let Some(keyed) = reserved.message.keyed().filter(|_| is_another).cloned() else {
            return;
        };
        if queue.ends_with(QueueName::DEAD_SUFFIX) {
            return;
        }
        let keys = &mut self.common.keys;
        keys.hold(queue, &keyed, reserved.message.id, now);
        if !keys.holds(queue, &keyed, reserved.message.id) {
            self.change_extras(reserved, |extras| extras.keyed = None);
        }
    }

    /// The committed message that holds the key of one that is sent.
    pub(super) fn key_holder(
        &mut self,
        queue: QueueName,
        message: &Message,
        now: Micros,
    ) -> Result<Option<MessageId>, QueueError> {
        let Some(keyed) = message.keyed() else {
            return Ok(None);
        };
        refuse_dead(queue.as_str())?;
        match self
            .common
            .keys
            .holder(&queue.as_str().into(), keyed, now)?
        {
            Some(Holder::Before {
                id,
                is_stored: true,
            }) => Ok(Some(id)),
            Some(_) | None => Ok(None),
        }
    }
}
