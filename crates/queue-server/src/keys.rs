//! Keys: what makes a message that is sent again the same message.
//!
//! A key belongs to a queue and to the account that has sent it. A message holds its key from when it is sent
//! until it is acknowledged, and [`Keys::window`] longer; a dead letter holds none, and neither does one that
//! was deleted or purged. While a key is held, a message with it and the same body is not stored, and one with
//! another body is refused. What is held is bounded, and nothing is forgotten early.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Caller, Source};
use proto::queue::{Key, MessageId};
use sha2::{Digest as _, Sha256};

use crate::clock::{Micros, micros};
use crate::error::QueueError;
use crate::memory::Memory;
use crate::quota::Quota;

/// What part of the memory of all queues the keys may take. A source has an eighth of it, this machine a half.
const MEMORY_PART: usize = 4;

/// How many keys are freed at once at most, because others wait for the queues meanwhile.
const FREED_MAX: usize = 64;

/// What a key takes beside its text and that of its account, in bytes: measured, when its message is acknowledged.
pub(crate) const KEY_BYTES: usize = 320;

/// Who sends a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sender {
    /// The account that its keys belong to.
    pub(crate) user: Option<Arc<str>>,
    /// Who is charged for them.
    pub(crate) from: Option<Source>,
}

impl From<&Caller> for Sender {
    fn from(caller: &Caller) -> Self {
        Self {
            user: caller.user.clone(),
            from: Some(caller.peer.into()),
        }
    }
}

/// What tells two bodies apart: the first half of a SHA-256.
pub(crate) type BodyDigest = [u8; 16];

/// The key of a message, whose it is, and of which body.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(crate) key: Box<str>,
    pub(crate) account: Option<Arc<str>>,
    pub(crate) digest: BodyDigest,
    /// Who is charged; nobody for what was found at the start.
    from: Option<Source>,
}

impl Keyed {
    pub(crate) fn new(key: Key, body: &[u8], sender: &Sender) -> Self {
        Self {
            key: key.as_str().into(),
            account: sender.user.clone(),
            digest: digest(body),
            from: sender.from,
        }
    }

    /// One that was found at the start, for which nobody is charged.
    pub(crate) fn found(key: Key, account: Option<&str>, digest: BodyDigest) -> Self {
        Self {
            key: key.as_str().into(),
            account: account.map(Into::into),
            digest,
            from: None,
        }
    }

    /// What it takes, in bytes.
    fn bytes(&self) -> usize {
        let account = self.account.as_ref().map_or(0, |account| account.len());
        KEY_BYTES + self.key.len() + account
    }
}

pub(crate) fn digest(body: &[u8]) -> BodyDigest {
    let digest: [u8; 32] = Sha256::digest(body).into();
    let mut first = BodyDigest::default();
    first.copy_from_slice(&digest[..size_of::<BodyDigest>()]);
    first
}

/// The same key of the same account, whatever the body.
impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, &self.account) == (&other.key, &other.account)
    }
}

impl Eq for Keyed {}

impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.key, &self.account).cmp(&(&other.key, &other.account))
    }
}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A queue, and a key in it.
type Name = (Arc<str>, Arc<Keyed>);

/// A key that an acknowledged message has held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) queue: Arc<str>,
    pub(crate) keyed: Arc<Keyed>,
    pub(crate) id: MessageId,
    /// Until when it is held.
    pub(crate) until: Micros,
}

/// Who holds a key.
struct Held {
    id: MessageId,
    is_stored: bool,
    /// Until when, if the message was acknowledged.
    until: Option<Micros>,
}

/// Who holds the key of a message that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// That message, from now on.
    Itself,
    /// Another one with the same body.
    Before {
        id: MessageId,
        /// Whether it is committed.
        is_stored: bool,
    },
}

/// The keys that are held.
pub(crate) struct Keys {
    /// A tree, because a table would grow in one long step.
    held: BTreeMap<Name, Held>,
    /// Those of acknowledged messages, by when they are free.
    free_at: BTreeMap<(Micros, MessageId), Name>,
    quota: Quota,
    window: Micros,
}

