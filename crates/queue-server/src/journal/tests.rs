//! What the journal asks of a database.

use std::sync::Mutex;

use super::*;
use crate::queues::{Limits, Queues};

/// What a database was asked.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// To write a batch, behind which this is the last id that was given.
    Write(MessageId),
    Tidy,
    End(MessageId),
}

/// A database that fails as it is told.
struct Told {
    asked: Arc<Mutex<Vec<Asked>>>,
    fails: fn() -> Option<Failed>,
}

impl Told {
    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }
}

impl Database for Told {
    fn write(&mut self, _: &Part, last_id: MessageId) -> Result<(), Failed> {
        self.note(Asked::Write(last_id));
        (self.fails)().map_or(Ok(()), Err)
    }

    fn tidy(&mut self) -> Result<(), CommitError> {
        self.note(Asked::Tidy);
        Ok(())
    }

    fn needs_maintenance(&self) -> bool {
        true
    }

    fn maintain(&mut self) -> io::Result<()> {
        let failed = (self.fails)();
        failed.map_or(Ok(()), |_| Err(io::ErrorKind::Other.into()))
    }

    fn end(&mut self, last_id: MessageId) {
        self.note(Asked::End(last_id));
    }
}

/// What a database is asked that fails so, of which 7 is the last id.
#[track_caller]
fn check(fails: fn() -> Option<Failed>, act: impl FnOnce(&mut Journal), want: &[Asked]) {
    let queues = Queues::in_memory(Limits::roomy());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Told {
        asked: Arc::clone(&asked),
        fails,
    };
    let mut journal = Journal::new(Box::new(told), queues.live(), 8);
    act(&mut journal);
    drop(journal);
    assert_eq!(*asked.lock().unwrap(), want);
}

fn refused() -> Option<Failed> {
    Some(Failed::Refused(io::ErrorKind::StorageFull.into()))
}

fn lost() -> Option<Failed> {
    Some(Failed::Lost(io::ErrorKind::Other.into()))
}

#[test]
fn a_batch_is_written_also_if_it_is_empty() {
    use Asked::{End, Tidy, Write};
    let commit = |journal: &mut Journal| journal.commit().unwrap();
    check(|| None, commit, &[Write(7), Tidy, End(7)]);
}

#[test]
fn a_database_of_which_a_commit_was_lost_is_not_written_again_at_the_end() {
    use Asked::{End, Write};
    let commit = |journal: &mut Journal| drop(journal.commit().unwrap_err());
    check(refused, commit, &[Write(7), End(7)]);
    check(lost, commit, &[Write(7)]);
    check(lost, |journal| drop(journal.maintain().unwrap_err()), &[]);
}
