//! The queue with everything at once: eight connections that ask at random for all that there is, one message at a
//! time or whole queues, in frames and over HTTP, while the server is killed again and again. In the end every message that was stored and
//! is not known to be gone is there once, in whatever state; nobody was handed what another one has leased; and when all are taken away, nothing is on the account.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use proto::queue::{Claim, Key, Priority, Properties, QueueName, QueueNames, Reason, Retry};
use queue_client::{Client, Error, MessageId, MessageState, Received, ReservedBy, Transport};

use super::leases::{Leases, Moment};
use super::over_http::Http;
use super::refusable::{done, refusable, said};
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
    /// What was stored in the queue that is emptied.
    purgeable: Mutex<Vec<String>>,
    /// Held during a purge, because one says nothing of what another one takes.
    purge: Mutex<()>,
    /// What has a key, with the id that all who have sent it were told.
    keyed: Mutex<HashMap<String, MessageId>>,
    leases: Leases,
}

/// A queue from which nobody takes single messages, and one whose messages have keys.
const EMPTIED: &str = "emptied";
const KEYED: &str = "keyed";

/// What a lease lasts at most, and one of which the end is not waited for.
const SOON: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);

/// How many different messages with keys there are.
const KEYS: usize = 300;

fn names() -> [QueueName<'static>; 2] {
    ["default", "42"].map(|name| QueueName::new(name).unwrap())
}

fn connect(server: &Server) -> Result<Client, Error> {
    Client::connect(&server.endpoint(), Transport::Tcp)
}

impl Operators {
    /// Asks to take a message away.
    fn remove<T>(&self, record: &str, ask: impl FnOnce() -> Result<T, Error>) -> Result<(), Error> {
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
        // Another one may be draining the server.
        let Some(id) = refusable(client.send_with(record.as_bytes(), &properties))? else {
            return Ok(());
        };
        ledger.acknowledged(record);
        self.known.lock().unwrap().push((id, record.to_owned()));
        Ok(())
    }

    /// Sends to the queue that is emptied, or empties it: what was there before a purge is gone.
    fn purge_or_send(
        &self,
        client: &mut Client,
        record: &str,
        noise: &mut Noise,
        ledger: &Ledger,
    ) -> Result<(), Error> {
        client.set_queue(QueueName::new(EMPTIED).unwrap());
        if noise.below(8) > 0 {
            let properties = Properties {
                delay_millis: [0, 20, 3_600_000][noise.below(3)],
                priority: Priority::new(noise.below(10) as u8).unwrap(),
                ..Properties::default()
            };
            ledger.sending(record);
            self.unsure.lock().unwrap().insert(record.to_owned(), 1);
            if refusable(client.send_with(record.as_bytes(), &properties))?.is_some() {
                ledger.acknowledged(record);
                self.purgeable.lock().unwrap().push(record.to_owned());
            }
            return Ok(());
        }
        let _alone = self.purge.lock().unwrap();
        let before = self.purgeable.lock().unwrap().clone();
        if refusable(client.purge())?.is_some() {
            self.gone.lock().unwrap().extend(before);
        }
        Ok(())
    }

