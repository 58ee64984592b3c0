use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::data_folder::folder_of;
use crate::limits::RESERVED_BYTES;
use crate::recovery::LINE_BYTES_MAX;

fn open(path: &Path) -> Result<TextFile, StorageError> {
    let check = |line: &[u8], _| match line {
        b"bad" => Line::Torn,
        b"worse" => Line::Damaged,
        _ => Line::Sound,
    };
    TextFile::open(DataFile::open(path)?, Fsync::Always, check)
}

fn put(file: &mut TextFile, lines: &str) {
    file.pending().extend_from_slice(lines.as_bytes());
    file.commit().unwrap();
}

/// Replaces the file by these lines and the pending ones.
fn rewrite(file: &mut TextFile, lines: &str) -> Result<(), CommitError> {
    let new = file.replacement()?;
    (&**new.file()).write_all(lines.as_bytes()).unwrap();
    file.replace(new)
}

#[test]
fn a_file_cut_anywhere_keeps_its_whole_lines_and_continues() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let whole = "first\n\nthird line\n";
    for cut in 0..=whole.len() {
        let kept = &whole[..whole[..cut].rfind('\n').map_or(0, |at| at + 1)];
        for open in [open, |path: &Path| {
            TextFile::open_at_end(DataFile::open(path)?, Fsync::Always)
        }] {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut file = open(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), kept, "cut at {cut}");
            put(&mut file, "more\n");
            drop(file);
            open(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}more\n"));
        }
    }
}

#[test]
fn a_torn_line_is_cut_off_at_the_end_and_refused_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    fs::write(&path, "one\nbad\n").unwrap();
    open(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
    for damaged in ["one\nbad\nthree\n", "one\nworse\n", "one\nworse"] {
        fs::write(&path, damaged).unwrap();
        match open(&path) {
            Err(StorageError::Damaged { line: 2, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}

#[test]
fn a_line_that_never_ends_takes_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    fs::write(&path, vec![b'x'; LINE_BYTES_MAX as usize + 1]).unwrap();
    open(&path).unwrap_err();
    let file = TextFile::open_at_end(DataFile::open(&path).unwrap(), Fsync::Always).unwrap();
    assert_eq!(file.snapshot().1, 0);
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let mut file = open(&path).unwrap();
    put(&mut file, "one\ntwo\n");
    let (before, bytes) = file.snapshot();
    put(&mut file, "three\n");
    file.pending().extend_from_slice(b"four\n");
    rewrite(&mut file, "new\n").unwrap();
    put(&mut file, "five\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\nfour\nfive\n");
    let mut text = vec![0; bytes as usize];
    before.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(text, b"one\ntwo\n");
}

/// An open file that was moved, its signal, and its new path.
fn moved(dir: &Path) -> (TextFile, ReopenSignal, PathBuf) {
    let path = dir.join("lines");
    let mut file = open(&path).unwrap();
    let signal = file.allow_rotation();
    put(&mut file, "one\n");
    let old = dir.join("lines.1");
    fs::rename(&path, &old).unwrap();
    (file, signal, old)
}

#[track_caller]
fn check_lost(file: &mut TextFile, what: &str) {
    file.pending().extend_from_slice(b"lost\n");
    match file.commit() {
        Err(CommitError::Lost(cause)) => {
            let cause = cause.to_string();
            assert!(cause.contains(what), "{cause}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_another_program_moves_or_changes_loses_the_commit() {
    type Act = fn(&Path, &Path) -> io::Result<()>;
    let gone = "was moved or removed";
    let acts: [(Act, &str); 6] = [
        (|path, other| fs::rename(path, other), gone),
        (|path, _| fs::remove_file(path), gone),
        (|path, other| fs::rename(folder_of(path), other), gone),
        (|path, _| fs::remove_dir_all(folder_of(path)), gone),
        (
            |path, other| fs::write(other, "one\n").and_then(|()| fs::rename(other, path)),
            "was replaced by another file",
        ),
        (
            |path, _| fs::write(path, ""),
            "was changed by another program",
        ),
    ];
    for (act, what) in acts {
        for may_be_moved in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("data");
            fs::create_dir(&folder).unwrap();
            let path = folder.join("lines");
            let mut file = open(&path).unwrap();
            if may_be_moved {
                // No signal will come later, so it is raised now, when the file is in its place.
                file.allow_rotation().raise();
            }
            put(&mut file, "one\n");
            act(&path, &dir.path().join("other")).unwrap();
            if may_be_moved && folder.exists() && !path.exists() && what == gone {
                // A commit waits for a file that was moved, not for one that was removed.
                if file.data.links().unwrap() > 0 {
                    continue;
                }
            }
            check_lost(&mut file, what);
        }
    }
}

#[test]
fn a_file_that_was_moved_is_created_again_on_the_signal() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, signal, old) = moved(dir.path());
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    // The signal comes before the next commit.
    signal.raise();
    file.commit().unwrap();
    assert!(file.was_reopened() && !file.was_reopened());
    put(&mut file, "two\n");
    let path = dir.path().join("lines");
    assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    // After a second signal it stays.
    signal.raise();
    put(&mut file, "three\n");
    assert!(!file.was_reopened());
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\nthree\n");
    // The file that was moved is not locked any more, and the new one is.
    drop(open(&old).unwrap());
    assert!(matches!(open(&path), Err(StorageError::InUse(_))));
}

#[test]
fn a_commit_waits_for_the_signal_and_its_lines_are_in_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, signal, old) = moved(dir.path());
    thread::scope(|scope| {
        let commit = scope.spawn(|| put(&mut file, "two\n"));
        while fs::read(&old).unwrap() != b"one\ntwo\n" {
            thread::yield_now();
        }
        assert!(!commit.is_finished());
        signal.raise();
    });
    assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
    let text = fs::read_to_string(dir.path().join("lines")).unwrap();
    assert_eq!(text, "two\n");
}

#[test]
fn a_file_that_is_moved_again_while_a_commit_waits_has_its_lines_once() {
    const MOVES: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let (mut file, signal, _) = moved(dir.path());
    let path = dir.path().join("lines");
    let started = Instant::now();
    let lines = thread::scope(|scope| {
        let mover = scope.spawn(|| {
            for number in 2..2 + MOVES {
                signal.raise();
                let old = dir.path().join(format!("lines.{number}"));
                while fs::rename(&path, &old).is_err() {
                    // If the writer has given up, the file is not created.
                    assert!(started.elapsed() < Duration::from_secs(20));
                    thread::yield_now();
                }
            }
            signal.raise();
        });
        let mut lines = 0;
        while !mover.is_finished() || lines == 0 {
            put(&mut file, &format!("{lines}\n"));
            lines += 1;
        }
        lines
    });
    let mut there: Vec<u32> = Vec::new();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        there.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    there.sort_unstable();
    assert!(there.into_iter().eq(0..lines));
}

#[test]
fn a_file_that_exists_at_the_signal_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, signal, _) = moved(dir.path());
    fs::write(dir.path().join("lines"), "new\nhalf").unwrap();
    signal.raise();
    put(&mut file, "two\n");
    let text = fs::read_to_string(dir.path().join("lines")).unwrap();
    assert_eq!(text, "new\ntwo\n");
}

