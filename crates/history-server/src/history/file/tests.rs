//! Tests of the file and of deletions in it. The test acts as the writer thread and as the requesters
//! that make copies.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use storage::{DataFolder, Fsync, Line};
use tempfile::TempDir;

use super::*;
use crate::HistoryError;
use crate::history::FILE_NAME;
use crate::history::tests::records;

/// The requester of a deletion.
struct Waiter(Receiver<Notice>);

impl Waiter {
    #[track_caller]
    fn copy(&self) -> CopyJob {
        match self.0.try_recv() {
            Ok(Notice::MakeCopy(copy)) => copy,
            Ok(Notice::Done(done)) => panic!("{done:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    /// `None` as long as there is no notice.
    #[track_caller]
    fn done(&self) -> Option<Result<(), String>> {
        match self.0.try_recv() {
            Ok(Notice::Done(done)) => Some(done.map(drop).map_err(|error| error.to_string())),
            Ok(Notice::MakeCopy(_)) => panic!("it is to make a copy"),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("it gets no notice any more"),
        }
    }
}

struct Driven {
    dir: TempDir,
    store: HistoryFile,
}

impl Driven {
    fn with(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, text).unwrap();
        let mut folder = DataFolder::create(dir.path()).unwrap();
        let data = folder.open(FILE_NAME).unwrap();
        let file = TextFile::open(data, Fsync::Never, |_, _| Line::Sound).unwrap();
        let numbering = Numbering {
            lines: text.lines().count() as u64,
            is_broken: !text.is_empty(),
            ..Numbering::default()
        };
        let sequence = Sequence::open(&mut folder, Fsync::Never).unwrap();
        let store = HistoryFile::new(file, &numbering, sequence, Followers::default()).unwrap();
        Self { dir, store }
    }

    fn append(&mut self, line: &str) {
        let record = format!("{line}\n");
        let space = Space::Usual;
        self.store.apply(Change::Append { record, space }).unwrap();
    }

    fn delete(&mut self, line: u64) -> Waiter {
        self.delete_lines(Lines::one(line), None, None).unwrap()
    }

    fn delete_lines(
        &mut self,
        lines: Lines,
        of: Option<Arc<File>>,
        staying_min: Option<u64>,
    ) -> Result<Waiter, Result<u64, HistoryError>> {
        let (sender, receiver) = mpsc::channel();
        let deletion = Change::Delete {
            lines,
            of,
            staying_min,
            notices: sender,
        };
        self.store.apply(deletion).unwrap();
        match receiver.try_recv() {
            Ok(Notice::Done(done)) => Err(done),
            Ok(Notice::MakeCopy(_)) => panic!("it is not committed yet"),
            Err(_) => Ok(Waiter(receiver)),
        }
    }

    /// The file that readers see.
    fn there(&self) -> Option<Arc<File>> {
        Some(Arc::clone(&lock(&self.store.committed).file.file))
    }

    fn clear(&mut self, line: &str) {
        let record = format!("{line}\n");
        self.store
            .apply(Change::Clear { record, only: None })
            .unwrap();
    }

    fn commit(&mut self) {
        self.store.commit().unwrap();
    }

    fn make(&self, copy: &CopyJob) -> FinishedCopy {
        copy.run(&self.store.committed, &|| false)
    }

    /// Makes a copy and has it put in the file's place.
    fn finish(&mut self, copy: &CopyJob) {
        let copied = self.make(copy);
        self.store.apply(Change::Copied(copied)).unwrap();
        self.commit();
    }

    fn text(&self) -> String {
        records(&fs::read_to_string(self.dir.path().join(FILE_NAME)).unwrap())
    }

    fn new_path(&self) -> PathBuf {
        self.dir.path().join(format!(".{FILE_NAME}.new"))
    }

    /// Nothing is pending, and the file is this.
    #[track_caller]
    fn check(&self, want: &str) {
        assert_eq!(self.text(), want);
        assert_eq!(self.store.lines, want.lines().count() as u64);
        assert_eq!(self.store.lines_after_changes(), self.store.lines);
        assert!(!self.new_path().exists());
        let committed = lock(&self.store.committed).clone();
        let bytes = fs::metadata(self.dir.path().join(FILE_NAME)).unwrap().len();
        assert_eq!(committed.file.range, 0..bytes);
        assert_eq!(committed.lines, self.store.lines);
    }
}

/// What happens in a batch.
enum Step {
    Append(&'static str),
    Delete(u64),
    Clear(&'static str),
}

use Step::{Append, Clear, Delete};

/// Any batch of changes leaves what the same changes one by one would leave. `outcomes` says which
/// deletions succeed.
#[track_caller]
fn check_batch(text: &str, steps: &[Step], want: &str, outcomes: &[bool]) {
    let mut driven = Driven::with(text);
    let mut waiters = Vec::new();
    for step in steps {
        match step {
            Append(line) => driven.append(line),
            Delete(line) => waiters.push(driven.delete(*line)),
            Clear(line) => driven.clear(line),
        }
    }
    driven.commit();
    if driven.store.copying.is_some() {
        let copy = waiters[0].copy();
        driven.finish(&copy);
    }
    let done = waiters.iter().map(|waiter| waiter.done().unwrap().is_ok());
    assert_eq!(done.collect::<Vec<_>>(), outcomes);
    driven.check(want);
}

#[test]
fn a_batch_sees_its_own_changes() {
    let abcd = "a\nb\nc\nd\n";
    check_batch(abcd, &[Delete(1), Delete(1), Delete(2)], "c\n", &[true; 3]);
    check_batch(abcd, &[Delete(3), Delete(2), Delete(2)], "a\n", &[true; 3]);
    let steps = [Delete(4), Delete(1), Append("e"), Delete(2)];
    check_batch(abcd, &steps, "b\ne\n", &[true; 3]);
    let steps = [Append("e"), Delete(5), Delete(5), Append("f"), Delete(1)];
    check_batch(abcd, &steps, "b\nc\nd\nf\n", &[true, false, true]);
    let steps = [Delete(2), Clear("x"), Delete(2), Append("y"), Delete(1)];
    check_batch(abcd, &steps, "y\n", &[true, false, true]);
    check_batch(abcd, &[Delete(2), Clear("x")], "x\n", &[true]);
    check_batch(abcd, &[], abcd, &[]);
    check_batch("", &[Delete(1), Append("a")], "a\n", &[false]);
}

#[test]
fn lines_appended_while_a_copy_is_made_are_in_it() {
    let mut driven = Driven::with("a\nb\nc\n");
    let waiter = driven.delete(2);
    driven.commit();
    let copy = waiter.copy();
    driven.append("d");
    driven.commit();
    assert_eq!(driven.text(), "a\nb\nc\nd\n");
    let copied = driven.make(&copy);
    driven.append("e");
    driven.commit();
    assert_eq!(waiter.done(), None, "it is told before it is done");
    driven.append("f");
    driven.store.apply(Change::Copied(copied)).unwrap();
    driven.append("g");
    driven.commit();
    assert_eq!(waiter.done(), Some(Ok(())));
    driven.check("a\nc\nd\ne\nf\ng\n");
}

/// The writer thread is left with little to add, even if much was appended.
#[test]
fn a_copy_catches_up() {
    let mut driven = Driven::with("a\nb\n");
    let waiter = driven.delete(1);
    driven.commit();
    let copy = waiter.copy();
    let line = "x".repeat(1000);
    let mut want = "b\n".to_owned();
    for _ in 0..1000 {
        driven.append(&line);
        want.push_str(&format!("{line}\n"));
    }
    driven.commit();
    let copied = driven.make(&copy);
    let bytes = fs::metadata(driven.dir.path().join(FILE_NAME))
        .unwrap()
        .len();
    assert_eq!(copied.copied.as_ref().ok().unwrap().end, bytes);
    driven.store.apply(Change::Copied(copied)).unwrap();
    driven.commit();
    driven.check(&want);
}

#[test]
fn deletions_requested_meanwhile_share_the_next_copy() {
    let mut driven = Driven::with("a\nb\nc\nd\ne\nf\n");
    let first = driven.delete(2);
    driven.commit();
    let copy = first.copy();
    // They are counted as if the first was done.
    let later = [driven.delete(2), driven.delete(4), driven.delete(4)];
    driven.commit();
    driven.append("g");
    let last = driven.delete(3);
    driven.commit();
    assert!(later.iter().all(|waiter| waiter.done().is_none()));
    driven.finish(&copy);
    assert_eq!(first.done(), Some(Ok(())));
    assert_eq!(driven.text(), "a\nc\nd\ne\nf\ng\n");
    let copy = later[0].copy();
    driven.finish(&copy);
    assert_eq!(later[0].done(), Some(Ok(())));
    assert_eq!(later[1].done(), Some(Ok(())));
    // Behind the first two, there were three lines.
    let none = "There is no line 4; the history has 3 lines.";
    assert_eq!(later[2].done(), Some(Err(none.to_owned())));
    assert_eq!(last.done(), Some(Ok(())));
    driven.check("a\nd\ng\n");
}

#[test]
fn lines_of_a_file_are_found_behind_all_deletions_before() {
    let mut driven = Driven::with("a\nb\nc\nd\ne\nf\ng\n");
    let there = driven.there();
    let first = driven.delete(2);
    driven.commit();
    let copy = first.copy();
    // Of the lines from b to d, c and d are left.
    let lines = Lines { first: 2, last: 4 };
    let next = driven.delete_lines(lines, there.clone(), None).unwrap();
    driven.commit();
    // All of them are deleted by now.
    for lines in [lines, Lines::one(2), Lines { first: 3, last: 4 }] {
        let refused = driven.delete_lines(lines, there.clone(), None);
        assert!(matches!(refused, Err(Err(HistoryError::Meanwhile))));
    }
    let last = driven
        .delete_lines(Lines::one(6), there.clone(), None)
        .unwrap();
    driven.commit();
    driven.finish(&copy);
    assert_eq!(driven.text(), "a\nc\nd\ne\nf\ng\n");
    driven.finish(&next.copy());
    for waiter in [first, next, last] {
        assert_eq!(waiter.done(), Some(Ok(())));
    }
    driven.check("a\ne\ng\n");
    // It is another file now.
    assert!(driven.delete_lines(Lines::one(1), there, None).is_err());
}

#[test]
fn a_user_does_not_wait_for_the_copy_of_the_pruner() {
    let mut driven = Driven::with("a\nb\nc\nd\ne\n");
    let oldest = Lines { first: 1, last: 2 };
    let pruner = driven
        .delete_lines(oldest, driven.there(), Some(1))
        .unwrap();
    driven.commit();
    let cancelled = pruner.copy();
    assert_eq!(cancelled.stopping_wait, Duration::ZERO);
    let user = driven
        .delete_lines(Lines::one(4), driven.there(), None)
        .unwrap();
    driven.commit();
    driven.finish(&cancelled);
    assert_eq!(driven.text(), "a\nb\nc\nd\ne\n");
    let copy = pruner.copy();
    assert_eq!(copy.stopping_wait, STOPPING_WAIT);
    // This one is a user's, too, so it is not cancelled.
    let later = driven.delete(1);
    driven.commit();
    driven.finish(&copy);
    assert_eq!(pruner.done(), Some(Ok(())));
    assert_eq!(user.done(), Some(Ok(())));
    assert_eq!(driven.text(), "c\ne\n");
    driven.finish(&later.copy());
    assert_eq!(later.done(), Some(Ok(())));
    driven.check("e\n");
}

#[test]
fn the_pruner_counts_what_others_are_about_to_delete() {
    let mut driven = Driven::with("a\nb\nc\nd\ne\nf\n");
    let user = driven.delete_lines(Lines { first: 5, last: 6 }, None, None);
    let user = user.unwrap();
    driven.commit();
    let copy = user.copy();
    // It has seen all six.
    let oldest = Lines { first: 1, last: 3 };
    let mut prune = |staying_min| driven.delete_lines(oldest, driven.there(), Some(staying_min));
    assert!(matches!(prune(4), Err(Ok(0))));
    let pruner = prune(3).unwrap();
    driven.commit();
    driven.finish(&copy);
    driven.finish(&pruner.copy());
    assert!(matches!(pruner.0.try_recv(), Ok(Notice::Done(Ok(1)))));
    driven.check("b\nc\nd\n");
}

#[test]
fn clearing_completes_deletions_and_cancels_the_copy() {
    let mut driven = Driven::with("a\nb\nc\n");
    let [first, second] = [driven.delete(1), driven.delete(1)];
    driven.commit();
    let copy = first.copy();
    let third = driven.delete(1);
    driven.clear("x");
    driven.append("y");
    driven.commit();
    for waiter in [&first, &second, &third] {
        assert_eq!(waiter.done(), Some(Ok(())));
    }
    driven.check("x\ny\n");
    let fourth = driven.delete(1);
    driven.commit();
    // The first one still makes its copy, which does no harm.
    driven.finish(&copy);
    assert_eq!(driven.text(), "x\ny\n");
    let copy = fourth.copy();
    driven.finish(&copy);
    assert_eq!(fourth.done(), Some(Ok(())));
    driven.check("y\n");
}

#[test]
fn a_copy_that_fails_refuses_the_deletions_that_counted_on_it() {
    let mut driven = Driven::with("a\nb\nc\n");
    let first = driven.delete(1);
    driven.commit();
    let copy = first.copy();
    let second = driven.delete(1);
    driven.append("d");
    driven.commit();
    let copied = FinishedCopy {
        target: Arc::clone(&copy.target),
        copied: Err(CommitError::Refused(io::ErrorKind::StorageFull.into())),
    };
    driven.store.apply(Change::Copied(copied)).unwrap();
    driven.append("e");
    driven.commit();
    for waiter in [first, second] {
        let refused = "The request is not stored: no storage space.";
        assert_eq!(waiter.done(), Some(Err(refused.to_owned())));
    }
    driven.check("a\nb\nc\nd\ne\n");
}

#[test]
fn what_has_grown_meanwhile_is_not_cleared() {
    let mut driven = Driven::with("a\n");
    let only = lock(&driven.store.committed).file.clone();
    driven.append("b");
    driven.commit();
    let (sender, refusals) = mpsc::channel();
    let clear = Change::Clear {
        record: "cleared\n".to_owned(),
        only: Some((only, sender)),
    };
    driven.store.apply(clear).unwrap();
    driven.commit();
    let refusal = refusals.try_recv();
    assert!(matches!(
        refusal,
        Ok(Notice::Done(Err(HistoryError::Meanwhile)))
    ));
    driven.check("a\nb\n");
}

#[test]
fn clearing_that_fails_leaves_the_deletions_pending() {
    let mut driven = Driven::with("a\nb\nc\n");
    let waiter = driven.delete(1);
    driven.commit();
    let cancelled = waiter.copy();
    // A folder in the new file's place cannot be overwritten.
    fs::remove_file(driven.new_path()).unwrap();
    fs::create_dir(driven.new_path()).unwrap();
    driven.clear("x");
    match driven.store.commit() {
        Err(CommitError::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
    fs::remove_dir(driven.new_path()).unwrap();
    driven.finish(&cancelled);
    // The folder was in the way of the next copy, too.
    assert!(matches!(waiter.done(), Some(Err(_))));
    driven.check("a\nb\nc\n");
}

#[test]
fn after_a_lost_commit_no_requester_waits_for_ever() {
    let mut driven = Driven::with("a\nb\nc\n");
    let [first, second] = [driven.delete(1), driven.delete(1)];
    driven.commit();
    let copy = first.copy();
    let copied = FinishedCopy {
        target: copy.target,
        copied: Err(CommitError::Lost(io::ErrorKind::Other.into())),
    };
    driven.store.apply(Change::Copied(copied)).unwrap();
    let third = driven.delete(1);
    driven.store.commit().unwrap_err();
    for waiter in [first, second, third] {
        match waiter.0.try_recv() {
            Err(TryRecvError::Disconnected) => {}
            _ => panic!("it may still get a notice"),
        }
    }
}

/// Pseudo-random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// The expected history.
#[derive(Default)]
struct Model {
    /// The lines after all changes so far.
    lines: Vec<String>,
    /// The lines that are deleted or will be.
    going: HashSet<String>,
}

/// A deletion that is pending, and whether the line exists.
type Deleting = (Waiter, bool);

/// Receives the notices; returns the copies to make. What is refused is undone.
fn receive(driven: &Driven, deleting: &mut Vec<Deleting>, model: &mut Model) -> Vec<CopyJob> {
    let mut copies = Vec::new();
    let mut refused = false;
    deleting.retain(|(waiter, exists)| {
        loop {
            match waiter.0.try_recv() {
                Ok(Notice::MakeCopy(copy)) => copies.push(copy),
                Ok(Notice::Done(Ok(_))) => assert!(exists),
                Ok(Notice::Done(Err(HistoryError::NoSuchLine { .. }))) => assert!(!exists),
                Ok(Notice::Done(Err(_))) => refused = true,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    });
    let text = driven.text();
    if refused {
        assert!(deleting.is_empty(), "some were refused, and not all");
        model.lines = text.lines().map(str::to_owned).collect();
        model.going.clear();
    }
    if deleting.is_empty() {
        assert_eq!(text.lines().collect::<Vec<_>>(), model.lines);
    }
    // Nothing is missing that was not deleted, and nothing is there that never was.
    let staying = text.lines().filter(|line| !model.going.contains(*line));
    assert!(staying.eq(&model.lines), "{text}");
    copies
}

/// Appends, deletions and clearings in any order, while copies are made, cancelled and refused.
#[test]
fn any_interleaving_leaves_what_the_changes_leave_one_by_one() {
    const ROUNDS: u64 = 40;
    const STEPS: u64 = 60;
    for round in 0..ROUNDS {
        let mut dice = Dice(round);
        let mut model = Model::default();
        let old: Vec<_> = (0..dice.below(8)).map(|n| format!("old {n}")).collect();
        let text: String = old.iter().map(|line| format!("{line}\n")).collect();
        model.lines = old;
        let mut driven = Driven::with(&text);
        let mut deleting = Vec::new();
        let mut copies: Vec<CopyJob> = Vec::new();
        for step in 0..STEPS {
            let line = format!("line {step}");
            match dice.below(12) {
                0..=3 => {
                    driven.append(&line);
                    model.lines.push(line);
                }
                4..=6 => {
                    let line = dice.below(model.lines.len() as u64 + 2);
                    let exists = (1..=model.lines.len() as u64).contains(&line);
                    if exists {
                        let gone = model.lines.remove(line as usize - 1);
                        model.going.insert(gone);
                    }
                    deleting.push((driven.delete(line), exists));
                }
                7 if dice.below(4) == 0 => {
                    driven.clear(&line);
                    model.going.extend(model.lines.drain(..));
                    model.lines.push(line);
                }
                7 => {
                    // Lines as a reader sees them, some of which may be deleted by now.
                    let there = driven.text();
                    let there: Vec<_> = there.lines().collect();
                    let first = dice.below(there.len() as u64 + 1) as usize;
                    let last = (first + dice.below(3) as usize).min(there.len());
                    if first == last {
                        continue;
                    }
                    let lines = Lines {
                        first: first as u64 + 1,
                        last: last as u64,
                    };
                    let is_pruner = dice.below(2) == 0;
                    let waiter = driven.delete_lines(lines, driven.there(), is_pruner.then_some(0));
                    let is_meant = |line: &mut String| there[first..last].contains(&line.as_str());
                    let gone: Vec<_> = model.lines.extract_if(.., is_meant).collect();
                    assert_eq!(waiter.is_ok(), !gone.is_empty());
                    if let Ok(waiter) = waiter {
                        deleting.push((waiter, true));
                    }
                    model.going.extend(gone);
                }
                8 if !copies.is_empty() => {
                    let copy = copies.swap_remove(dice.below(copies.len() as u64) as usize);
                    let mut copied = driven.make(&copy);
                    if dice.below(5) == 0 {
                        copied.copied = Err(CommitError::Refused(io::ErrorKind::Other.into()));
                    }
                    driven.store.apply(Change::Copied(copied)).unwrap();
                }
                _ => {
                    driven.commit();
                    copies.extend(receive(&driven, &mut deleting, &mut model));
                }
            }
        }
        // The end of the first copy may start a second one.
        for _ in 0..3 {
            driven.commit();
            copies.extend(receive(&driven, &mut deleting, &mut model));
            for copy in std::mem::take(&mut copies) {
                driven.finish(&copy);
                copies.extend(receive(&driven, &mut deleting, &mut model));
            }
        }
        assert!(
            deleting.is_empty(),
            "a requester still waits in round {round}"
        );
        let want: String = model.lines.iter().map(|line| format!("{line}\n")).collect();
        driven.check(&want);
    }
}
