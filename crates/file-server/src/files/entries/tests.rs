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

fn select(files: &Arc<Files>, selection: Selection) -> Entries {
    let root = TreePath::decode("/").unwrap();
    files.list(&root, selection).unwrap()
}

fn list(files: &Arc<Files>, order: Order) -> Entries {
    let selection = Selection {
        order,
        ..Selection::default()
    };
    select(files, selection)
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
fn a_short_name_does_not_come_before_long_ones() {
    let long = (0..400).map(|number| format!("{number:03}{}", "x".repeat(200)));
    let short = (400..800).map(|number| number.to_string());
    let all: Vec<_> = long.chain(short).collect();
    let (_root, files) = files(all.iter().cloned());
    let held = nearly_all_memory(&files);
    assert_eq!(names_of(list(&files, Order::default())), all);
    drop(held);
}

#[test]
fn a_page_is_a_part_of_the_list() {
    let all: Vec<_> = (0..2300).map(|number| format!("{number:04}")).collect();
    let (root, files) = files(all.iter().cloned());
    fs::create_dir(root.path().join("folder")).unwrap();
    let check = |order: Order, page: usize, is: usize| {
        let list = names_of(list(&files, order));
        let selection = Selection {
            order,
            page: Some(page),
            ..Selection::default()
        };
        let entries = select(&files, selection);
        assert_eq!((entries.page(), entries.names()), (Some(is), list.len()));
        let kept = entries.window.len();
        assert!(kept <= PAGE_ENTRIES, "{kept} of page {page}");
        let end = list.len().min(is * PAGE_ENTRIES);
        let want = &list[(is - 1) * PAGE_ENTRIES..end];
        assert_eq!(names_of(entries), want, "{order:?} {page}");
    };
    for column in [Column::Name, Column::Size, Column::Time] {
        for is_descending in [false, true] {
            let order = Order {
                column,
                is_descending,
            };
            for (page, is) in [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3), (usize::MAX, 3)] {
                check(order, page, is);
            }
            let held = nearly_all_memory(&files);
            check(order, 2, 2);
            drop(held);
        }
    }
    assert_eq!(files.list_limits.change_free(|left| *left), MEMORY_BYTES);
}

#[test]
fn a_search_is_of_all_names_in_any_case() {
    let names = ["Über.TXT", "under", "x.txt", "\u{130}"];
    let many = (0..1200).map(|number| format!("{number:04}.TxT"));
    let all = names.map(str::to_owned).into_iter().chain(many);
    let (_root, files) = files(all);
    let found = |search: &str, page| {
        let selection = Selection {
            search: search.to_lowercase(),
            page,
            ..Selection::default()
        };
        let entries = select(&files, selection);
        (entries.names(), names_of(entries))
    };
    assert_eq!(found("ÜBER", Some(1)), (1, vec!["Über.TXT".to_owned()]));
    assert_eq!(found("er", None).1, ["under", "Über.TXT"]);
    assert_eq!(found("none", Some(1)), (0, vec![]));
    let (names, second) = found(".txt", Some(2));
    assert_eq!((names, second.len()), (1202, 202));
    assert_eq!(second.last().unwrap(), "Über.TXT");
    assert_eq!(found(".txt", None).1.len(), 1202);
}

#[test]
fn a_search_does_not_even_count_a_secret() {
    let (root, files) = files(["a.key".to_owned(), "b.key".to_owned()]);
    std::os::unix::fs::symlink("b.key", root.path().join("c.key")).unwrap();
    let secret = root.path().join("b.key");
    let files = Arc::into_inner(files).unwrap().withhold(vec![secret]);
    let files = Arc::new(files);
    for column in [Column::Name, Column::Size, Column::Time] {
        let selection = Selection {
            order: Order {
                column,
                is_descending: false,
            },
            search: "key".to_owned(),
            page: Some(1),
        };
        let entries = select(&files, selection);
        assert_eq!(entries.names(), 1, "{column:?}");
        assert_eq!(names_of(entries), ["a.key"], "{column:?}");
    }
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
    let mut entries = files.list(&path, Selection::default()).unwrap();
    fs::remove_dir_all(folder).unwrap();
    let error = loop {
        if let Err(error) = entries.batch() {
            break error;
        }
    };
    assert!(matches!(error, FilesError::NotFound), "{error:?}");
    drop(held);
}
