//! Tests of the history.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread;

use proto::history::TEXT_BYTES_MAX;
use tempfile::TempDir;

use super::file_range::{BLOCK_BYTES, FileRange};
use super::number::Number;
use super::*;

fn open(dir: &Path) -> Result<History, StorageError> {
    let limits = Limits::default();
    let mut folder = DataFolder::create(dir)?;
    History::open(&mut folder, Fsync::Always, limits, || {
        panic!("the disk failed")
    })
}

fn add(history: &History, record: &str) -> Result<(), HistoryError> {
    history.append(record, Space::Usual)
}

fn delete(history: &History, line: u64) -> Result<(), HistoryError> {
    history.delete(Lines::one(line), &Condition::default(), || false)
}

struct Dir(TempDir);

impl Dir {
    fn with(text: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), text).unwrap();
        Self(dir)
    }

    fn open(&self) -> History {
        open(self.0.path()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The records in the file, byte for byte, whose numbers grow. Nothing else may be left in the
    /// folder.
    #[track_caller]
    fn text(&self) -> String {
        let names = fs::read_dir(self.0.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let names: Vec<_> = names
            .into_iter()
            .filter(|name| name != LEGACY_LOCK_NAME && name != sequence::FILE_NAME)
            .collect();
        assert_eq!(names, [FILE_NAME]);
        records(&fs::read_to_string(self.path(FILE_NAME)).unwrap())
    }
}

/// The records of a file, whose lines have growing numbers.
#[track_caller]
pub(super) fn records(text: &str) -> String {
    let mut last = 0;
    let record = |line: &'_ str| {
        let (number, _) = line::split(line.as_bytes()).expect("each line has a number");
        assert!(number > last, "{number} is not above {last}");
        last = number;
        line.split_once(' ').unwrap().1.to_owned()
    };
    text.split_inclusive('\n').map(record).collect()
}

/// Reads a snapshot to its end. No piece is too long for a frame.
fn read(mut lines: impl Pieces) -> String {
    let mut text = Vec::new();
    loop {
        let before = text.len();
        lines.put_piece(TEXT_BYTES_MAX, &mut text).unwrap();
        assert!(text.len() - before <= TEXT_BYTES_MAX);
        if text.len() == before {
            break;
        }
    }
    String::from_utf8(text).unwrap()
}

fn numbered(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    (1..)
        .zip(lines)
        .map(|(n, line)| format!("{n} {line}"))
        .collect()
}

#[test]
fn a_record_is_one_line() {
    let dir = Dir::with("old\n");
    let history = dir.open();
    add(&history, "alice 2").unwrap();
    add(&history, "two\nlines\r\\ \u{2028}").unwrap();
    let want = "old\nalice 2\ntwo\\nlines\\r\\\\ \\u{2028}\n";
    assert_eq!(dir.text(), want);
    assert_eq!(read(history.snapshot()), numbered(want));
    drop(history);
    assert_eq!(read(dir.open().snapshot()), numbered(want));
}

#[test]
fn a_missing_folder_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("a/b");
    let history = open(&below).unwrap();
    assert_eq!(read(history.snapshot()), "");
    add(&history, "x").unwrap();
    assert_eq!(fs::read_to_string(below.join(FILE_NAME)).unwrap(), "#1 x\n");
}

#[test]
fn the_path_that_cannot_be_opened_is_named() {
    let dir = Dir::with("");
    let error = |path: &Path| open(path).err().unwrap().to_string();
    let file = dir.path(FILE_NAME);
    assert_eq!(error(&file), format!("cannot make {}", file.display()));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let want = format!("{} is not a regular file", file.display());
    assert_eq!(error(dir.0.path()), want);
}

#[track_caller]
fn check_cut(text: &str, want: &str) {
    let dir = Dir::with(text);
    add(&dir.open(), "x").unwrap();
    assert_eq!(dir.text(), format!("{want}x\n"));
}

