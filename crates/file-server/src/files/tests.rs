use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proto::http::conditional::Version;
use tempfile::TempDir;

use super::entries::*;
use super::temporary::is_reserved;
use super::*;
use crate::error::FilesError;
use crate::path::TreePath;

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn no_abort() -> Abort {
    Box::new(|| {})
}

/// The path of the file in the head of a request.
pub(super) fn target_of(head: &[u8]) -> Option<TreePath> {
    let line = std::str::from_utf8(head).ok()?;
    TreePath::decode(line.split(' ').nth(1)?).ok()
}

/// The version that an upload to this path would replace.
pub(super) fn version(files: &Files, path: &str) -> Result<Option<Version>, FilesError> {
    let upload = files.upload(&TreePath::decode(path).unwrap(), 0)?;
    Ok(upload.replaced())
}

/// A temporary file of a killed server.
const LEFTOVER: &str = "root/site/.quartet-upload-67e55044-10b1-426f-9247-bb680e5fe0c8";

/// `outside` is beside the root and must never be reached.
pub(super) struct Tree {
    pub(super) top: TempDir,
    pub(super) files: Arc<Files>,
}

pub(super) fn tree() -> Tree {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("root");
    for folder in ["outside", "root/site", "root/empty", "root/odd/index.html"] {
        fs::create_dir_all(top.path().join(folder)).unwrap();
    }
    for file in [
        "outside/secret",
        "root/a.txt",
        "root/site/index.html",
        "root/site/ä b",
        LEFTOVER,
    ] {
        fs::write(top.path().join(file), file).unwrap();
    }
    let files = Arc::new(Files::open(&root, 0, DAY).unwrap());
    Tree { top, files }
}

impl Tree {
    fn list(&self, order: Order, path: &str) -> Vec<Entry> {
        let path = TreePath::decode(path).unwrap();
        let selection = Selection {
            order,
            ..Selection::default()
        };
        let mut entries = self.files.list(&path, selection).unwrap();
        let batch = entries.batch().unwrap();
        assert!(entries.is_at_end());
        batch
    }

    /// The names in the list of a folder, in order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = self.list(Order::default(), path).into_iter();
        entries
            .map(|entry| entry.name.into_string().unwrap())
            .collect()
    }

    pub(super) fn root(&self) -> PathBuf {
        self.top.path().join("root")
    }

    pub(super) fn link(&self, target: &str, link: &str) {
        symlink(target, self.root().join(link)).unwrap();
    }

    /// The file that a GET of the path would send.
    pub(super) fn get(&self, path: &str) -> Result<String, FilesError> {
        match self.files.find(&TreePath::decode(path).unwrap())? {
            Found::FolderWithoutSlash { .. } => Ok("to the slash".to_owned()),
            Found::Folder => Ok("a folder".to_owned()),
            Found::File(FoundFile { file, identity, .. }) => {
                let mut text = String::new();
                (&file)
                    .take(identity.bytes())
                    .read_to_string(&mut text)
                    .unwrap();
                Ok(text)
            }
        }
    }

    #[track_caller]
    pub(super) fn check(&self, path: &str, want: &str) {
        let got = self.get(path).unwrap_or_else(|error| format!("{error:?}"));
        assert_eq!(got, want, "{path}");
    }

    pub(super) fn begin(&self, path: &str) -> Result<Upload<'_>, FilesError> {
        let mut upload = self.files.upload(&TreePath::decode(path).unwrap(), 0)?;
        upload.write(b"new ")?;
        upload.write(path.as_bytes())?;
        Ok(upload)
    }

    #[track_caller]
    pub(super) fn check_upload(&self, path: &str, want: &str) {
        let done = self
            .begin(path)
            .and_then(|mut upload| upload.commit(|_| true));
        let got = done.map_or_else(|error| format!("{error:?}"), |_| "saved".to_owned());
        assert_eq!(got, want, "{path}");
    }

    /// Every path below the top, sorted.
    pub(super) fn listing(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let mut folders = vec![self.top.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                all.push(entry.path());
            }
        }
        all.sort();
        all
    }
}

#[test]
fn a_secret_is_neither_served_nor_listed() {
    let Tree { top, .. } = tree();
    let (root, secret) = (top.path().join("root"), top.path().join("outside/secret"));
    let files = Files::open(&root, 0, DAY).unwrap();
    let files = Arc::new(files.withhold(vec![secret.clone()]));
    let tree = Tree { top, files };
    let check = |paths: &[&str]| {
        for path in paths {
            tree.check(path, "NotFound");
        }
        for column in [Column::Name, Column::Size, Column::Time] {
            let order = Order {
                column,
                is_descending: false,
            };
            let entries = tree.list(order, "/").into_iter();
            let files = entries.filter(|entry| !entry.is_folder);
            let names: Vec<_> = files.map(|entry| entry.name).collect();
            assert_eq!(names, ["a.txt"], "{column:?}");
        }
    };
    fs::hard_link(&secret, root.join("linked")).unwrap();
    tree.link("linked", "to it");
    check(&["/linked", "/to%20it"]);
    fs::write(&secret, "another password").unwrap();
    check(&["/linked", "/to%20it"]);
    fs::rename(&secret, root.join("moved")).unwrap();
    check(&["/linked", "/to%20it", "/moved"]);
}