#[test]
fn a_replacement_of_a_file_that_was_moved_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, signal, old) = moved(dir.path());
    signal.raise();
    match rewrite(&mut file, "") {
        Err(CommitError::Refused(cause)) => {
            assert!(cause.to_string().ends_with("was reopened; try again"));
        }
        other => panic!("{other:?}"),
    }
    // Also when it is moved while the new contents are written.
    put(&mut file, "two\n");
    let new = file.replacement().unwrap();
    fs::rename(dir.path().join("lines"), &old).unwrap();
    signal.raise();
    file.pending().extend_from_slice(b"lost\n");
    assert!(matches!(file.replace(new), Err(CommitError::Refused(_))));
    put(&mut file, "three\n");
    let text = |path| fs::read_to_string(path).unwrap();
    assert_eq!(text(old), "two\n");
    assert_eq!(text(dir.path().join("lines")), "three\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_file_may_be_rotated_as_soon_as_it_has_replaced_another() {
    const ROUNDS: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let mut file = open(&path).unwrap();
    let signal = file.allow_rotation();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                // A file that was just reopened is empty.
                if fs::metadata(&path).is_ok_and(|there| there.len() > 0) {
                    fs::rename(&path, dir.path().join("lines.1")).unwrap();
                    signal.raise();
                }
            }
        });
        let rewritten: Vec<_> = (0..ROUNDS).map(|_| rewrite(&mut file, "new\n")).collect();
        is_done.store(true, Ordering::SeqCst);
        for outcome in rewritten {
            // It is refused if the old file was moved before.
            assert!(!matches!(outcome, Err(CommitError::Lost(_))), "{outcome:?}");
        }
    });
    put(&mut file, "last\n");
    let text = fs::read_to_string(&path).unwrap();
    assert!(["last\n", "new\nlast\n"].contains(&text.as_str()), "{text}");
}