#[test]
fn a_last_line_without_its_end_is_cut_off() {
    let long = "y".repeat(3 * BLOCK_BYTES);
    check_cut("a\nhalf a li", "a\n");
    check_cut("a\n", "a\n");
    check_cut("a\n\n", "a\n\n");
    check_cut("half", "");
    check_cut(&long, "");
    check_cut(&format!("a\n{long}"), "a\n");
    check_cut(&format!("{long}\nb"), &format!("{long}\n"));
}

#[track_caller]
fn check_delete(text: &str, line: u64, want: Result<&str, &str>) {
    let dir = Dir::with(text);
    let history = dir.open();
    let deleted = delete(&history, line).map_err(|error| error.to_string());
    assert_eq!(deleted, want.map(drop).map_err(str::to_owned));
    assert_eq!(dir.text(), want.unwrap_or(text));
    add(&history, "next").unwrap();
    assert_eq!(dir.text(), format!("{}next\n", want.unwrap_or(text)));
}

#[test]
fn one_line_is_deleted() {
    check_delete("a\nb\nc\n", 1, Ok("b\nc\n"));
    check_delete("a\nb\nc\n", 2, Ok("a\nc\n"));
    check_delete("a\nb\nc\n", 3, Ok("a\nb\n"));
    check_delete("a\n", 1, Ok(""));
    check_delete("\n\nc\n", 2, Ok("\nc\n"));
    let long = format!("{}\n", "y".repeat(3 * BLOCK_BYTES));
    check_delete(&format!("a\n{long}b\n"), 2, Ok("a\nb\n"));
    check_delete(&format!("a\n{long}b\n"), 3, Ok(&format!("a\n{long}")));
}

#[test]
fn a_line_that_is_not_there_says_how_many_are() {
    check_delete("", 1, Err("There is no line 1; the history has 0 lines."));
    check_delete("a\n", 2, Err("There is no line 2; the history has 1 line."));
    check_delete(
        "a\nb\n",
        0,
        Err("There is no line 0; the history has 2 lines."),
    );
    let most = format!("There is no line {}; the history has 2 lines.", u64::MAX);
    check_delete("a\nb\n", u64::MAX, Err(&most));
}

#[test]
fn clearing_leaves_one_line() {
    let dir = Dir::with("a\nb\n");
    let history = dir.open();
    history
        .clear("alice deleted\nthe history", &Condition::default())
        .unwrap();
    add(&history, "bob 2").unwrap();
    assert_eq!(dir.text(), "alice deleted\\nthe history\nbob 2\n");
}

/// Two lines of alice, and one of bob in between.
const OF_TWO: &str = "t p alice hello\nt p bob hello\nt p alice 2\n";

#[test]
fn a_user_deletes_only_its_own_lines() {
    let dir = Dir::with(OF_TWO);
    let history = dir.open();
    let delete = |line, user| {
        let condition = Condition {
            user: Some(user),
            contains: "",
        };
        let deleted = history.delete(Lines::one(line), &condition, || false);
        deleted.map_err(|error| error.to_string())
    };
    let not_own = |user| {
        Err(format!(
            "Others have written that; '{user}' needs the role admin to delete it."
        ))
    };
    assert_eq!(delete(2, "alice"), not_own("alice"));
    assert_eq!(delete(1, "bob"), not_own("bob"));
    assert_eq!(delete(1, "ali"), not_own("ali"));
    for line in [0, 4, u64::MAX] {
        let none = format!("There is no line {line}; the history has 3 lines.");
        assert_eq!(delete(line, "alice"), Err(none));
    }
    assert_eq!(delete(1, "alice"), Ok(()));
    assert_eq!(delete(1, "bob"), Ok(()));
    assert_eq!(dir.text(), "t p alice 2\n");
    // A line without a user is nobody's, however long it is.
    add(&history, &"x".repeat(9999)).unwrap();
    add(&history, "t p alice hello").unwrap();
    assert_eq!(delete(2, "alice"), not_own("alice"));
    assert_eq!(delete(3, "alice"), Ok(()));
}

