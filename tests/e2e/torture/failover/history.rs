//! The checker: what clients asked for and were answered, over all servers of a database and all that
//! happened to them, and what a queue must never have answered.
//!
//! It knows nothing of servers. A request has a moment before it was sent and one after its answer came, by one
//! clock that does not step; what was asked took effect somewhere between the two, if it did. Only what no
//! such order explains is a violation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use queue_client::MessageId;

/// What the end of a lease may be rounded by.
const ROUNDING: Duration = Duration::from_millis(10);

/// A request, and what became of it.
#[derive(Debug, Clone)]
pub struct Event {
    /// When it was asked...
    pub asked: Duration,
    /// ...and when the answer was there, or known not to come.
    pub answered: Duration,
    /// What it was.
    pub what: What,
}

/// What was asked, and the answer.
#[derive(Debug, Clone)]
pub enum What {
    /// A message was sent, and has this id; `None` if there is no answer, and it may be there or not.
    Sent(String, Option<MessageId>),
    /// A message was handed out under a lease.
    Leased(Lease),
    /// Somebody asked for one, and there is no answer: it may have been handed out, or put back.
    LeaseLost,
    /// A message was acknowledged under a lease.
    Acked(MessageId, Outcome),
    /// A message was given back under a lease.
    Released(MessageId, Outcome),
}

/// A message that was handed out.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Its id.
    pub id: MessageId,
    /// Its body.
    pub record: String,
    /// How often it was handed out, this time included.
    pub attempt: u32,
    /// How long nobody else is to get it.
    pub lasts: Duration,
}

/// What became of a request that ends a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The server says that there is no such lease.
    NoLease,
    /// There is no answer.
    Unknown,
}

/// What happened to a message, in the order of the answers.
#[derive(Default)]
struct Story<'e> {
    sent: Option<&'e Event>,
    leases: Vec<(&'e Event, &'e Lease)>,
    ends: Vec<(&'e Event, Outcome)>,
    acked: Option<&'e Event>,
}

impl Story<'_> {
    /// Until when a lease lasts at least: nobody has asked for its end.
    fn lasts_until(&self, leased: &Event, lease: &Lease) -> Duration {
        let ends = self.ends.iter().map(|(end, _)| end.asked);
        let asked = ends.filter(|asked| *asked >= leased.answered).min();
        let lasts = leased.asked + lease.lasts.saturating_sub(ROUNDING);
        asked.map_or(lasts, |asked| lasts.min(asked))
    }
}

/// What must not have happened. The messages were of one queue and one priority, and at the end the queue was
/// received empty.
pub fn check(events: &[Event]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut events: Vec<_> = events.iter().collect();
    events.sort_by_key(|event| event.answered);
    let stories = stories(&events);
    check_records(&events, &mut violations);
    for (id, story) in &stories {
        check_leases(*id, story, &mut violations);
    }
    check_order(&events, &stories, &mut violations);
    violations
}

fn stories<'e>(events: &[&'e Event]) -> BTreeMap<MessageId, Story<'e>> {
    let mut stories: BTreeMap<_, Story> = BTreeMap::new();
    for event in events {
        match &event.what {
            What::Sent(_, Some(id)) => stories.entry(*id).or_default().sent = Some(event),
            What::Leased(lease) => {
                let story = stories.entry(lease.id).or_default();
                story.leases.push((event, lease));
            }
            What::Acked(id, outcome) => {
                let story = stories.entry(*id).or_default();
                story.ends.push((event, *outcome));
                if *outcome == Outcome::Done && story.acked.is_none() {
                    story.acked = Some(event);
                }
            }
            What::Released(id, outcome) => {
                stories.entry(*id).or_default().ends.push((event, *outcome));
            }
            What::Sent(_, None) | What::LeaseLost => {}
        }
    }
    stories
}