#[test]
fn the_sweeper_removes_what_a_killed_server_left_and_nothing_else() {
    let tree = tree();
    let mut upload = tree.begin("/site/under way").unwrap();
    let before = tree.listing().len();
    tree.files.sweep(&|| true);
    assert_eq!(tree.listing().len(), before - 1);
    assert!(!tree.top.path().join(LEFTOVER).exists());
    upload.commit(|_| true).unwrap();
    tree.check("/site/under%20way", "new /site/under way");
}

#[test]
fn a_sweep_ends_when_it_is_told_to() {
    let tree = tree();
    tree.files.sweep(&|| false);
    assert!(tree.top.path().join(LEFTOVER).exists());
}

#[test]
fn an_expired_upload_is_removed_without_another_search() {
    let root = tempfile::tempdir().unwrap();
    let files = Files::open(root.path(), 0, Duration::ZERO).unwrap();
    files.sweep(&|| true);
    let mut upload = files.upload(&TreePath::decode("/new").unwrap(), 0).unwrap();
    let head = b"PUT /new HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.make_resumable(head, None, no_abort()).unwrap();
    drop(upload);
    let other = root.path().join(Path::new(LEFTOVER).file_name().unwrap());
    fs::write(&other, "").unwrap();
    files.sweep(&|| true);
    let names = fs::read_dir(root.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [other], "nobody has looked for the other");
}

#[test]
fn a_new_root_is_searched_too() {
    let tree = tree();
    tree.files.sweep(&|| true);
    assert!(!tree.top.path().join(LEFTOVER).exists());
    fs::rename(tree.root(), tree.top.path().join("before")).unwrap();
    fs::create_dir_all(tree.root().join("site")).unwrap();
    fs::write(tree.top.path().join(LEFTOVER), "").unwrap();
    tree.files.sweep(&|| true);
    assert!(!tree.top.path().join(LEFTOVER).exists());
}

#[test]
fn an_upload_is_kept_as_long_as_its_first_server_said() {
    let root = tempfile::tempdir().unwrap();
    let files = Files::open(root.path(), 0, DAY).unwrap();
    let short = Files::open(root.path(), 0, Duration::ZERO).unwrap();
    let mut upload = files.upload(&TreePath::decode("/new").unwrap(), 0).unwrap();
    let head = b"PUT /new HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.make_resumable(head, None, no_abort()).unwrap();
    let resource = format!("/{}", upload.resource().display());
    drop(upload);
    short.sweep(&|| true);
    let path = TreePath::decode(&resource).unwrap();
    let Reopened::Incomplete(unfinished) = short.reopen(&path, no_abort(), target_of).unwrap()
    else {
        panic!("it is not finished");
    };
    assert!(unfinished.keep > DAY / 2);
    assert_eq!(unfinished.upload.keep_time(), DAY);
}

#[test]
fn no_server_sweeps_an_upload_that_has_just_begun() {
    let root = tempfile::tempdir().unwrap();
    let files = Files::open(root.path(), 0, DAY).unwrap();
    let other = Files::open(root.path(), 0, DAY).unwrap();
    let path = TreePath::decode("/new").unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for files in [&files, &other] {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    files.sweep_all(&files.root().unwrap(), &|| true);
                }
            });
        }
        let is_lost = |_: &u32| {
            let upload = files.upload(&path, 0).unwrap();
            !root.path().join(upload.resource()).exists()
        };
        let lost = (0..2000).filter(is_lost).count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(lost, 0);
    });
}

#[test]
fn an_upload_that_another_server_has_locked_is_in_use() {
    let tree = tree();
    let mut upload = tree.begin("/new").unwrap();
    let head = b"PUT /new HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.make_resumable(head, None, no_abort()).unwrap();
    let resource = upload.resource();
    let path = TreePath::decode(&format!("/{}", resource.display())).unwrap();
    drop(upload);
    let held = fs::File::open(tree.root().join(resource)).unwrap();
    held.lock().unwrap();
    let refused = tree.files.reopen(&path, no_abort(), target_of).map(drop);
    assert!(matches!(refused, Err(FilesError::InUse)));
    drop(held);
    tree.files
        .reopen(&path, no_abort(), target_of)
        .map(drop)
        .unwrap();
}