#[test]
fn a_user_clears_only_a_history_of_its_own() {
    let dir = Dir::with(OF_TWO);
    let history = dir.open();
    let clear = |user| {
        let condition = Condition {
            user: Some(user),
            contains: "",
        };
        history.clear("t p x cleared", &condition).is_ok()
    };
    assert!(!clear("alice") && !clear("bob"));
    assert_eq!(dir.text(), OF_TWO);
    delete(&history, 2).unwrap();
    assert!(!clear("bob"));
    assert!(clear("alice"));
    assert_eq!(dir.text(), "t p x cleared\n");
}

#[test]
fn lines_are_deleted_if_they_contain_what_they_must() {
    let dir = Dir::with("t p alice backup\nt p bob backup of a\nt p alice done\n");
    let history = dir.open();
    let delete = |first, last, contains| {
        let condition = Condition {
            user: None,
            contains,
        };
        let deleted = history.delete(Lines { first, last }, &condition, || false);
        deleted.map_err(|error| error.to_string())
    };
    let refused = |line, text| {
        Err(format!(
            "Line {line} does not contain '{text}'; nothing was deleted."
        ))
    };
    assert_eq!(delete(3, 3, "backup"), refused(3, "backup"));
    assert_eq!(delete(1, 3, "backup"), refused(3, "backup"));
    // The sequence number is not part of it.
    assert_eq!(delete(1, 1, "#1"), refused(1, "#1"));
    let none = |line| Err(format!("There is no line {line}; the history has 3 lines."));
    assert_eq!(delete(2, 4, "b"), none(4));
    assert_eq!(delete(0, 1, "b"), none(0));
    assert_eq!(delete(2, 4, ""), none(4));
    assert_eq!(delete(1, 2, "backup"), Ok(()));
    assert_eq!(dir.text(), "t p alice done\n");
}

#[test]
fn a_history_without_numbers_gets_some() {
    let path = |dir: &Dir| dir.path(FILE_NAME);
    for (before, after) in [
        ("a\n", "#1 a\n"),
        ("a\nb\n\n", "#1 a\n#2 b\n#3 \n"),
        ("#5 a\n#9 b\n", "#5 a\n#9 b\n"),
        ("#5 a\n#5 b\n#7 c\n", "#8 a\n#9 b\n#10 c\n"),
        ("#5 a\nb\n", "#6 a\n#7 b\n"),
    ] {
        let dir = Dir::with(before);
        drop(dir.open());
        assert_eq!(fs::read_to_string(path(&dir)).unwrap(), after);
    }
}

#[test]
fn a_number_is_never_used_again() {
    let dir = Dir::with("");
    let text = || fs::read_to_string(dir.path(FILE_NAME)).unwrap();
    let history = dir.open();
    for record in ["a", "b", "c"] {
        add(&history, record).unwrap();
    }
    delete(&history, 3).unwrap();
    drop(history);
    let history = dir.open();
    add(&history, "d").unwrap();
    assert_eq!(text(), "#1 a\n#2 b\n#10002 d\n");
    history.clear("e", &Condition::default()).unwrap();
    assert_eq!(text(), "#10003 e\n");
    // As logrotate does.
    fs::rename(dir.path(FILE_NAME), dir.path("history.txt.1")).unwrap();
    history.reopen();
    add(&history, "f").unwrap();
    assert_eq!(text(), "#10004 f\n");
}

