//! Files and folders that are tidied while the disk fails, or the server dies: what was answered is done,
//! and of what was not answered nobody sees half.

use super::failing_disk::has_strace;
use super::uploads::{check_stopped, serve, start_with};
use super::*;
use crate::file::{Http, Reply, ask, get};
use crate::resumable::head;

const FILES: usize = 200;

/// Starts a server that may tidy, and to which this happens in one of these calls of a thread.
#[track_caller]
fn start(root: &Path, calls: &str, what: &str, when: &str) -> Server {
    start_with(root, &["--manage"], calls, what, when)
}

/// Asks with fields; `None` if the server dies first.
fn send(server: &Server, line: &str, fields: &str) -> Option<Reply> {
    let mut http = Http::to(server);
    http.send(head(line, fields, 0));
    http.reply_to(line)
}

/// A root with a file, and a folder with many.
fn grounds() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "file").unwrap();
    for folder in ["many", "other"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    for file in 0..FILES {
        fs::write(root.path().join(format!("many/{file}")), "").unwrap();
    }
    fs::write(root.path().join("other/file"), "other").unwrap();
    root
}

/// The hidden folders in a root.
fn hidden(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let is_hidden = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(".quartet-deleted-")
    };
    entries
        .filter(is_hidden)
        .map(|entry| entry.path())
        .collect()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn no_sync_that_fails_is_a_change() {
    if !has_strace() {
        return;
    }
    let deep = "Depth: infinity\r\n";
    for (line, fields, syncs) in [
        ("DELETE /file", "", 1),
        ("DELETE /many", deep, 1),
        ("MKCOL /new", "", 1),
        ("MOVE /file", "Destination: /new\r\n", 1),
        ("MOVE /file", "Destination: /other/new\r\n", 2),
    ] {
        for when in 1..=syncs + 1 {
            let root = grounds();
            let server = start(root.path(), "fsync", "error=EIO", &when.to_string());
            let reply = send(&server, line, fields).unwrap();
            if when > syncs {
                assert!(matches!(reply.status, 201 | 204), "{}", reply.text());
                continue;
            }
            assert_eq!(reply.status, 500, "{line} {when}");
            assert!(reply.text().contains("not known to be stored"));
            check_stopped(server.wait());
        }
    }
}

#[test]
fn a_folder_whose_deletion_was_killed_is_whole_or_gone() {
    if !has_strace() {
        return;
    }
    for (calls, when, is_whole) in [
        // The attempt to remove it as an empty one, the first file and one in the middle.
        ("unlinkat", "1", Some(true)),
        ("unlinkat", "2", Some(false)),
        ("unlinkat", "100", Some(false)),
        // It is renamed or not, when the signal arrives.
        ("renameat", "1", None),
        ("fsync", "1", Some(false)),
    ] {
        let root = grounds();
        let server = start(root.path(), calls, "signal=KILL", when);
        assert!(send(&server, "DELETE /many", "Depth: infinity\r\n").is_none());
        drop(server);
        let many = root.path().join("many");
        let is_there = many.exists();
        assert!(
            is_whole.is_none_or(|is_whole| is_whole == is_there),
            "{calls} {when}"
        );
        let hidden_before = hidden(root.path());
        assert_eq!(hidden_before.len(), usize::from(!is_there));
        if is_there {
            assert_eq!(entries(&many), FILES);
        } else if when == "100" {
            let left = entries(&hidden_before[0]);
            assert!((1..FILES).contains(&left), "{left}");
        }
        // The next server removes what nobody sees.
        let server = Server::spawn(serve(root.path(), 0));
        let listed = ask(&server, get("/?json")).text();
        assert!(
            !listed.contains("quartet") && listed.contains("\"other\""),
            "{listed}"
        );
        eventually("it is removed", || hidden(root.path()).is_empty());
        assert_eq!(many.exists(), is_there);
        assert_eq!(entries(&root.path().join("other")), 1);
    }
}

#[test]
fn a_folder_that_was_being_replaced_is_there() {
    if !has_strace() {
        return;
    }
    let fields = "Destination: /other\r\nOverwrite: T\r\n";
    // A rename that fails because it is not empty, and the one that hides it after the exchange.
    for (calls, when) in [("renameat", "1"), ("renameat2", "1"), ("renameat", "2")] {
        let root = grounds();
        let server = start(root.path(), calls, "signal=KILL", when);
        assert!(send(&server, "MOVE /many", fields).is_none());
        drop(server);
        let there = entries(&root.path().join("other"));
        assert!(there == 1 || there == FILES, "{there}");
        // The other one is not lost either, unless it was to be.
        let is_exchanged = there == FILES;
        let from = root.path().join("many");
        let left = from.exists().then(|| entries(&from));
        assert!(
            left == Some(if is_exchanged { 1 } else { FILES }) || is_exchanged && left.is_none()
        );
    }
}

/// A network file system, for one.
#[test]
fn a_disk_that_renames_in_no_special_way_is_tidied_too() {
    if !has_strace() {
        return;
    }
    let root = grounds();
    let server = start(root.path(), "renameat2", "error=EINVAL", "1+");
    let rename = |from: &str, to: &str, overwrite: &str| {
        let fields = format!("Destination: {to}\r\nOverwrite: {overwrite}\r\n");
        send(&server, &format!("MOVE {from}"), &fields)
            .unwrap()
            .status
    };
    assert_eq!(rename("/file", "/other/new", "F"), 201);
    assert_eq!(rename("/other/new", "/other/file", "F"), 412);
    assert_eq!(rename("/other", "/moved", "F"), 201);
    assert_eq!(rename("/moved", "/many", "F"), 412);
    assert_eq!(rename("/moved", "/many", "T"), 204);
    assert_eq!(entries(&root.path().join("many")), 2);
    assert_eq!(entries(root.path()), 1);
}
