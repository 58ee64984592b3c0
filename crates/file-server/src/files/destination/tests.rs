use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::Barrier;
use std::thread;

use super::*;
use crate::files::tests::{DAY, Tree, tree, version};

/// How often a race is run.
const ROUNDS: usize = 200;

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_link_inside_the_root_is_followed_and_stays() {
    let tree = tree();
    tree.link("a.txt", "inside");
    tree.link("../inside", "site/twice");
    tree.link("site/./../site/gone", "dangling");
    for path in ["/inside", "/site/twice"] {
        tree.check_upload(path, "saved");
        tree.check("/a.txt", &format!("new {path}"));
    }
    tree.check_upload("/dangling", "saved");
    tree.check("/site/gone", "new /dangling");
    for link in ["inside", "site/twice", "dangling"] {
        assert!(tree.root().join(link).is_symlink(), "{link}");
    }
}

#[test]
fn only_regular_files_are_replaced() {
    let tree = tree();
    tree.link("../outside/secret", "out");
    tree.link("../outside/gone", "dangling-out");
    tree.link("/dev/null", "null");
    tree.link("loop", "loop");
    tree.link("fifo", "to-fifo");
    tree.link(".quartet-upload-1", "to-ours");
    tree.link("site", "to-folder");
    let fifo = tree.root().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let _socket = UnixListener::bind(tree.root().join("socket")).unwrap();
    let before = tree.listing();
    for path in [
        "/out",
        "/dangling-out",
        "/null",
        "/loop",
        "/fifo",
        "/to-fifo",
        "/to-ours",
        "/socket",
    ] {
        tree.check_upload(path, "NotAFile");
    }
    tree.check_upload("/to-folder", "IsFolder");
    assert_eq!(tree.listing(), before);
    let secret = fs::read_to_string(tree.top.path().join("outside/secret"));
    assert_eq!(secret.unwrap(), "outside/secret");
}

#[test]
fn a_write_protected_file_is_not_replaced() {
    let tree = tree();
    let file = tree.root().join("a.txt");
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    tree.check_upload("/a.txt", "WriteProtected");
    tree.check("/a.txt", "root/a.txt");
    // Also if it becomes write-protected during the upload.
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let mut upload = tree.begin("/a.txt").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    assert!(matches!(
        upload.commit(|_| true),
        Err(FilesError::WriteProtected)
    ));
    tree.check("/a.txt", "root/a.txt");
}

#[test]
fn the_mode_and_the_owner_of_a_replaced_file_are_kept() {
    let tree = tree();
    let file = tree.root().join("a.txt");
    for mode in [0o755, 0o600, 0o200, 0o666, 0o640] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        tree.check_upload("/a.txt", "saved");
        assert_eq!(mode_of(&file), mode, "{mode:o}");
    }
    // Only root may give files to other users.
    if chown(&file, Some(4711), Some(4712)).is_ok() {
        tree.check_upload("/a.txt", "saved");
        let there = fs::metadata(&file).unwrap();
        assert_eq!((there.uid(), there.gid()), (4711, 4712));
    }
    fs::set_permissions(&file, Permissions::from_mode(0o6755)).unwrap();
    tree.check_upload("/a.txt", "saved");
    assert_eq!(mode_of(&file), 0o755, "not the rights of another");
}

#[test]
fn a_new_file_gets_the_mode_of_the_umask_with_its_name() {
    let tree = tree();
    let usual = tree.root().join("usual");
    fs::write(&usual, "").unwrap();
    let mut upload = tree.begin("/x/new").unwrap();
    let temporary = tree.root().join(upload.resource());
    assert_eq!(mode_of(&temporary), 0o600);
    upload.commit(|_| true).unwrap();
    assert_eq!(mode_of(&tree.root().join("x/new")), mode_of(&usual));
}

/// Sets an access control list of tags and rights; returns whether this disk has such lists.
fn set_acl(path: &Path, kind: &str, entries: &[(u8, u8)]) -> bool {
    // Version 2.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, rights) in entries {
        let id = if *tag == NAMED_USER { 1 } else { 0xff };
        acl.extend([*tag, 0, *rights, 0, id, id, id, id]);
    }
    let file = fs::File::open(path).unwrap();
    let name = format!("system.posix_acl_{kind}");
    let set = rustix::fs::fsetxattr(&file, name, &acl, rustix::fs::XattrFlags::empty());
    if set.is_err() {
        eprintln!("skipped: no access control lists here");
    }
    set.is_ok()
}

/// The tag of a named user.
const NAMED_USER: u8 = 2;

/// The access control list of a file.
fn acl_bytes(path: &Path) -> Vec<u8> {
    let file = fs::File::open(path).unwrap();
    let mut acl = vec![0; 256];
    let bytes = rustix::fs::fgetxattr(&file, "system.posix_acl_access", &mut acl[..]);
    acl.truncate(bytes.unwrap_or(0));
    acl
}

