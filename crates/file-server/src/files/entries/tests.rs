//! The order of the entries, with much memory and with little.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;
use crate::files::list_limits::{ListLimits, MEMORY_BYTES};

fn files(names: impl IntoIterator<Item = String>) -> (TempDir, Arc<Files>) {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        fs::write(root.path().join(name), "").unwrap();
    }
    let files = Files::open(root.path(), 0, Duration::ZERO).unwrap();
    (root, Arc::new(files))
}

fn list(files: &Arc<Files>, order: Order) -> Entries {
    let root = TreePath::decode("/").unwrap();
    files.list(&root, order).unwrap()
}

fn names_of(mut entries: Entries) -> Vec<String> {
    let mut names = Vec::new();
    while !entries.is_at_end() {
        let batch = entries.batch().unwrap().into_iter();
        names.extend(batch.map(|entry| entry.name.into_string().unwrap()));
    }
    assert!(entries.is_complete());
    names
}

/// Reserves so much memory that the next window has the least.
fn nearly_all_memory(files: &Files) -> Vec<Memory> {
    let windows = std::iter::repeat_with(|| files.list_limits.reserve());
    windows
        .take_while(|window| window.bytes > WINDOW_BYTES_MIN)
        .collect()
}

#[test]
fn many_lists_at_once_have_memory_for_thousands_of_names_each() {
    let limits = Arc::new(ListLimits::default());
    let windows: Vec<_> = (0..40).map(|_| limits.reserve()).collect();
    assert!(windows.iter().all(|window| window.bytes > 256 << 10));
    assert!(windows.iter().map(|window| window.bytes).sum::<usize>() < MEMORY_BYTES);
    drop(windows);
    assert_eq!(limits.change_free(|left| *left), MEMORY_BYTES);
}

#[test]
fn folders_come_first_and_the_rest_in_the_order() {
    let (root, files) = files([]);
    for (name, bytes, modified) in [("b", 1, 9), ("a", 2, 8), ("c", 3, 7)] {
        let path = root.path().join(name);
        fs::write(&path, vec![b'x'; bytes]).unwrap();
        let modified = UNIX_EPOCH + Duration::from_secs(modified);
        fs::File::open(path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
    }
    fs::create_dir(root.path().join("z")).unwrap();
    for (column, is_descending, want) in [
        (Column::Name, false, "zabc"),
        (Column::Name, true, "zcba"),
        (Column::Size, false, "zbac"),
        (Column::Time, false, "zcab"),
        (Column::Size, true, "zcab"),
    ] {
        let order = Order {
            column,
            is_descending,
        };
        assert_eq!(names_of(list(&files, order)).concat(), want, "{order:?}");
    }
}

#[test]
fn with_little_memory_the_list_is_the_same() {
    let all: Vec<_> = (0..1500).map(|number| format!("{number:04}")).collect();
    let (root, files) = files(all.iter().cloned());
    fs::write(root.path().join("0123"), "longest").unwrap();
    for column in [Column::Name, Column::Size, Column::Time] {
        let order = Order {
            column,
            is_descending: column == Column::Size,
        };
        let much = names_of(list(&files, order));
        assert_eq!(much.len(), all.len());
        let held = nearly_all_memory(&files);
        let mut little = list(&files, order);
        assert!(little.window.len() < 1000 && little.last.is_some());
        assert_eq!(little.batch().unwrap().len(), BATCH_ENTRIES);
        // Memory that is free again is used.
        drop(held);
        assert_eq!(names_of(little), much[BATCH_ENTRIES..]);
    }
    assert_eq!(files.list_limits.change_free(|left| *left), MEMORY_BYTES);
}

#[test]
fn a_file_that_is_gone_is_not_listed() {
    let (root, files) = files(["a".to_owned(), "b".to_owned()]);
    let mut entries = list(&files, Order::default());
    fs::remove_file(root.path().join("a")).unwrap();
    let batch = entries.batch().unwrap();
    assert_eq!(batch.len(), 1);
    assert!(entries.is_at_end());
    assert_eq!(entries.batch().unwrap(), []);
}

#[test]
fn a_folder_that_is_removed_is_an_error_and_no_end() {
    let (root, files) = files([]);
    let folder = root.path().join("f");
    fs::create_dir(&folder).unwrap();
    for number in 0..2000 {
        fs::write(folder.join(number.to_string()), "").unwrap();
    }
    let held = nearly_all_memory(&files);
    let path = TreePath::decode("/f/").unwrap();
    let mut entries = files.list(&path, Order::default()).unwrap();
    fs::remove_dir_all(folder).unwrap();
    let error = loop {
        if let Err(error) = entries.batch() {
            break error;
        }
    };
    assert!(matches!(error, FilesError::NotFound), "{error:?}");
    drop(held);
}