/// What was acknowledged is delivered, once stored, and nothing else is.
fn check_records(events: &[&Event], violations: &mut Vec<String>) {
    let mut sent = HashSet::new();
    let mut ids = HashMap::new();
    let mut delivered = HashSet::new();
    for event in events {
        if let What::Sent(record, _) = &event.what {
            sent.insert(record);
        }
    }
    let mut note = |record, id| {
        let known = *ids.entry(record).or_insert(id);
        (known != id).then(|| format!("'{record}' is doubled: messages {known} and {id}"))
    };
    for event in events {
        match &event.what {
            What::Sent(record, Some(id)) => violations.extend(note(record, *id)),
            What::Leased(lease) => {
                violations.extend(note(&lease.record, lease.id));
                delivered.insert(&lease.record);
                if !sent.contains(&lease.record) {
                    violations.push(format!("'{}' was never sent", lease.record));
                }
            }
            What::Sent(_, None) | What::LeaseLost | What::Acked(..) | What::Released(..) => {}
        }
    }
    for event in events {
        if let What::Sent(record, Some(id)) = &event.what
            && !delivered.contains(record)
        {
            violations.push(format!("'{record}', message {id}, is lost"));
        }
    }
}

/// While one has a lease nobody else gets one, and after an acknowledgement nobody.
fn check_leases(id: MessageId, story: &Story, violations: &mut Vec<String>) {
    for (index, (leased, lease)) in story.leases.iter().enumerate() {
        let until = story.lasts_until(leased, lease);
        for (other, _) in &story.leases[index + 1..] {
            if other.asked >= leased.answered && other.answered < until {
                let at = [leased, other].map(|event| event.answered);
                violations.push(format!("message {id} is under two leases, of {at:?}"));
            }
        }
        // Who has it asks for the end once, unless there is no answer.
        let ends = story.ends.iter();
        let first = ends
            .filter(|(end, _)| end.asked >= leased.answered)
            .min_by_key(|(end, _)| end.asked);
        if let Some((end, Outcome::NoLease)) = first
            && end.answered < leased.asked + lease.lasts.saturating_sub(ROUNDING)
        {
            let at = leased.answered;
            violations.push(format!("the lease of message {id}, of {at:?}, ended early"));
        }
        if story
            .acked
            .is_some_and(|acked| leased.asked > acked.answered)
        {
            let at = leased.answered;
            violations.push(format!(
                "message {id} was acknowledged, and came again at {at:?}"
            ));
        }
    }
}

/// First in, first out: of two messages that were there, and were never handed out before, nobody gets the
/// later one first.
fn check_order(
    events: &[&Event],
    stories: &BTreeMap<MessageId, Story>,
    violations: &mut Vec<String>,
) {
    let mut lost: Vec<_> = events
        .iter()
        .filter(|event| matches!(event.what, What::LeaseLost))
        .collect();
    lost.sort_by_key(|event| event.asked);
    // Handed out to somebody who did not get it, it was put back.
    let may_have_been_out = |from: Duration, to: Duration| {
        lost.iter()
            .any(|lost| lost.asked < to && lost.answered > from)
    };
    let firsts: Vec<_> = stories
        .iter()
        .filter_map(|(id, story)| {
            let (leased, lease) = story.leases.first()?;
            (lease.attempt == 1).then_some((*id, story.sent?, *leased))
        })
        .collect();
    // The soonest of all later ones.
    let mut soonest = Duration::MAX;
    for (index, (id, sent, leased)) in firsts.iter().enumerate().rev() {
        if soonest < leased.asked {
            let later = firsts[index + 1..].iter().find(|(_, _, later)| {
                later.answered < leased.asked
                    && sent.answered < later.asked
                    && !may_have_been_out(sent.asked, later.answered)
            });
            if let Some((later, ..)) = later {
                violations.push(format!("message {later} came before message {id}"));
            }
        }
        soonest = soonest.min(leased.answered);
    }
}

/// Tests of the checker: what it must see, and what it must not take for a violation.
mod tests {
    use super::*;

    fn at(asked: u64, answered: u64, what: What) -> Event {
        let [asked, answered] = [asked, answered].map(Duration::from_secs);
        Event {
            asked,
            answered,
            what,
        }
    }

    fn sent(asked: u64, id: MessageId) -> Event {
        at(asked, asked + 1, What::Sent(format!("m.{id}"), Some(id)))
    }

    /// A lease of a minute.
    fn leased(asked: u64, id: MessageId, attempt: u32) -> Event {
        let lease = Lease {
            id,
            record: format!("m.{id}"),
            attempt,
            lasts: Duration::from_secs(60),
        };
        at(asked, asked + 1, What::Leased(lease))
    }

    fn acked(asked: u64, id: MessageId, outcome: Outcome) -> Event {
        at(asked, asked + 1, What::Acked(id, outcome))
    }