#[test]
fn a_record_that_never_expires_ends_no_sweep() {
    let tree = tree();
    let record = tree.top.path().join(format!("{LEFTOVER}.head"));
    let line = format!("{:<8} {:>20} {:>20} {:>20}\n", "arriving", 0, "-", u64::MAX);
    fs::write(record, line + "PUT /x HTTP/1.1\r\n\r\n").unwrap();
    tree.files.sweep(&|| true);
    assert!(tree.top.path().join(LEFTOVER).exists());
}

#[test]
fn a_file_with_such_a_name_is_not_always_swept() {
    let tree = tree();
    // The client's, of an upload to another server.
    let state = tree.root().join(".quartet-upload-a.txt");
    fs::write(&state, "{}").unwrap();
    tree.files.sweep(&|| true);
    assert!(state.exists());
}

#[test]
fn a_folder_lists_what_can_be_requested() {
    let tree = tree();
    symlink("../outside/secret", tree.root().join("site/out")).unwrap();
    symlink("index.html", tree.root().join("site/in")).unwrap();
    symlink("../a.txt", tree.root().join("site/up")).unwrap();
    UnixListener::bind(tree.root().join("site/socket")).unwrap();
    fs::create_dir(tree.root().join("site/folder")).unwrap();
    assert_eq!(
        tree.names("/site/"),
        ["folder", "in", "index.html", "up", "ä b"]
    );
    let entries = tree.list(Order::default(), "/site/");
    assert!(entries[0].is_folder && !entries[1].is_folder);
    assert_eq!(entries[1].bytes, entries[2].bytes);
}

#[test]
fn files_are_found_by_their_path() {
    let tree = tree();
    tree.check("/a.txt", "root/a.txt");
    tree.check("//a.txt", "root/a.txt");
    tree.check("/site/%c3%a4%20b", "root/site/ä b");
    tree.check("/b.txt", "NotFound");
    tree.check("/a.txt/", "NotFound");
    tree.check("/a.txt/b", "NotFound");
    tree.check("/site/b", "NotFound");
}

#[test]
fn a_folder_serves_its_index_behind_a_slash() {
    let tree = tree();
    tree.check("/site/", "root/site/index.html");
    tree.check("/site", "to the slash");
    tree.check("/empty/", "a folder");
    tree.check("/empty", "to the slash");
    tree.check("/odd/", "a folder");
    tree.check("/", "a folder");
    fs::write(tree.root().join("index.html"), "home").unwrap();
    tree.check("/", "home");
}

