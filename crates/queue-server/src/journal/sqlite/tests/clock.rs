//! What time it is after a restart, of the server or of the machine.

use super::*;

#[test]
fn an_expiry_goes_on_while_the_machine_is_off_and_is_bounded_however_far_ahead_the_clock_was() {
    let with_expiry = || {
        let disk = Disk::new();
        let queues = disk.open();
        let properties = Properties {
            expiry_millis: 7_200_000,
            ..Properties::default()
        };
        finish(&queues, send_with(&queues, &properties, b"x"));
        drop(queues);
        disk
    };
    let disk = with_expiry();
    disk.age(HOUR);
    drop(disk.open());
    let left_then = left(&disk, "expires");
    assert!(left_then <= HOUR && left_then > HOUR / 2, "{left_then:?}");
    let disk = with_expiry();
    note(&disk, |state| {
        state.note.clock -= crate::clock::micros(3650 * DAY);
    });
    for _ in 0..2 {
        drop(disk.open());
        let left = left(&disk, "expires");
        assert!(left <= 2 * HOUR && left > HOUR, "{left:?}");
    }
}

/// How much of the only lease or delay in a database is left, by the clock of its last run.
#[track_caller]
fn left(disk: &Disk, due: &str) -> Duration {
    let left = format!("SELECT {due} - clock FROM messages, state");
    Duration::from_micros(disk.number(&left).cast_unsigned())
}

#[test]
fn after_a_restart_of_the_machine_a_lease_lasts_as_long_as_was_left_of_it() {
    for by in [Duration::ZERO, HOUR, DAY, 400 * DAY] {
        let disk = Disk::new();
        let queues = disk.open();
        send(&queues, b"x");
        lease(&queues, 2 * HOUR);
        drop(queues);
        disk.age(by);
        drop(disk.open());
        let left = left(&disk, "until");
        assert!(
            left <= 2 * HOUR && left > HOUR + HOUR / 2,
            "{by:?}: {left:?}"
        );
    }
}

#[test]
fn after_a_restart_of_the_machine_a_delay_has_continued() {
    let disk = Disk::new();
    let queues = disk.open();
    finish(&queues, queues.submit_body(Q, 2 * HOUR, b"x").unwrap());
    drop(queues);
    disk.age(HOUR);
    drop(disk.open());
    let now = left(&disk, "place");
    assert!(now <= HOUR && now > HOUR / 2, "{now:?}");
}

#[test]
fn what_is_left_is_bounded_however_far_ahead_the_clock_was() {
    let disk = Disk::new();
    let queues = disk.open();
    finish(&queues, queues.submit_body(Q, 2 * HOUR, b"x").unwrap());
    drop(queues);
    // The queues' clock ran ten years ahead, and what was noted of that is lost.
    note(&disk, |state| {
        state.note.clock -= crate::clock::micros(3650 * DAY);
    });
    for _ in 0..2 {
        drop(disk.open());
        let left = left(&disk, "place");
        assert!(left <= 2 * HOUR && left > HOUR, "{left:?}");
    }
}

#[test]
fn the_clock_does_not_follow_the_systems() {
    let disk = Disk::new();
    drop_used(&disk);
    let before = tables::read_state(&disk.sql()).unwrap().unwrap().note;
    // It was set back ten years, or forward, while the server did not run.
    for wall in [0, u64::MAX / 4] {
        note(&disk, |state| state.note.moment.wall = wall);
        drop_used(&disk);
        let Note { clock, .. } = tables::read_state(&disk.sql()).unwrap().unwrap().note;
        let passed = Duration::from_micros(clock - before.clock);
        assert!(passed < Duration::from_secs(60), "{passed:?}");
    }
}
