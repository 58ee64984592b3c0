//! Batches of operations under one lock.

use super::*;

#[test]
fn a_batch_ends_when_what_is_received_is_enough() {
    let queues = queues_of(&["abc", "def", "ghi"]);
    let mut batch = (0..3).map(|_| receive()).collect();
    for (bytes_max, want, left) in [(4, 2, 1), (3, 1, 0)] {
        let mut done = Vec::new();
        queues.run(Q, &mut batch, &mut done, bytes_max);
        assert_eq!((done.len(), batch.len()), (want, left));
    }
}

#[test]
fn a_batch_is_acted_on_in_order() {
    let queues = queues_of(&["a"]);
    let other = queues.reserve(Q).unwrap();
    assert_eq!(
        run(&queues, Q, &["b", "", "", "c", "d"]),
        ["2", "b", "-", "3", "4"]
    );
    // What is reserved counts, and comes back to its position.
    queues.lose(other);
    assert_eq!(run(&queues, Q, &["e", "", ""]), ["5", "a", "c"]);
    assert_eq!(all(&queues, Q), ["d", "e"]);
    assert_eq!(run(&queues, name("jobs"), &["", "f", ""]), ["-", "6", "f"]);
    stats_of(&queues, |totals, left| {
        assert_eq!((totals.sent, totals.received, totals.acked), (6, 7, 6));
        assert_eq!((totals.memory_bytes, left.len()), (0, 0));
    });
}

#[test]
fn a_batch_is_subject_to_the_limits() {
    let limits = Limits {
        messages_max: 2,
        ..limits()
    };
    let queues = Queues::in_memory(limits);
    let full = "TooManyMessages(2)";
    let done = run(&queues, Q, &["a", "b", "c", "", "d"]);
    assert_eq!(done, ["1", "2", full, "a", "3"]);
    queues.drain(true);
    assert_eq!(run(&queues, Q, &["", "e", ""]), ["b", "Draining", "d"]);
    queues.drain(false);
    run(&queues, Q, &["f"]);
    queues.count_of(queues.pause(Q, true)).unwrap();
    assert_eq!(run(&queues, Q, &["g", ""]), ["5", "Paused(\"default\")"]);
}

#[test]
fn a_batch_wakes_a_waiter() {
    let queues = queues_of(&[]);
    let (wake, woken) = waiting();
    let waiter = queues.add_waiter(&Q.into(), wake).unwrap();
    let waiting = || stats_of(&queues, |_, queues| queues[0].waiters);
    assert_eq!(waiting(), 1);
    run(&queues, Q, &["a"]);
    assert_eq!(waiting(), 0);
    woken.try_recv().unwrap();
    drop(waiter);
    assert_eq!(all(&queues, Q), ["a"]);
}