    /// Sends what others send too, with the same key: all are told of one message.
    fn send_keyed(
        &self,
        client: &mut Client,
        noise: &mut Noise,
        ledger: &Ledger,
    ) -> Result<(), Error> {
        client.set_queue(QueueName::new(KEYED).unwrap());
        let record = format!("keyed-{}", noise.below(KEYS));
        let properties = Properties {
            key: Key::new(&record),
            ..Properties::default()
        };
        let is_known = ledger.sent.lock().unwrap().contains_key(&record);
        if !is_known {
            ledger.sending(&record);
        }
        if let Some(id) = refusable(client.send_with(record.as_bytes(), &properties))? {
            ledger.acknowledged(&record);
            let mut keyed = self.keyed.lock().unwrap();
            assert_eq!(*keyed.entry(record.clone()).or_insert(id), id, "{record}");
        }
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
        let way = noise.below(6);
        let _ending = (way < 5).then(|| self.leases.ending(message.id));
        let reason = Reason::new("it is random");
        match way {
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

    /// Notes what somebody was handed under a lease.
    fn note_lease(&self, id: MessageId, lease: Duration, asked: Moment, who: &str) {
        if lease == HOUR {
            self.leases.begin(id, asked, who);
        }
    }

    /// Leases a message, and does something with it.
    fn lease(&self, client: &mut Client, who: &str, noise: &mut Noise) -> Result<(), Error> {
        let lease = [SOON, HOUR][noise.below(2)];
        let asked = self.leases.now();
        let Some(Some(message)) = refusable(client.lease(lease, Duration::ZERO))? else {
            return Ok(());
        };
        self.note_lease(message.id, lease, asked, who);
        if let (0, Claim::Leased(token)) = (noise.below(2), message.claim) {
            let _ending = self.leases.ending(message.id);
            done(client.extend(token, [SOON, HOUR][noise.below(2)]))?;
        }
        self.finish(client, &message, noise)
    }

    /// The same requests over HTTP.
    fn ask_over_http(
        &self,
        http: &Http,
        record: &str,
        (id, other): (MessageId, String),
        noise: &mut Noise,
        ledger: &Ledger,
    ) -> Result<(), Error> {
        let [queue, to] = [(); 2].map(|()| names()[noise.below(2)].as_str());
        let messages = format!("/queues/{queue}/messages");
        match noise.below(12) {
            0..=2 => {
                let priority = noise.below(10);
                let delay = ["0", "1h"][noise.below(2)];
                ledger.sending(record);
                let path = format!("{messages}?priority={priority}&delay={delay}&max-attempts=2");
                if let Some(id) = http.send(&path, record)? {
                    ledger.acknowledged(record);
                    self.known.lock().unwrap().push((id, record.to_owned()));
                }
            }
            3..=5 => {
                let asked = self.leases.now();
                let queues = ["default,42", queue][noise.below(2)];
                let Some(leased) = http.lease(queues, 3600)? else {
                    return Ok(());
                };
                self.note_lease(leased.id, HOUR, asked, record);
                let lease = format!("/leases/{}", leased.token);
                let end = noise.below(4);
                let _ending = (end < 3).then(|| self.leases.ending(leased.id));
                match end {
                    0 => self.remove(&leased.record, || {
                        said(http.done(&format!("DELETE {lease}")))
                    })?,
                    1 => drop(http.ask(&format!("POST {lease}/release?retry=uncounted"), "why")?),
                    2 => drop(http.done(&format!("PATCH {lease}?seconds=1"))?),
                    // It is kept.
                    _ => {}
                }
            }
            6 => {
                let _ending = self.leases.ending(id);
                let path = format!("DELETE {messages}/{id}");
                self.remove(&other, || said(http.done(&path)))?;
            }
            7 => {
                let _ending = self.leases.ending(id);
                http.done(&format!("POST {messages}/{id}/move?to={to}"))?;
            }
            8 => {
                let _ending = self.leases.ending(id);
                http.done(&format!("POST {messages}/{id}/release"))?;
            }
            9 => drop(http.done(&format!("POST {messages}/{id}/kick"))?),
            10 => {
                if let Some((_, body)) = http.ask(&format!("GET {messages}/{id}/body"), "")? {
                    assert_eq!(body, other);
                }
            }
            _ => {
                http.done(&format!("POST /queues/{queue}/pause"))?;
                http.done(&format!("POST /queues/{queue}/resume"))?;
            }
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
            match (noise.below(27), any) {
                (0..=4, _) | (_, None) => {
                    self.send(&mut client, &format!("{sender}.{number}"), noise, ledger)?;
                }
                (5..=6, Some(_)) => {
                    if noise.below(2) == 0 {
                        client.set_queues(&QueueNames::new(names()).unwrap());
                    }
                    let asked = self.leases.now();
                    if let Some(Some(message)) = refusable(client.receive())? {
                        self.leases.check(message.id, asked, sender);
                        self.finish(&mut client, &message, noise)?;
                        kept += 1;
                    }
                }
                (7, Some(_)) => self.lease(&mut client, sender, noise)?,
                (8, Some((id, record))) => {
                    let _ending = self.leases.ending(id);
                    self.remove(&record, || client.delete(id))?;
                }
                (9, Some((id, _))) => done(client.kick_one(id))?,
                (10, Some((id, _))) => {
                    let to = names()[noise.below(2)];
                    let _ending = self.leases.ending(id);
                    done(client.move_to(id, to))?;
                }
                (11, Some((id, _))) => {
                    let _ending = self.leases.ending(id);
                    done(client.release_one(id))?;
                }
                (12, Some((id, record))) => {
                    if let Some(seen) = refusable(client.peek_one(id))? {
                        assert_eq!(seen.body, record.as_bytes());
                    }
                    done(client.kick())?;
                }
                (13, Some(_)) => {
                    let seen = client.peek_after(STATES[noise.below(3)], 0)?;
                    if let Some(ReservedBy::Connection { id, .. }) = seen.and_then(|one| one.holder)
                    {
                        let _ending = self.leases.ending_of_connections();
                        done(client.release_holder(id))?;
                    }
                }
                (14, Some(_)) => done(client.pause())?,
                (15, Some(_)) => done(client.resume())?,
                (16..=17, Some(_)) => {
                    let record = format!("{sender}.{number}");
                    self.purge_or_send(&mut client, &record, noise, ledger)?;
                }
                (18..=19, Some(_)) => self.send_keyed(&mut client, noise, ledger)?,
                (20, Some(_)) => {
                    done(client.drain(true))?;
                    done(client.drain(false))?;
                }
                (_, Some(any)) => {
                    let record = format!("{sender}.{number}");
                    self.ask_over_http(&Http(server), &record, any, noise, ledger)?;
                }
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
        let mut queues = names()
            .map(|name| [name.as_str().to_owned(), name.dead()])
            .concat();
        queues.extend([EMPTIED, KEYED].map(str::to_owned));
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
        for (record, id) in &*self.keyed.lock().unwrap() {
            assert_eq!(there.get(record), Some(id), "{record}");
        }
        assert!(!gone.is_disjoint(&self.purgeable.lock().unwrap().iter().cloned().collect()));
        assert!(there.len() > 50 && gone.len() > 50 && !reserved.is_empty());
        for id in self.leases.all() {
            let is_there = reserved.iter().any(|(_, reserved)| *reserved == id);
            assert!(is_there, "the lease of message {id} is over");
        }
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
