use std::fs;
use std::path::Path;

use super::*;
use crate::files::tests::{Tree, no_abort, target_of, tree, version};

/// Interrupts a resumable upload to `/new` with these bytes, and reopens it.
#[track_caller]
fn with_reopened(tree: &Tree, bytes: &[u8], act: impl FnOnce(&mut Upload, &Path)) {
    let path = TreePath::decode("/new").unwrap();
    let mut upload = tree.files.upload(&path, 0).unwrap();
    upload.hash();
    let head = b"PUT /new HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.make_resumable(head, None, no_abort()).unwrap();
    upload.write(bytes).unwrap();
    let resource = upload.resource();
    drop(upload);
    let path = TreePath::decode(&format!("/{}", resource.display())).unwrap();
    let reopened = tree.files.reopen(&path, no_abort(), target_of).unwrap();
    let Reopened::Incomplete(mut unfinished) = reopened else {
        panic!("it is finished");
    };
    assert_eq!(unfinished.upload.bytes(), bytes.len() as u64);
    act(&mut unfinished.upload, &tree.root().join(resource));
}

#[test]
fn an_upload_in_parts_is_hashed_as_it_arrives() {
    let digest_of = |bytes: &[u8]| proto::http::digest::Hasher::digest_of(bytes).unwrap();
    with_reopened(&tree(), b"abc", |upload, path| {
        // A reader finds something else.
        fs::write(path, "???").unwrap();
        upload.write(b"def").unwrap();
        assert_eq!(upload.digest().unwrap(), digest_of(b"abcdef"));
        let checkpoint = upload.checkpoint();
        upload.write(b"wrong").unwrap();
        upload.roll_back(checkpoint).unwrap();
        assert_eq!(upload.digest().unwrap(), digest_of(b"abcdef"));
    });
}

#[test]
fn what_is_rolled_back_is_not_counted_as_synced() {
    with_reopened(&tree(), b"abc", |upload, path| {
        let record = || fs::read_to_string(path.with_extension("head")).unwrap();
        let counts = |bytes: &str| record().split_whitespace().nth(1) == Some(bytes);
        let checkpoint = upload.checkpoint();
        // More than between two syncs.
        let piece = vec![b'd'; 1 << 20];
        (0..40).for_each(|_| upload.write(&piece).unwrap());
        assert!(!counts("3"), "{}", record());
        upload.roll_back(checkpoint).unwrap();
        assert!(counts("3"), "{}", record());
        assert_eq!(fs::metadata(path).unwrap().len(), 3);
    });
}

#[test]
fn a_link_in_place_of_a_temporary_file_is_not_followed() {
    let tree = tree();
    let path = TreePath::decode("/new").unwrap();
    let mut upload = tree.files.upload(&path, 0).unwrap();
    let head = b"PUT /new HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.make_resumable(head, None, no_abort()).unwrap();
    let resource = upload.resource();
    drop(upload);
    fs::remove_file(tree.root().join(&resource)).unwrap();
    tree.link("a.txt", resource.to_str().unwrap());
    let path = TreePath::decode(&format!("/{}", resource.display())).unwrap();
    let reopened = tree.files.reopen(&path, no_abort(), target_of).map(drop);
    assert!(
        matches!(reopened, Err(FilesError::NotFound)),
        "{reopened:?}"
    );
    tree.check("/a.txt", "root/a.txt");
}

#[test]
fn an_upload_that_cannot_be_committed_now_can_be_later() {
    let tree = tree();
    with_reopened(&tree, b"abc", |upload, path| {
        let away = tree.top.path().join("away");
        fs::rename(tree.root(), &away).unwrap();
        let placed = upload.commit(|_| true);
        assert!(matches!(placed, Err(FilesError::RootGone)), "{placed:?}");
        fs::rename(away, tree.root()).unwrap();
        assert!(path.exists());
        assert!(upload.commit(|_| true).unwrap());
    });
    tree.check("/new", "abc");
    // Also if something was in the way at the last step.
    with_reopened(&tree, b"def", |upload, path| {
        let new = fs::File::open(tree.root().join("new")).unwrap();
        new.lock().unwrap();
        let before = version(&tree.files, "/new");
        let before = before.unwrap();
        let placed = upload.commit(|there| there == before.as_ref());
        assert!(matches!(placed, Err(FilesError::InUse)), "{placed:?}");
        let record = fs::read_to_string(path.with_extension("head")).unwrap();
        assert!(record.starts_with("arriving "), "{record}");
    });
    // But not if its condition is not met any more.
    with_reopened(&tree, b"def", |upload, path| {
        let placed = upload.commit(|_| false);
        assert!(matches!(placed, Err(FilesError::Changed)), "{placed:?}");
        assert!(!upload.is_resumable());
        assert!(!path.with_extension("head").exists());
    });
}

#[test]
fn an_upload_that_is_gone_is_not_complete() {
    let tree = tree();
    let path = TreePath::decode("/new").unwrap();
    let mut upload = tree.files.upload(&path, 0).unwrap();
    let head = b"PUT /new HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.make_resumable(head, None, no_abort()).unwrap();
    upload.write(b"abc").unwrap();
    upload.sync().unwrap();
    upload
        .update_record(|progress| progress.stage = Stage::Placing)
        .unwrap();
    let resource = upload.resource();
    drop(upload);
    let temporary = tree.root().join(&resource);
    let moved = tree.top.path().join("moved");
    fs::rename(&temporary, &moved).unwrap();
    let path = TreePath::decode(&format!("/{}", resource.display())).unwrap();
    let reopen = || tree.files.reopen(&path, no_abort(), target_of);
    assert!(matches!(reopen(), Err(FilesError::NotFound)));
    // As if the server was killed after the rename.
    fs::rename(&moved, tree.root().join("new")).unwrap();
    assert!(matches!(reopen(), Ok(Reopened::Complete { bytes: 3, .. })));
}

#[test]
fn only_an_upload_that_was_being_renamed_and_is_gone_is_complete() {
    let tree = tree();
    let path = TreePath::decode("/new").unwrap();
    let mut upload = tree.files.upload(&path, 0).unwrap();
    let head = b"PUT /new HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.make_resumable(head, None, no_abort()).unwrap();
    // As if the server was killed before the rename.
    upload
        .update_record(|progress| progress.stage = Stage::Placing)
        .unwrap();
    let resource = upload.resource();
    drop(upload);
    let path = TreePath::decode(&format!("/{}", resource.display())).unwrap();
    let reopened = tree.files.reopen(&path, no_abort(), target_of).unwrap();
    assert!(matches!(reopened, Reopened::Incomplete(_)));
    drop(reopened);
    fs::remove_file(tree.root().join(resource)).unwrap();
    let reopened = tree.files.reopen(&path, no_abort(), target_of).map(drop);
    assert!(
        matches!(reopened, Err(FilesError::NotFound)),
        "{reopened:?}"
    );
}