#[test]
fn a_rotation_is_no_end_also_if_lines_cannot_be_numbered() {
    let dir = Dir::with("");
    let history = dir.open();
    add(&history, "a").unwrap();
    // Another program puts its own file there, and a folder in the new file's place cannot be overwritten.
    fs::rename(dir.path(FILE_NAME), dir.path("history.txt.1")).unwrap();
    fs::write(dir.path(FILE_NAME), "x\n2026 y\n").unwrap();
    fs::create_dir(dir.path(".history.txt.new")).unwrap();
    history.reopen();
    add(&history, "b").unwrap();
    assert_eq!(history.lines(), 3);
    add(&history, "c d").unwrap();
    assert_eq!(read(history.snapshot()), "1 x\n2 2026 y\n3 b\n4 c d\n");
    fs::remove_dir(dir.path(".history.txt.new")).unwrap();
    fs::remove_file(dir.path("history.txt.1")).unwrap();
    drop(history);
    drop(dir.open());
    assert_eq!(dir.text(), "x\n2026 y\nb\nc d\n");
}

/// Deletes line 3, and this one too while that is being copied; returns the first lines that are left.
fn delete_two_at_once(second: u64) -> String {
    let line = |n| format!("{n} {}\n", "x".repeat(1023));
    let dir = Dir::with((1..=2000).map(line).collect::<String>());
    let history = dir.open();
    thread::scope(|scope| {
        let once = Once::new();
        // The copy asks this now and then.
        let is_stopping = || {
            once.call_once(|| {
                let commits = || format!("{:?}", history.commit_figures().changes);
                let before = commits();
                let history = &history;
                scope.spawn(move || delete(history, second).unwrap());
                while commits() == before {
                    thread::yield_now();
                }
            });
            false
        };
        let first = history.delete(Lines::one(3), &Condition::default(), is_stopping);
        first.unwrap();
        assert!(once.is_completed());
    });
    assert_eq!(history.lines(), 1998);
    let text = dir.text();
    let numbers = text.lines().take(5).map(|line| line.split(' ').next());
    numbers.map(Option::unwrap).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_line_is_deleted_by_the_number_that_readers_see() {
    assert_eq!(delete_two_at_once(5), "1 2 4 6 7");
    assert_eq!(delete_two_at_once(2), "1 4 5 6 7");
    // The line is gone by then, so it means the next one.
    assert_eq!(delete_two_at_once(3), "1 2 5 6 7");
}

#[test]
fn a_stale_new_file_is_overwritten() {
    let dir = Dir::with("a\nb\n");
    fs::write(dir.path(".history.txt.new"), "left by a crash").unwrap();
    delete(&dir.open(), 1).unwrap();
    assert_eq!(dir.text(), "b\n");
}

#[test]
fn the_permissions_stay() {
    let dir = Dir::with("a\n");
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(dir.path(FILE_NAME), mode(0o640)).unwrap();
    delete(&dir.open(), 1).unwrap();
    let metadata = fs::metadata(dir.path(FILE_NAME)).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
}

#[test]
fn a_history_that_cannot_be_replaced_stays() {
    let dir = Dir::with("a\nb\n");
    let history = dir.open();
    // A folder in the new file's place cannot be overwritten.
    fs::create_dir(dir.path(".history.txt.new")).unwrap();
    for failed in [
        delete(&history, 1),
        history.clear("x", &Condition::default()),
    ] {
        assert!(matches!(failed, Err(HistoryError::NotStored(_))));
    }
    fs::remove_dir(dir.path(".history.txt.new")).unwrap();
    assert_eq!(dir.text(), "a\nb\n");
    delete(&history, 1).unwrap();
    assert_eq!(dir.text(), "b\n");
}

#[test]
fn lines_are_numbered_across_pieces() {
    let long = "y".repeat(2 * TEXT_BYTES_MAX + 1);
    for length in [0, 1, 57, 4096, TEXT_BYTES_MAX - 2, TEXT_BYTES_MAX - 1] {
        let line = format!("{}\n", "x".repeat(length));
        let text = format!("{}{long}\n{line}", line.repeat(120));
        let dir = Dir::with(&text);
        assert_eq!(read(dir.open().snapshot()), numbered(&text));
    }
}

#[test]
fn pieces_end_anywhere() {
    // The first piece ends at every place of some line, the numbers grow from one digit to two
    // and three, and the last line has no end.
    for length in TEXT_BYTES_MAX - 100..=TEXT_BYTES_MAX {
        let first = "x".repeat(length);
        let text = format!("{first}\n{}the last", "a line\n\n".repeat(60));
        let lines = (1..).zip(text.split_inclusive('\n'));
        let dir = Dir::with(
            lines
                .map(|(n, line)| format!("#{n} {line}"))
                .collect::<String>(),
        );
        let file = Arc::new(File::open(dir.path(FILE_NAME)).unwrap());
        let range = 0..file.metadata().unwrap().len();
        assert_eq!(
            read(Snapshot::of(FileRange { file, range })),
            numbered(&text)
        );
    }
}

#[test]
fn numbers_grow_by_one() {
    let mut number = Number::new(0);
    for want in 0..=100_001 {
        let mut digits = Vec::new();
        number.put(&mut digits);
        assert_eq!(digits, format!("{want} ").as_bytes());
        let mut same = Vec::new();
        Number::new(want).put(&mut same);
        assert_eq!(same, digits);
        number.count_up();
    }
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let text = "a line\n".repeat(100_000);
    let dir = Dir::with(&text);
    let history = dir.open();
    let snapshot = history.snapshot();
    add(&history, "later").unwrap();
    let with_later = history.snapshot();
    delete(&history, 1).unwrap();
    history
        .clear("alice deleted the history", &Condition::default())
        .unwrap();
    assert_eq!(read(snapshot), numbered(&text));
    assert_eq!(read(with_later), numbered(&format!("{text}later\n")));
    assert_eq!(read(history.snapshot()), "1 alice deleted the history\n");
}

#[test]
fn every_snapshot_is_whole_while_others_append_and_delete() {
    const RECORDS: usize = 200;
    let dir = Dir::with("");
    let history = dir.open();
    thread::scope(|scope| {
        for writer in 0..4 {
            let history = &history;
            scope.spawn(move || {
                for record in 0..RECORDS {
                    add(history, &format!("{writer} {record}")).unwrap();
                    if record % 10 == 9 {
                        delete(history, 1).unwrap();
                    }
                }
            });
        }
        for _ in 0..RECORDS {
            let text = read(history.snapshot());
            let mut last = [None; 4];
            for (n, line) in (1..).zip(text.split_terminator('\n')) {
                let mut words = line.split(' ').map(|word| word.parse::<usize>().unwrap());
                let mut word = || words.next().unwrap();
                assert_eq!(word(), n);
                let (writer, record) = (word(), Some(word()));
                assert!(last[writer] < record, "out of order: {line}");
                last[writer] = record;
            }
        }
    });
    assert_eq!(dir.text().lines().count(), 4 * (RECORDS - RECORDS / 10));
}

#[test]
fn a_follower_that_lags_many_files_behind_leaves_its_own() {
    let dir = Dir::with("a line\n".repeat(10_000));
    let history = dir.open();
    let mut follower = history.follow(1, || {}).unwrap();
    let mut first_shown = || {
        let mut shown = None;
        let text = |event: Event| match event {
            Event::Line { sequence, record } => format!("{sequence} {}", record.escape_ascii()),
            Event::Deleted(Removed { first, last }) => format!("{first}-{last} deleted"),
        };
        let show = |event: Event| {
            shown.get_or_insert_with(|| text(event));
        };
        assert!(follower.next(show).unwrap(), "there is nothing");
        shown.unwrap_or_default()
    };
    let clear = || history.clear("cleared", &Condition::default()).unwrap();
    assert_eq!(first_shown(), "2 a line");
    (0..follower::REPLACED_MAX).for_each(|_| clear());
    let old = first_shown();
    assert!(old.ends_with("a line"), "it reads its own: {old}");
    clear();
    assert_eq!(first_shown(), "1-10000 deleted");
    assert_eq!(first_shown(), "10009 cleared");
}