#[test]
fn links_are_followed_inside_the_root_alone() {
    let tree = tree();
    tree.link("a.txt", "inside");
    tree.link("../a.txt", "site/up");
    tree.link("../root/a.txt", "out-and-in");
    tree.link("../outside/secret", "outside");
    tree.link("/etc/passwd", "passwd");
    tree.link("../outside", "folder");
    tree.link("/", "everything");
    tree.link("loop", "loop");
    tree.link("/proc/self/root", "magic");
    tree.link("outside", "link-to-link");
    tree.link("gone", "dangling");
    tree.check("/inside", "root/a.txt");
    tree.check("/site/up", "root/a.txt");
    for out in [
        "/out-and-in",
        "/outside",
        "/passwd",
        "/folder/secret",
        "/folder/",
        "/everything/etc/passwd",
        "/loop",
        "/loop/x",
        "/magic/etc/passwd",
        "/link-to-link",
        "/dangling",
    ] {
        tree.check(out, "NotFound");
    }
    for out in [
        "/folder/new",
        "/folder/new/new",
        "/everything/tmp/new",
        "/loop/new",
    ] {
        tree.check_upload(out, "NotFound");
    }
    tree.check_upload("/dangling/new", "NotFound");
    assert_eq!(
        fs::read_dir(tree.top.path().join("outside"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn only_regular_files_are_served() {
    let tree = tree();
    let fifo = tree.root().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let _socket = UnixListener::bind(tree.root().join("socket")).unwrap();
    tree.check("/fifo", "NotFound");
    tree.check("/socket", "NotFound");
}

#[test]
fn names_of_temporary_files_are_reserved() {
    let tree = tree();
    tree.check("/site/.quartet-upload-1", "NotFound");
    tree.check("/site/%2equartet-upload-1", "NotFound");
    tree.check_upload("/.quartet-upload-2", "Reserved");
    tree.check_upload("/site/.quartet-upload-/x", "Reserved");
    // A condition does not tell either whether there is one.
    for path in ["/site/.quartet-upload-1", "/site/.quartet-upload-2"] {
        let version = version(&tree.files, path);
        assert!(matches!(version, Err(FilesError::Reserved)), "{path}");
    }
}

#[test]
fn an_upload_appears_when_it_is_finished() {
    let tree = tree();
    let mut upload = tree.begin("/a.txt").unwrap();
    assert_eq!(upload.bytes(), 10);
    tree.check("/a.txt", "root/a.txt");
    upload.commit(|_| true).unwrap();
    tree.check("/a.txt", "new /a.txt");
    tree.check_upload("/empty/%c3%a4", "saved");
    tree.check("/empty/ä", "new /empty/%c3%a4");
    tree.check_upload("/x/y/z", "saved");
    tree.check("/x/y/z", "new /x/y/z");
    tree.check_upload("/x/w", "saved");
    let left = tree.listing();
    let left = left.iter().filter(|path| is_reserved(path));
    assert_eq!(left.count(), 1, "the one that was there before");
}

#[test]
fn an_upload_needs_a_destination_for_a_file() {
    let tree = tree();
    tree.link("site", "linked");
    let before = tree.listing();
    for folder in ["/", "/site", "/site/", "/new/", "/empty", "/linked"] {
        tree.check_upload(folder, "IsFolder");
    }
    tree.check_upload("/a.txt/b", "NotAFolder");
    tree.check_upload("/a.txt/b/c", "NotAFolder");
    let deep = "/d".repeat(3000);
    tree.check_upload(&deep, "NameTooLong");
    tree.check(&deep, "NameTooLong");
    assert_eq!(tree.listing(), before);
}

#[test]
fn a_dropped_upload_leaves_nothing() {
    let tree = tree();
    let before = tree.listing();
    for path in ["/a.txt", "/new", "/x/y/z", "/site/x/y"] {
        let upload = tree.begin(path).unwrap();
        assert_ne!(tree.listing(), before);
        drop(upload);
        assert_eq!(tree.listing(), before, "{path}");
    }
    tree.check("/a.txt", "root/a.txt");
}

#[test]
fn an_upload_that_fails_at_the_end_leaves_nothing() {
    let tree = tree();
    let mut upload = tree.begin("/site/x").unwrap();
    fs::create_dir(tree.root().join("site/x")).unwrap();
    let before_it: Vec<_> = tree.listing().into_iter().filter(|p| !is_ours(p)).collect();
    assert!(matches!(upload.commit(|_| true), Err(FilesError::IsFolder)));
    let left: Vec<_> = tree.listing().into_iter().filter(|p| !is_ours(p)).collect();
    assert_eq!(left, before_it);

    // A file stands where the second of two missing folders should be made.
    let mut upload = tree.begin("/new/file/x").unwrap();
    fs::create_dir(tree.root().join("new")).unwrap();
    fs::write(tree.root().join("new/file"), "").unwrap();
    assert!(matches!(
        upload.commit(|_| true),
        Err(FilesError::NotAFolder)
    ));
    let names = fs::read_dir(tree.root().join("new")).unwrap();
    assert_eq!(names.count(), 1, "what was there stays");
}

fn is_ours(path: &Path) -> bool {
    is_reserved(path) && !path.ends_with(Path::new(LEFTOVER).file_name().unwrap())
}

#[test]
fn uploads_at_once_share_the_folders_they_make() {
    let tree = tree();
    let mut first = tree.begin("/x/y/1").unwrap();
    let mut second = tree.begin("/x/y/2").unwrap();
    let third = tree.begin("/x/y/3").unwrap();
    first.commit(|_| true).unwrap();
    drop(third);
    second.commit(|_| true).unwrap();
    tree.check("/x/y/1", "new /x/y/1");
    tree.check("/x/y/2", "new /x/y/2");
}

#[test]
fn a_folder_swapped_for_a_link_leads_nowhere() {
    let tree = tree();
    let mut upload = tree.begin("/site/file").unwrap();
    fs::rename(tree.root().join("site"), tree.root().join("moved")).unwrap();
    tree.link("../outside", "site");
    assert!(matches!(upload.commit(|_| true), Err(FilesError::NotFound)));
    assert!(!tree.top.path().join("outside/file").exists());
    tree.check("/moved/file", "NotFound");

    let mut upload = tree.begin("/late/file").unwrap();
    tree.link("../outside", "late");
    assert!(matches!(upload.commit(|_| true), Err(FilesError::NotFound)));
    assert!(!tree.top.path().join("outside/file").exists());
}

#[test]
fn a_root_is_a_folder() {
    let tree = tree();
    assert!(Files::open(&tree.root().join("a.txt"), 0, DAY).is_err());
    assert!(Files::open(&tree.root().join("gone"), 0, DAY).is_err());
}
