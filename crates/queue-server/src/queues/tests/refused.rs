//! What the database refuses to change stays as it was.

use super::*;

#[test]
fn a_delayed_message_stays_delayed_when_what_is_done_to_it_is_refused() {
    for disk in Disk::each(&[]) {
        let queues = disk.open().unwrap();
        let delayed = queues.submit_body(Q, LONG, b"later").unwrap();
        let id = finish(&queues, delayed);
        let second = queues.submit_body(Q, LONG, b"too").unwrap();
        finish(&queues, second);
        disk.refuse(&["UPDATE ON messages", "DELETE ON messages"]);
        let figures = || {
            let state = queues.shared.lock();
            let bytes = state.queues.get(Q.as_str()).unwrap().bytes;
            (bytes, state.common.schedule.len())
        };
        let before = (figures(), queues.stats().totals.memory_bytes);
        let carry_out =
            |prepared: Result<Prepared, QueueError>| queues.carry_out(prepared.unwrap());
        let acts: [&dyn Fn() -> Result<Outcome, QueueError>; 4] = [
            &|| carry_out(queues.delete(Q, id)),
            &|| carry_out(queues.kick_one(Q, id)),
            &|| carry_out(queues.move_one(Q, id, name("other"))),
            &|| queues.carry_out(queues.purge(Q)?),
        ];
        for act in acts {
            let refused = act().unwrap_err();
            assert!(matches!(refused, QueueError::NotStored(_)), "{refused}");
            let peeked = queues.peek_one(Q, id).unwrap();
            assert_eq!(peeked.state, MessageState::Delayed);
            assert!(queues.reserve(Q).is_none(), "it is not ready");
            assert_eq!((figures(), queues.stats().totals.memory_bytes), before);
        }
        disk.refuse(&[]);
        assert_eq!(
            queues
                .do_due(queues.shared.clock.after(2 * LONG), 9)
                .promoted,
            2
        );
        assert_eq!(all(&queues, Q), ["later", "too"]);
        assert_eq!(queues.stats().totals.memory_bytes, 0);
    }
}
