//! Who has which message under a lease of an hour: nobody else may be handed it, over whatever door and in whatever
//! life of the server, until somebody has asked for something that ends the lease.

use std::collections::HashMap;
use std::sync::Mutex;

use queue_client::MessageId;

/// The leases that nobody has asked to end.
#[derive(Default)]
pub struct Leases(Mutex<State>);

#[derive(Default)]
struct State {
    /// How many times it was asked to end a lease.
    ends: usize,
    /// The last of them for each message...
    last_end: HashMap<MessageId, usize>,
    /// ...and for all that connections have.
    last_end_of_all: usize,
    leased: HashMap<MessageId, String>,
}

/// A moment in the order of what was asked.
#[derive(Clone, Copy)]
pub struct Moment(usize);

/// That an end is asked for, of the lease of a message or of all that a connection has. The server may do so at
/// any time until there is an answer.
pub struct Ending<'l>(&'l Leases, Option<MessageId>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

impl Leases {
    /// The present moment, before it is asked for a message.
    pub fn now(&self) -> Moment {
        Moment(self.0.lock().unwrap().ends)
    }

    /// Somebody asks for what may end the lease of this message, until the value is dropped.
    pub fn ending(&self, id: MessageId) -> Ending<'_> {
        self.end(Some(id));
        Ending(self, Some(id))
    }

    /// Somebody asks for what ends the reservations of a connection.
    pub fn ending_of_connections(&self) -> Ending<'_> {
        self.end(None);
        Ending(self, None)
    }

    fn end(&self, id: Option<MessageId>) {
        let mut state = self.0.lock().unwrap();
        state.ends += 1;
        let end = state.ends;
        if let Some(id) = id {
            state.last_end.insert(id, end);
            state.leased.remove(&id);
        } else {
            state.last_end_of_all = end;
        }
    }

    /// Somebody was handed this message, as asked at that moment, and has it until it is asked to end that.
    #[track_caller]
    pub fn check(&self, id: MessageId, asked: Moment, who: &str) {
        let state = self.0.lock().unwrap();
        // If somebody has asked for its end meanwhile, nothing is known.
        let is_known = state.last_end.get(&id).is_none_or(|end| *end <= asked.0)
            && state.last_end_of_all <= asked.0;
        let holder = state.leased.get(&id).filter(|_| is_known).cloned();
        drop(state);
        if let Some(holder) = holder {
            panic!("{who} was handed message {id}, which {holder} has leased");
        }
    }

    /// The same, under a lease of an hour.
    #[track_caller]
    pub fn begin(&self, id: MessageId, asked: Moment, who: &str) {
        self.check(id, asked, who);
        let mut state = self.0.lock().unwrap();
        if state.last_end.get(&id).is_none_or(|end| *end <= asked.0) {
            state.leased.insert(id, who.to_owned());
        }
    }

    /// The messages that are leased, whatever has happened to the server.
    pub fn all(&self) -> Vec<MessageId> {
        self.0.lock().unwrap().leased.keys().copied().collect()
    }
}