#[test]
fn the_access_control_list_of_a_replaced_file_is_kept() {
    let tree = tree();
    let file = tree.root().join("a.txt");
    // A named user may write, and the group may not even read: the mode shows the mask.
    let entries = [(1, 6), (NAMED_USER, 6), (4, 0), (0x10, 6), (0x20, 0)];
    if !set_acl(&file, "access", &entries) {
        return;
    }
    let before = (mode_of(&file), acl_bytes(&file));
    assert_eq!(before.0, 0o660);
    tree.check_upload("/a.txt", "saved");
    assert_eq!((mode_of(&file), acl_bytes(&file)), before);
    // A file without a list gets none, whatever the folder gives new files.
    let plain = tree.root().join("plain");
    fs::write(&plain, "").unwrap();
    fs::set_permissions(&plain, Permissions::from_mode(0o640)).unwrap();
    assert!(set_acl(&tree.root(), "default", &entries));
    tree.check_upload("/plain", "saved");
    assert_eq!((mode_of(&plain), acl_bytes(&plain)), (0o640, Vec::new()));
}

#[test]
fn the_default_list_of_a_folder_is_obeyed() {
    let tree = tree();
    let folder = tree.root().join("empty");
    // User and group have read and write, and others nothing.
    if !set_acl(&folder, "default", &[(1, 6), (4, 6), (0x20, 0)]) {
        return;
    }
    fs::write(folder.join("usual"), "").unwrap();
    assert_eq!(mode_of(&folder.join("usual")), 0o660);
    tree.check_upload("/empty/new", "saved");
    assert_eq!(mode_of(&folder.join("new")), 0o660);
    tree.check_upload("/empty/x/new", "saved");
    assert_eq!(mode_of(&folder.join("x/new")), 0o660);
}

/// Two servers of one root.
fn two(tree: &Tree) -> [Files; 2] {
    [0; 2].map(|_| Files::open(&tree.root(), 0, DAY).unwrap())
}

/// Commits four uploads, two of each server, to one path at the same moment, if `is_wanted` agrees;
/// returns how many were committed.
fn race(
    servers: &[Files; 2],
    path: &str,
    is_wanted: impl Fn(Option<&Version>) -> bool + Sync,
) -> usize {
    let path = TreePath::decode(path).unwrap();
    let start = Barrier::new(4);
    let try_one = |number: usize| {
        let mut upload = servers[number % 2].upload(&path, 0).unwrap();
        upload.write(&[b'0' + number as u8]).unwrap();
        start.wait();
        match upload.commit(&is_wanted) {
            Ok(_) => 1,
            Err(FilesError::Changed | FilesError::InUse) => 0,
            Err(error) => panic!("{error:?}"),
        }
    };
    thread::scope(|scope| {
        let try_one = &try_one;
        let all = [0, 1, 2, 3].map(|number| scope.spawn(move || try_one(number)));
        all.into_iter().map(|one| one.join().unwrap()).sum()
    })
}

/// The time may differ: one from the future, be it by a tick of the clock, counts as now.
fn is_same(there: Option<&Version>, before: Option<&Version>) -> bool {
    there.map(|version| &version.etag) == before.map(|version| &version.etag)
}

#[test]
fn of_many_uploads_that_create_a_file_one_wins() {
    let tree = tree();
    let servers = two(&tree);
    for round in 0..ROUNDS {
        let path = format!("/new/{round}/file");
        assert_eq!(race(&servers, &path, |there| there.is_none()), 1, "{path}");
    }
}

#[test]
fn of_many_uploads_that_replace_a_version_one_wins() {
    let tree = tree();
    let servers = two(&tree);
    for round in 0..ROUNDS {
        let before = version(&servers[0], "/a.txt").unwrap();
        let is_wanted = |there: Option<&Version>| is_same(there, before.as_ref());
        assert_eq!(race(&servers, "/a.txt", is_wanted), 1, "{round}");
    }
}

#[test]
fn of_many_uploads_to_one_server_one_wins_and_the_others_are_told() {
    let tree = tree();
    for round in 0..ROUNDS {
        let before = version(&tree.files, "/a.txt").unwrap();
        let start = Barrier::new(4);
        let replace = || {
            let mut upload = tree.begin("/a.txt").unwrap();
            start.wait();
            upload.commit(|there| is_same(there, before.as_ref()))
        };
        let replaced: Vec<_> = thread::scope(|scope| {
            let all = [0; 4].map(|_| scope.spawn(replace));
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let is_told = |done: &&Result<_, _>| matches!(done, Err(FilesError::Changed));
        let told = replaced.iter().filter(is_told).count();
        assert_eq!(told, 3, "{round}: {replaced:?}");
    }
}

#[test]
fn an_interrupted_upload_removes_no_folder_of_another() {
    let tree = tree();
    let mut first = tree.begin("/x/y/1").unwrap();
    let mut second = tree.begin("/x/y/2").unwrap();
    first.make_missing().unwrap();
    assert!(tree.root().join("x/y").exists());
    drop(first);
    assert!(!tree.root().join("x").exists());
    second.commit(|_| true).unwrap();
    tree.check("/x/y/2", "new /x/y/2");
}

#[test]
fn a_server_that_only_creates_replaces_nothing() {
    let mut tree = tree();
    let files = Files::open(&tree.root(), 0, DAY).unwrap();
    tree.files = Arc::new(files.create_only(true));
    tree.link("a.txt", "link");
    for path in ["/a.txt", "/link", "/site/index.html"] {
        tree.check_upload(path, "Exists");
    }
    tree.check_upload("/new", "saved");
    let mut upload = tree.begin("/other").unwrap();
    fs::write(tree.root().join("other"), "before").unwrap();
    assert!(matches!(upload.commit(|_| true), Err(FilesError::Exists)));
    tree.check("/other", "before");
}