impl Keys {
    /// None, each of which is held for this long after its message is acknowledged.
    pub(crate) fn new(window: Duration, memory: &Arc<Memory>) -> Self {
        Self {
            held: BTreeMap::new(),
            free_at: BTreeMap::new(),
            quota: Quota::new(memory.bytes_max() / MEMORY_PART, memory),
            window: micros(window),
        }
    }

    /// Until when a key is held whose message is acknowledged now.
    pub(crate) fn until(&self, now: Micros) -> Micros {
        now.saturating_add(self.window)
    }

    /// Who holds a key already.
    ///
    /// # Errors
    /// [`QueueError::KeyTaken`].
    pub(crate) fn holder(
        &mut self,
        queue: &Arc<str>,
        keyed: &Arc<Keyed>,
        now: Micros,
    ) -> Result<Option<Holder>, QueueError> {
        self.free(now);
        let name = (Arc::clone(queue), Arc::clone(keyed));
        self.free_before(&name, now.saturating_add(1));
        let Some((held_name, held)) = self.held.get_key_value(&name) else {
            return Ok(None);
        };
        if held_name.1.digest == keyed.digest {
            Ok(Some(Holder::Before {
                id: held.id,
                is_stored: held.is_stored,
            }))
        } else {
            Err(QueueError::KeyTaken {
                key: keyed.key.to_string(),
                id: held.id,
            })
        }
    }

    /// Has a message hold its key, if no other does.
    ///
    /// # Errors
    /// [`QueueError::KeyTaken`]; [`QueueError::TooManyKeys`].
    pub(crate) fn claim(
        &mut self,
        queue: &Arc<str>,
        keyed: &Arc<Keyed>,
        id: MessageId,
        now: Micros,
    ) -> Result<Holder, QueueError> {
        if let Some(holder) = self.holder(queue, keyed, now)? {
            return Ok(holder);
        }
        if !self.quota.charge(keyed.from, keyed.bytes()) {
            return Err(QueueError::TooManyKeys);
        }
        let is_stored = false;
        self.insert(queue, keyed, id, is_stored, None);
        Ok(Holder::Itself)
    }

    /// Has a message hold its key that is there already, unless another one does.
    pub(crate) fn hold(
        &mut self,
        queue: &Arc<str>,
        keyed: &Arc<Keyed>,
        id: MessageId,
        now: Micros,
    ) {
        let name = (Arc::clone(queue), Arc::clone(keyed));
        self.free_before(&name, now.saturating_add(1));
        if !self.held.contains_key(&name) {
            self.quota.charge_always(keyed.from, keyed.bytes());
            self.insert(queue, keyed, id, true, None);
        }
    }

    /// Notes that a message is stored which has claimed its key.
    pub(crate) fn stored(&mut self, queue: &Arc<str>, keyed: &Arc<Keyed>, id: MessageId) {
        let name = (Arc::clone(queue), Arc::clone(keyed));
        // In memory the id was not known yet.
        if let Some(held) = self.held.get_mut(&name)
            && !held.is_stored
        {
            held.id = id;
            held.is_stored = true;
        }
    }

    /// Has a message hold its key no more, if it does.
    pub(crate) fn release(&mut self, queue: &Arc<str>, keyed: &Arc<Keyed>, id: MessageId) {
        let name = (Arc::clone(queue), Arc::clone(keyed));
        if self.holds(queue, keyed, id) {
            self.remove(&name);
        }
    }

    /// Has an acknowledged message hold its key for a while.
    pub(crate) fn acked(&mut self, acked: &Acked) {
        let name = (Arc::clone(&acked.queue), Arc::clone(&acked.keyed));
        if let Some(held) = self.held.get_mut(&name)
            && held.id == acked.id
            && held.until.is_none()
        {
            held.until = Some(acked.until);
            self.free_at.insert((acked.until, acked.id), name);
        }
    }

    /// Whether a message holds its key that is not acknowledged.
    pub(crate) fn holds(&self, queue: &Arc<str>, keyed: &Arc<Keyed>, id: MessageId) -> bool {
        let name = (Arc::clone(queue), Arc::clone(keyed));
        let holds = |held: &Held| held.id == id && held.until.is_none();
        self.held.get(&name).is_some_and(holds)
    }

