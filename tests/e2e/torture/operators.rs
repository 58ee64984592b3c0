//! The queue with everything at once: eight connections that ask at random for all that there is, one message at a
//! time or whole queues, while the server is killed again and again. In the end every message that was stored and
//! is not known to be gone is there once, in whatever state; and when all are taken away, nothing is on the account.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use proto::ErrorCode;
use proto::queue::{Priority, Properties, QueueName, Reason, Retry};
use queue_client::{Client, Error, HeldBy, MessageId, MessageState, Received, Transport};

use super::services::{Queue, Service};
use super::{Ledger, crash_and_crash};
use crate::harness::{Needs, Noise, Server, has_door};

const CRASHES: usize = 10;
const CONNECTIONS: usize = 8;
/// In the order in which a message goes from one to the next by itself.
const STATES: [MessageState; 3] = [
    MessageState::Delayed,
    MessageState::Reserved,
    MessageState::Ready,
];

#[derive(Default)]
struct Operators {
    queue: Queue,
    /// Messages that were stored, by their ids.
    known: Mutex<Vec<(MessageId, String)>>,
    gone: Mutex<HashSet<String>>,
    /// How often it was asked to take a message away, without an answer yet, or ever.
    unsure: Mutex<HashMap<String, u32>>,
}

fn names() -> [QueueName<'static>; 2] {
    ["default", "42"].map(|name| QueueName::new(name).unwrap())
}

fn connect(server: &Server) -> Result<Client, Error> {
    Client::connect(&server.endpoint(), Transport::Tcp)
}

/// What may be refused, but not fail.
fn done<T>(result: Result<T, Error>) -> Result<(), Error> {
    refusable(result).map(drop)
}

/// The same; `None` if it was refused.
fn refusable<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::Refused {
            code: ErrorCode::ShuttingDown,
            ..
        }) => result.map(Some),
        Err(Error::Refused { .. }) => Ok(None),
        other => other.map(Some),
    }
}

impl Operators {
    /// Asks to take a message away.
    fn remove(&self, record: &str, ask: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        *self
            .unsure
            .lock()
            .unwrap()
            .entry(record.to_owned())
            .or_default() += 1;
        let done = refusable(ask())?;
        if done.is_some() {
            self.gone.lock().unwrap().insert(record.to_owned());
        }
        let mut unsure = self.unsure.lock().unwrap();
        let asked = unsure.get_mut(record).unwrap();
        *asked -= 1;
        Ok(())
    }

    fn any(&self, noise: &mut Noise) -> Option<(MessageId, String)> {
        let known = self.known.lock().unwrap();
        // The newest are there most likely.
        let newest = known.len().saturating_sub(100);
        let count = known.len() - newest;
        (count > 0).then(|| known[newest + noise.below(count)].clone())
    }

    fn send(
        &self,
        client: &mut Client,
        record: &str,
        noise: &mut Noise,
        ledger: &Ledger,
    ) -> Result<(), Error> {
        let properties = Properties {
            delay_millis: [0, 0, 20, 3_600_000][noise.below(4)],
            priority: Priority::new(noise.below(10) as u8).unwrap(),
            key: None,
            expiry_millis: [0, 0, 0, 30][noise.below(4)],
            attempts_max: noise.below(3) as u32,
        };
        ledger.sending(record);
        let id = client.send_with(record.as_bytes(), &properties)?;
        ledger.acknowledged(record);
        self.known.lock().unwrap().push((id, record.to_owned()));
        Ok(())
    }

    /// Does something with a message that was handed out.
    fn finish(
        &self,
        client: &mut Client,
        message: &Received,
        noise: &mut Noise,
    ) -> Result<(), Error> {
        let record = String::from_utf8(message.body.clone()).unwrap();
        let delay_millis = [0, 10][noise.below(2)];
        let reason = Reason::new("it is random");
        match noise.below(6) {
            0 => self.remove(&record, || client.ack(message))?,
            1 => done(client.release_with(message, Retry::Counted { delay_millis }, reason))?,
            2 => done(client.release_with(message, Retry::Uncounted { delay_millis }, reason))?,
            3 => done(client.release_with(message, Retry::Never, reason))?,
            4 => done(client.unreserve(message))?,
            // It is kept.
            _ => {}
        }
        Ok(())
    }