#[test]
fn contents_that_another_thread_wrote_replace_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let mut file = open(&path).unwrap();
    put(&mut file, "one\n");
    let new = file.replacement().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| (&**new.file()).write_all(b"new\n").unwrap());
        put(&mut file, "two\n");
    });
    file.pending().extend_from_slice(b"three\n");
    file.replace(new).unwrap();
    put(&mut file, "four\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\nthree\nfour\n");
    assert!(matches!(open(&path), Err(StorageError::InUse(_))));
    drop(file);
    assert!(watermark::read(&File::open(&path).unwrap()).unwrap() == 15);
    // A replacement that is dropped leaves nothing.
    let mut file = open(&path).unwrap();
    drop(file.replacement().unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_in_the_way_of_a_replacement_is_named_or_removed_and_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let [path, hidden, other] = ["lines", ".lines.new", "other"].map(|name| dir.path().join(name));
    let mut file = open(&path).unwrap();
    put(&mut file, "one\n");
    fs::write(&other, "another's").unwrap();
    symlink(&other, &hidden).unwrap();
    rewrite(&mut file, "two\n").unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "another's");
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    fs::create_dir(&hidden).unwrap();
    match rewrite(&mut file, "three\n") {
        Err(CommitError::Refused(cause)) => {
            let want = format!("cannot make {}: ", hidden.display());
            assert!(cause.to_string().starts_with(&want), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    put(&mut file, "four\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\nfour\n");
}

#[test]
fn a_link_to_the_file_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("lines"));
    symlink(&real, &link).unwrap();
    let mut file = open(&link).unwrap();
    put(&mut file, "one\n");
    rewrite(&mut file, "new\n").unwrap();
    put(&mut file, "two\n");
    assert_eq!(fs::read_link(&link).unwrap(), real);
    assert_eq!(fs::read_to_string(&real).unwrap(), "new\ntwo\n");
}

#[test]
fn the_watermark_follows_what_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let synced = || watermark::read(&File::open(&path).unwrap()).unwrap();
    // A file that another program wrote has no watermark.
    fs::write(&path, "one\n").unwrap();
    let mut file = open(&path).unwrap();
    assert_eq!(synced(), 4);
    put(&mut file, "two\n");
    assert_eq!(synced(), 4);
    let much = format!("{}\n", "x".repeat(WATERMARK_STEP_BYTES as usize));
    put(&mut file, &much);
    assert_eq!(synced(), 9 + WATERMARK_STEP_BYTES);
    put(&mut file, "three\n");
    // As a kill leaves it, and a clean end.
    std::mem::forget(file);
    assert_eq!(synced(), 9 + WATERMARK_STEP_BYTES);
    File::open(&path).unwrap().unlock().unwrap();
}

#[test]
fn a_clean_end_stores_the_watermark_and_a_lost_commit_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let synced = |path: &Path| watermark::read(&File::open(path).unwrap()).unwrap();
    for fsync in [Fsync::Always, Fsync::Never] {
        let mut file = TextFile::open_at_end(DataFile::open(&path).unwrap(), fsync).unwrap();
        put(&mut file, "one\n");
        drop(file);
        let bytes = fs::metadata(&path).unwrap().len();
        assert_eq!(synced(&path), bytes);
        let mut file = TextFile::open_at_end(DataFile::open(&path).unwrap(), fsync).unwrap();
        put(&mut file, "two\n");
        let other = dir.path().join("other");
        fs::rename(&path, &other).unwrap();
        check_lost(&mut file, "was moved");
        drop(file);
        assert_eq!(synced(&other), bytes);
        fs::rename(&other, &path).unwrap();
    }
    // A file that was cut below its watermark is not trusted up to it.
    fs::write(&path, "one\n").unwrap();
    watermark::write(&File::options().write(true).open(&path).unwrap(), 1000).unwrap();
    std::mem::forget(open(&path).unwrap());
    assert_eq!(synced(&path), 4);
}

#[track_caller]
fn check_space(file: &mut TextFile, bytes: usize, space: Space, want: Result<(), &str>) {
    let checked = file
        .check_space(bytes, space)
        .map_err(|error| error.to_string());
    match (checked, want) {
        (Ok(()), Ok(())) => {}
        (Err(error), Err(want)) if error.ends_with(want) => {}
        (checked, _) => panic!("{checked:?}, not {want:?}"),
    }
}

#[test]
fn a_file_grows_to_its_limit_and_into_the_reserved_space_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let limits = |file_bytes_max| Limits {
        file_bytes_max,
        keep_free_bytes: Some(0),
    };
    let mut file = open(&path).unwrap().with_limits(limits(10));
    put(&mut file, "12345\n");
    let full = Err("is full: its limit is 10 bytes");
    check_space(&mut file, 4, Space::Usual, Ok(()));
    check_space(&mut file, 5, Space::Usual, full);
    let reserved = RESERVED_BYTES as usize + 4;
    check_space(&mut file, reserved, Space::Reserved, Ok(()));
    let full = format!("is full: its limit is {} bytes", RESERVED_BYTES + 10);
    check_space(&mut file, reserved + 1, Space::Reserved, Err(&full));
    // A file that exceeds its limit already has the same reserve.
    drop(file);
    let mut file = open(&path).unwrap().with_limits(limits(3));
    let full = Err("is full: its limit is 3 bytes");
    check_space(&mut file, 1, Space::Usual, full);
    check_space(&mut file, RESERVED_BYTES as usize, Space::Reserved, Ok(()));
}

#[test]
fn a_part_of_the_disk_stays_free_except_for_the_reserved_space() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("lines")).unwrap();
    let mut file = file.with_limits(Limits {
        file_bytes_max: u64::MAX,
        keep_free_bytes: Some(u64::MAX),
    });
    let full = Err("is full: the rest is kept free");
    check_space(&mut file, 1, Space::Usual, full);
    check_space(&mut file, 1, Space::Reserved, Ok(()));
}