    /// Has one do so that was found at the start. A moment too far ahead is brought back. Of several, the
    /// one whose moment is the latest holds the key.
    pub(crate) fn restore(&mut self, acked: &Acked, now: Micros) {
        let name = (Arc::clone(&acked.queue), Arc::clone(&acked.keyed));
        self.free_before(&name, acked.until);
        self.hold(&acked.queue, &acked.keyed, acked.id, now);
        let until = acked.until.min(self.until(now));
        let acked = acked.clone();
        self.acked(&Acked { until, ..acked });
    }

    fn insert(
        &mut self,
        queue: &Arc<str>,
        keyed: &Arc<Keyed>,
        id: MessageId,
        is_stored: bool,
        until: Option<Micros>,
    ) {
        let held = Held {
            id,
            is_stored,
            until,
        };
        let name = (Arc::clone(queue), Arc::clone(keyed));
        self.held.insert(name, held);
    }

    fn remove(&mut self, name: &Name) {
        if let Some((name, _)) = self.held.remove_entry(name) {
            self.quota.free(name.1.from, name.1.bytes());
        }
    }

    /// Frees a key that an acknowledged message holds until an earlier moment than this one.
    fn free_before(&mut self, name: &Name, moment: Micros) {
        let held = self.held.get(name);
        if let Some((until, id)) = held.and_then(|held| Some((held.until?, held.id)))
            && until < moment
        {
            self.free_at.remove(&(until, id));
            self.remove(name);
        }
    }

