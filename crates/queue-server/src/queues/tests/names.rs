//! What is counted of more queues than have a name in the counts, from one run to the next.

use std::collections::BTreeSet;

use super::*;
use crate::totals::{NAMED_MAX, REST};

/// Sends a message to each of these queues, and has them all committed.
#[track_caller]
fn send_to_each(queues: &Queues, names: impl Iterator<Item = String>) {
    let submit = |queue: String| {
        let sent = queues.submit_body(name(&queue), Duration::ZERO, b"x");
        queues.submit(sent.unwrap(), None)
    };
    let pending: Vec<_> = names.map(submit).collect();
    for one in pending {
        queues.wait(one).unwrap();
    }
}

/// How many messages were sent, over all queues, and which queues are counted by name.
fn sent(queues: &Queues) -> (u64, BTreeSet<Arc<str>>) {
    let counts = queues.counts();
    let all = counts.iter().map(|(_, counts)| counts.sent).sum();
    (
        all,
        counts.iter().map(|(name, _)| Arc::clone(name)).collect(),
    )
}

#[test]
fn no_message_is_counted_twice_however_many_queues_come_and_go() {
    let names = |letter: char, count: usize| (0..count).map(move |n| format!("{letter}{n:04}"));
    for disk in Disk::each(&[]) {
        let queues = disk.open().unwrap();
        send_to_each(&queues, names('m', NAMED_MAX + 5));
        let mut all = NAMED_MAX as u64 + 5;
        let (counted, named) = sent(&queues);
        assert_eq!((counted, named.len()), (all, NAMED_MAX + 1));
        // Some sort in front of all others, and some behind.
        send_to_each(&queues, names('a', 20));
        all += 20;
        assert_eq!(sent(&queues), (all, named.clone()), "they keep their names");
        drop(queues);
        for letter in ['b', 'z'] {
            let queues = disk.open().unwrap();
            assert_eq!(sent(&queues), (all, named.clone()));
            send_to_each(&queues, names(letter, 20));
            // The queues that are gone are counted, too.
            for queue in names('m', 40) {
                queues.purge(name(&queue)).ok();
            }
            all += 20;
            assert_eq!(sent(&queues), (all, named.clone()));
        }
        let queues = disk.open().unwrap();
        assert_eq!(sent(&queues), (all, named));
        assert!(queues.counts().get(REST).sent >= 60);
    }
}