    /// Asks at random until the server is gone.
    fn ask(
        &self,
        server: &Server,
        sender: &str,
        noise: &mut Noise,
        ledger: &Ledger,
    ) -> Result<(), Error> {
        let mut client = connect(server)?;
        let mut kept = 0;
        for number in 0.. {
            client.set_queue(names()[noise.below(2)]);
            let any = self.any(noise);
            match (noise.below(16), any) {
                (0..=4, _) | (_, None) => {
                    self.send(&mut client, &format!("{sender}.{number}"), noise, ledger)?;
                }
                (5..=6, Some(_)) => {
                    if let Some(Some(message)) = refusable(client.receive())? {
                        self.finish(&mut client, &message, noise)?;
                        kept += 1;
                    }
                }
                (7, Some(_)) => {
                    let lease = Duration::from_millis([20, 3_600_000][noise.below(2)]);
                    if let Some(Some(message)) = refusable(client.lease(lease, Duration::ZERO))? {
                        self.finish(&mut client, &message, noise)?;
                    }
                }
                (8, Some((id, record))) => self.remove(&record, || client.delete(id))?,
                (9, Some((id, _))) => done(client.kick_one(id))?,
                (10, Some((id, _))) => {
                    let to = names()[noise.below(2)];
                    done(client.move_to(id, to))?;
                }
                (11, Some((id, _))) => done(client.release_one(id))?,
                (12, Some((id, record))) => {
                    if let Some(seen) = refusable(client.peek_one(id))? {
                        assert_eq!(seen.body, record.as_bytes());
                    }
                    done(client.kick())?;
                }
                (13, Some(_)) => {
                    let seen = client.peek_after(STATES[noise.below(3)], 0)?;
                    if let Some(HeldBy::Connection { id, .. }) = seen.and_then(|one| one.holder) {
                        done(client.release_holder(id))?;
                    }
                }
                (14, Some(_)) => done(client.pause())?,
                (_, Some(_)) => done(client.resume())?,
            }
            if kept > 50 {
                client = connect(server)?;
                kept = 0;
            }
        }
        Ok(())
    }
}

impl Service for Operators {
    const PROGRAM: &'static str = Queue::PROGRAM;

    fn dir(&self) -> &Path {
        self.queue.dir()
    }

    fn start(&self) -> Server {
        self.queue.start()
    }

    fn load(&self, server: &Server, life: usize, ledger: &Ledger) {
        thread::scope(|scope| {
            for number in 0..CONNECTIONS {
                scope.spawn(move || {
                    let mut noise = Noise::new((life * CONNECTIONS + number) as u64 * 7919 + 13);
                    let error = self.ask(server, &format!("{life}-{number}"), &mut noise, ledger);
                    if let Err(Error::Refused { sentence, .. }) = error {
                        panic!("{sentence}");
                    }
                });
            }
        });
    }

    fn check(&self, what: &str, ledger: &Ledger) {
        let server = self.start();
        let mut client = connect(&server).unwrap();
        let mut there = HashMap::new();
        let mut reserved = Vec::new();
        let queues = names()
            .map(|name| [name.as_str().to_owned(), name.dead()])
            .concat();
        for name in &queues {
            client.set_queue(QueueName::new(name).unwrap());
            for state in STATES {
                let mut after = 0;
                while let Some(message) = client.peek_after(state, after).unwrap() {
                    after = message.position;
                    assert_eq!((&message.queue, message.state), (name, state));
                    let record = String::from_utf8(message.body).unwrap();
                    if state == MessageState::Reserved {
                        reserved.push((name, message.id));
                    }
                    // One that becomes ready meanwhile is seen twice, with the same id.
                    let before = there.insert(record.clone(), message.id);
                    assert!(
                        before.is_none_or(|id| id == message.id),
                        "doubled: {record}"
                    );
                }
            }
        }
        let sent = ledger.sent.lock().unwrap();
        let gone = self.gone.lock().unwrap();
        let unsure = self.unsure.lock().unwrap();
        let invented = there
            .keys()
            .filter(|record| !sent.contains_key(*record))
            .count();
        let undead = there.keys().filter(|record| gone.contains(*record)).count();
        let is_unsure = |record: &String| unsure.get(record).is_some_and(|asked| *asked > 0);
        let is_lost = |(record, acked): &(&String, &bool)| {
            **acked && !there.contains_key(*record) && !gone.contains(*record) && !is_unsure(record)
        };
        let lost = sent.iter().filter(is_lost).count();
        println!(
            "torture: {what}: {} there, {} reserved, {} gone; {lost} lost, {invented} invented, {undead} undead",
            there.len(),
            reserved.len(),
            gone.len()
        );
        assert_eq!((lost, invented, undead), (0, 0, 0));
        assert!(there.len() > 50 && gone.len() > 50 && !reserved.is_empty());
        for (name, id) in reserved {
            client.set_queue(QueueName::new(name).unwrap());
            // Its lease may have expired by now.
            done(client.release_one(id)).unwrap();
        }
        for name in &queues {
            client.set_queue(QueueName::new(name).unwrap());
            done(client.resume()).unwrap();
            done(client.purge()).unwrap();
        }
        let stats = client.stats().unwrap();
        assert_eq!(stats.queues, []);
        assert_eq!(stats.totals.memory_bytes, 0);
    }
}

#[test]
fn a_queue_that_everybody_works_on_at_once_keeps_its_messages() {
    if has_door(Needs::NoAccounts, "it asks for what an operator may") {
        let operators = Operators::default();
        let what = "queue, all at once";
        crash_and_crash(what, CRASHES, &operators, |_, _, _| {});
    }
}