    /// Frees keys whose time is over, a few at once. What is left of them holds nothing.
    fn free(&mut self, now: Micros) {
        for _ in 0..FREED_MAX {
            let first = self.free_at.first_entry();
            let Some(first) = first.filter(|first| first.key().0 <= now) else {
                return;
            };
            let name = first.remove();
            self.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use daemon::Peer;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    /// What all keys may take in these tests.
    const BYTES_MAX: usize = 1 << 20;

    fn no_keys() -> Keys {
        Keys::new(WINDOW, &Memory::new(BYTES_MAX * MEMORY_PART))
    }

    fn keyed(key: &str, body: &str, user: Option<&str>, from: Option<Source>) -> Arc<Keyed> {
        let sender = Sender {
            user: user.map(Into::into),
            from,
        };
        Arc::new(Keyed::new(Key::new(key).unwrap(), body.as_bytes(), &sender))
    }

    fn before(id: MessageId, is_stored: bool) -> Result<Holder, QueueError> {
        Ok(Holder::Before { id, is_stored })
    }

    #[test]
    fn a_key_belongs_to_a_queue_and_an_account_and_has_one_body() {
        let mut keys = no_keys();
        let [q, other] = ["q", "other"].map(Arc::from);
        let one = keyed("k", "body", None, None);
        assert_eq!(keys.claim(&q, &one, 1, 0), Ok(Holder::Itself));
        assert_eq!(keys.claim(&q, &one, 2, 0), before(1, false));
        keys.stored(&q, &one, 1);
        assert_eq!(keys.claim(&q, &one, 2, 0), before(1, true));
        let taken = keys.claim(&q, &keyed("k", "another", None, None), 2, 0);
        let sentence = "message 1 has the key 'k' and another body";
        assert_eq!(taken.unwrap_err().to_string(), sentence);
        let of_alice = keyed("k", "another", Some("alice"), None);
        assert_eq!(keys.claim(&q, &of_alice, 3, 0), Ok(Holder::Itself));
        assert_eq!(keys.claim(&other, &one, 4, 0), Ok(Holder::Itself));
        // Not the one that holds it.
        keys.release(&q, &one, 9);
        assert_eq!(keys.claim(&q, &one, 2, 0), before(1, true));
        keys.release(&q, &one, 1);
        assert_eq!(keys.claim(&q, &one, 5, 0), Ok(Holder::Itself));
    }

    #[test]
    fn an_acknowledged_message_holds_its_key_for_the_window_and_no_longer() {
        let mut keys = no_keys();
        let q: Arc<str> = "q".into();
        let one = keyed("k", "body", None, None);
        let until = micros(WINDOW) + 5;
        keys.claim(&q, &one, 1, 0).unwrap();
        keys.stored(&q, &one, 1);
        let acked = Acked {
            queue: Arc::clone(&q),
            keyed: Arc::clone(&one),
            id: 1,
            until: keys.until(5),
        };
        keys.acked(&acked);
        // It is not the message's any more.
        keys.release(&q, &one, 1);
        assert_eq!(keys.claim(&q, &one, 2, until - 1), before(1, true));
        assert_eq!(keys.claim(&q, &one, 2, until), Ok(Holder::Itself));
        // One that was found at the start, by a clock that was wrong.
        let mut keys = no_keys();
        let until = Micros::MAX;
        keys.restore(&Acked { until, ..acked }, 7);
        let bounded = micros(WINDOW) + 7;
        assert_eq!(keys.claim(&q, &one, 2, bounded - 1), before(1, true));
        assert_eq!(keys.claim(&q, &one, 2, bounded), Ok(Holder::Itself));
        keys.release(&q, &one, 2);
        assert_eq!((keys.quota.bytes(), keys.held.len()), (0, 0));
    }

    #[test]
    fn many_keys_are_freed_a_few_at_once_and_none_is_held_longer() {
        let mut keys = no_keys();
        let q: Arc<str> = "q".into();
        let all: Vec<_> = (0..200)
            .map(|n| keyed(&format!("{n}"), "", None, None))
            .collect();
        for (id, one) in (1..).zip(&all) {
            keys.claim(&q, one, id, 0).unwrap();
            keys.stored(&q, one, id);
            keys.acked(&Acked {
                queue: Arc::clone(&q),
                keyed: Arc::clone(one),
                id,
                until: keys.until(id),
            });
        }
        let over = keys.until(1000);
        // The last one is free as well, though others before it are still there.
        assert_eq!(keys.claim(&q, &all[199], 999, over), Ok(Holder::Itself));
        assert_eq!(keys.held.len(), 200 - FREED_MAX);
        assert_eq!(keys.free_at.len(), 199 - FREED_MAX);
        keys.release(&q, &all[199], 999);
        (0..3).for_each(|_| keys.free(over));
        let left = (keys.held.len(), keys.free_at.len(), keys.quota.bytes());
        assert_eq!(left, (0, 0, 0));
    }

    #[test]
    fn of_two_that_were_found_at_the_start_the_one_that_is_free_last_holds_the_key() {
        let q: Arc<str> = "q".into();
        let one = keyed("k", "body", None, None);
        let acked = |id, until| Acked {
            queue: Arc::clone(&q),
            keyed: Arc::clone(&one),
            id,
            until,
        };
        for found in [[acked(1, 5), acked(2, 9)], [acked(2, 9), acked(1, 5)]] {
            let mut keys = no_keys();
            found.iter().for_each(|one| keys.restore(one, 0));
            assert_eq!(keys.claim(&q, &one, 3, 8), before(2, true));
            assert_eq!(keys.claim(&q, &one, 3, 9), Ok(Holder::Itself));
            assert!(keys.free_at.is_empty());
        }
    }

    #[test]
    fn a_full_table_refuses_each_source_at_its_share_and_forgets_none() {
        let mut keys = no_keys();
        let from = |ip| {
            let peer = std::net::SocketAddr::from(([192, 0, 2, ip], 1));
            Some(Source::from(Peer::Ip(peer)))
        };
        let q: Arc<str> = "q".into();
        let first = keyed("first", "body", None, from(1));
        keys.claim(&q, &first, 1, 0).unwrap();
        let fill = |keys: &mut Keys, ip: u8| {
            (0..).find_map(|number| {
                let one = keyed(&format!("{ip:03}-{number:06}"), "body", None, from(ip));
                keys.claim(&q, &one, 2, 0).err().map(|why| (number, why))
            })
        };
        let share = BYTES_MAX / 8 / (KEY_BYTES + 10);
        assert_eq!(fill(&mut keys, 2), Some((share, QueueError::TooManyKeys)));
        let other = keyed("other", "body", None, from(3));
        assert_eq!(keys.claim(&q, &other, 3, 0), Ok(Holder::Itself));
        keys.stored(&q, &first, 1);
        assert_eq!(keys.claim(&q, &first, 9, 0), before(1, true));
        keys.release(&q, &keyed("002-000000", "body", None, from(2)), 2);
        let next = keyed("002-999999", "body", None, from(2));
        assert_eq!(keys.claim(&q, &next, 9, 0), Ok(Holder::Itself));
    }
}
