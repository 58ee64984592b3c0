use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use crate::error::FilesError;
use crate::files::Files;
use crate::files::tests::{DAY, Tree, tree};

/// Puts a new folder with a file in it in the place of the root.
fn exchange_root(tree: &Tree) {
    fs::rename(tree.root(), tree.top.path().join("old")).unwrap();
    fs::create_dir(tree.root()).unwrap();
    fs::write(tree.root().join("a.txt"), "another").unwrap();
}

#[test]
fn the_folder_that_is_at_the_path_now_is_served() {
    let tree = tree();
    tree.check("/a.txt", "root/a.txt");
    exchange_root(&tree);
    tree.check("/a.txt", "another");
    tree.check("/site/", "NotFound");
    tree.check_upload("/site/new", "saved");
    tree.check("/site/new", "new /site/new");
    // One that is removed and made again may get the same number from the system.
    for _ in 0..10 {
        fs::remove_dir_all(tree.root()).unwrap();
        tree.check("/a.txt", "RootGone");
        tree.check_upload("/a.txt", "RootGone");
        fs::create_dir(tree.root()).unwrap();
        tree.check("/a.txt", "NotFound");
        tree.check_upload("/a.txt", "saved");
    }
}

#[test]
fn a_root_that_is_removed_and_made_again_is_found() {
    let tree = tree();
    for _ in 0..10 {
        fs::remove_dir_all(tree.root()).unwrap();
        fs::create_dir(tree.root()).unwrap();
        tree.check_upload("/a.txt", "saved");
        assert!(tree.root().join("a.txt").exists());
    }
}

#[test]
fn the_root_is_where_its_link_leads_now() {
    let top = tempfile::tempdir().unwrap();
    for version in ["one", "two"] {
        fs::create_dir(top.path().join(version)).unwrap();
        fs::write(top.path().join(version).join("version"), version).unwrap();
    }
    let link = top.path().join("root");
    symlink("one", &link).unwrap();
    let files = Arc::new(Files::open(&link, 0, DAY).unwrap());
    let tree = Tree { top, files };
    tree.check("/version", "one");
    let mut upload = tree.begin("/new").unwrap();
    symlink("two", tree.top.path().join("next")).unwrap();
    fs::rename(tree.top.path().join("next"), &link).unwrap();
    tree.check("/version", "two");
    assert!(matches!(upload.commit(|_| true), Err(FilesError::Moved)));
    tree.check("/new", "NotFound");
    let left = tree.listing();
    assert!(!left.iter().any(|path| path.ends_with("new")), "{left:?}");
}

#[test]
fn an_upload_into_a_folder_that_moved_is_refused() {
    let tree = tree();
    let mut in_root = tree.begin("/new").unwrap();
    let mut in_site = tree.begin("/site/new").unwrap();
    fs::rename(tree.root().join("site"), tree.top.path().join("site")).unwrap();
    fs::create_dir(tree.root().join("site")).unwrap();
    assert!(matches!(in_site.commit(|_| true), Err(FilesError::Moved)));
    exchange_root(&tree);
    assert!(matches!(in_root.commit(|_| true), Err(FilesError::Moved)));
    let left = tree.listing();
    assert!(!left.iter().any(|path| path.ends_with("new")), "{left:?}");
}

#[test]
fn an_absolute_link_that_stays_inside_is_followed() {
    let tree = tree();
    symlink("root", tree.top.path().join("alias")).unwrap();
    let top = tree.top.path().to_str().unwrap().to_owned();
    for (link, target) in [
        ("file", "{top}/root/a.txt"),
        ("by-alias", "{top}/alias/a.txt"),
        ("around", "{top}/root/site/../../root/a.txt"),
        ("folder", "{top}/root/site"),
        ("itself", "{top}/root"),
        ("to-file", "site/up"),
        ("site/up", "../file"),
        ("twice", "{top}/root/folder"),
        ("out", "{top}/outside/secret"),
        ("out-by-itself", "{top}/root/../outside/secret"),
        ("beside", "{top}/root-but-not/a.txt"),
        ("everything", "/"),
        ("loop", "{top}/root/loop"),
        ("ping", "{top}/root/pong"),
        ("pong", "ping"),
        ("dangling", "{top}/root/site/new"),
    ] {
        tree.link(&target.replace("{top}", &top), link);
    }
    let a_txt = "root/a.txt";
    for inside in [
        "/file",
        "/by-alias",
        "/around",
        "/to-file",
        "/itself/a.txt",
        "/itself/itself/file",
        "/twice/up",
    ] {
        tree.check(inside, a_txt);
    }
    tree.check("/twice/index.html", "root/site/index.html");
    tree.check("/folder/", "root/site/index.html");
    for outside in [
        "/out",
        "/out-by-itself",
        "/beside",
        "/everything/etc/passwd",
        "/loop",
        "/loop/x",
        "/ping",
        "/dangling",
    ] {
        tree.check(outside, "NotFound");
    }
    let mut names = tree.names("/");
    names.sort_unstable();
    let want = "a.txt around by-alias empty file folder itself odd site to-file twice";
    assert_eq!(names.join(" "), want);

    tree.check_upload("/twice/deep/new", "saved");
    tree.check("/site/deep/new", "new /twice/deep/new");
    tree.check_upload("/dangling", "saved");
    tree.check("/site/new", "new /dangling");
    tree.check_upload("/to-file", "saved");
    tree.check("/a.txt", "new /to-file");
    for outside in ["/out", "/out-by-itself", "/beside", "/loop", "/ping"] {
        tree.check_upload(outside, "NotAFile");
    }
    let secret = fs::read_to_string(tree.top.path().join("outside/secret"));
    assert_eq!(secret.unwrap(), "outside/secret");
}