    #[track_caller]
    fn check_says(events: &[Event], want: &[&str]) {
        assert_eq!(check(events), want);
    }

    #[test]
    fn an_ordinary_life_is_no_violation() {
        let released = at(30, 31, What::Released(2, Outcome::Done));
        let events = [
            sent(0, 1),
            sent(2, 2),
            at(3, 9, What::Sent("m.3".to_owned(), None)),
            leased(10, 1, 1),
            leased(12, 2, 1),
            acked(20, 1, Outcome::Done),
            released,
            leased(32, 2, 2),
            // It has expired.
            leased(93, 2, 3),
            acked(100, 2, Outcome::Done),
        ];
        check_says(&events, &[]);
    }

    #[test]
    fn what_was_acknowledged_comes_once_and_nothing_else_does() {
        check_says(&[sent(0, 1)], &["'m.1', message 1, is lost"]);
        check_says(&[leased(0, 1, 1)], &["'m.1' was never sent"]);
        let twice = at(5, 6, What::Sent("m.1".to_owned(), Some(2)));
        let events = [sent(0, 1), twice, leased(10, 1, 1)];
        check_says(&events, &["'m.1' is doubled: messages 1 and 2"]);
        let end = acked(20, 1, Outcome::Done);
        let again = "message 1 was acknowledged, and came again at 23s";
        let events = [sent(0, 1), leased(10, 1, 1), end, leased(22, 1, 2)];
        check_says(&events, &[again]);
        // Asked for before, it was handed out before.
        let mut early = leased(10, 1, 2);
        early.answered = Duration::from_secs(30);
        let events = [
            sent(0, 1),
            leased(5, 1, 1),
            acked(20, 1, Outcome::Done),
            early,
        ];
        check_says(&events, &[]);
    }

    #[test]
    fn a_message_is_under_one_lease_at_a_time() {
        let two = "message 1 is under two leases, of [11s, 31s]";
        check_says(&[sent(0, 1), leased(10, 1, 1), leased(30, 1, 2)], &[two]);
        // It has expired while the other one was asked for.
        check_says(&[sent(0, 1), leased(10, 1, 1), leased(69, 1, 2)], &[]);
        // It may have been acknowledged, or given back, whatever came of it.
        let ends = [
            acked(12, 1, Outcome::Unknown),
            at(12, 13, What::Released(1, Outcome::Unknown)),
        ];
        for end in ends {
            check_says(&[sent(0, 1), leased(10, 1, 1), end, leased(30, 1, 2)], &[]);
        }
    }

    #[test]
    fn a_lease_lasts_as_long_as_it_was_said() {
        let early = "the lease of message 1, of 11s, ended early";
        let none = acked(30, 1, Outcome::NoLease);
        check_says(&[sent(0, 1), leased(10, 1, 1), none.clone()], &[early]);
        let late = acked(75, 1, Outcome::NoLease);
        check_says(&[sent(0, 1), leased(10, 1, 1), late], &[]);
        // It was acknowledged before, though there was no answer.
        let before = acked(20, 1, Outcome::Unknown);
        check_says(&[sent(0, 1), leased(10, 1, 1), before, none], &[]);
    }

    #[test]
    fn the_first_in_is_the_first_out() {
        let late = "message 2 came before message 1";
        let events = [sent(0, 1), sent(2, 2), leased(10, 2, 1), leased(20, 1, 1)];
        check_says(&events, &[late]);
        // It was out before.
        let events = [sent(0, 1), sent(2, 2), leased(10, 2, 1), leased(20, 1, 2)];
        check_says(&events, &[]);
        // Or may have been.
        let lost = at(5, 8, What::LeaseLost);
        let events = [
            sent(0, 1),
            sent(2, 2),
            lost,
            leased(10, 2, 1),
            leased(20, 1, 1),
        ];
        check_says(&events, &[]);
        // Both were asked for at once.
        let events = [sent(0, 1), sent(2, 2), leased(10, 2, 1), leased(10, 1, 1)];
        check_says(&events, &[]);
        // It was not known to be there.
        let mut slow = sent(0, 1);
        slow.answered = Duration::from_secs(15);
        let events = [slow, sent(2, 2), leased(10, 2, 1), leased(20, 1, 1)];
        check_says(&events, &[]);
    }
}
