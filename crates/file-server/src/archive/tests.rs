//! Archives without a connection.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::files::Files;
use crate::permits::Permits;

fn archive(files: Files, format: Format) -> Archive {
    let root = TreePath::decode("/").unwrap();
    let permit = Permits::default().permit(1).unwrap();
    Archive::new(
        Arc::new(files).walk(&root).unwrap(),
        b"files",
        format,
        permit,
    )
}

fn files(root: &TempDir) -> Files {
    Files::open(root.path(), 0, Duration::ZERO).unwrap()
}

/// All pieces of an archive.
fn all(mut archive: Archive) -> Vec<u8> {
    let (mut all, mut piece, mut has_more) = (Vec::new(), Vec::new(), true);
    while has_more {
        piece.clear();
        has_more = archive.next(&mut piece).unwrap();
        all.extend_from_slice(&piece);
    }
    all
}

fn has(archive: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    archive.windows(text.len()).any(|part| part == text)
}

#[test]
fn a_secret_is_left_out_without_a_word() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "for all").unwrap();
    fs::write(root.path().join("accounts"), "for nobody").unwrap();
    fs::hard_link(root.path().join("accounts"), root.path().join("b")).unwrap();
    std::os::unix::fs::symlink("accounts", root.path().join("c")).unwrap();
    for format in [Format::Zip, Format::Tar] {
        let files = files(&root).withhold(vec![root.path().join("accounts")]);
        let made = all(archive(files, format));
        assert!(has(&made, "files/a") && has(&made, "for all"));
        for secret in ["files/accounts", "files/b", "files/c", "for nobody"] {
            assert!(!has(&made, secret), "{format:?} {secret}");
        }
    }
}

#[test]
fn a_piece_is_about_as_long_as_any_other() {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a", 2_000_000), ("b", 10), ("c", 1_000_000)] {
        fs::write(root.path().join(name), vec![b'x'; bytes]).unwrap();
    }
    for format in [Format::Zip, Format::Tar] {
        let mut archive = archive(files(&root), format);
        let mut piece = Vec::new();
        while archive.next(&mut piece).unwrap() {
            let most = PIECE_BYTES + READ_BYTES_MIN;
            assert!(
                (PIECE_BYTES..=most).contains(&piece.len()),
                "{}",
                piece.len()
            );
            assert!(piece.capacity() <= 2 * most);
            piece.clear();
        }
    }
}

#[test]
fn what_is_left_out_is_named_up_to_64_kib() {
    let mut left_out = LeftOut::default();
    for number in 0..10_000 {
        left_out.add(Path::new(&format!("a/{number}")), "no permission");
    }
    let text = left_out.text();
    assert!(text.len() <= usize::from(u16::MAX) && text.len() > 65_000);
    let named = text.lines().count() - 1;
    assert!(
        text.ends_with(&format!("\n... and {} more\n", 10_000 - named)),
        "{}",
        text.len()
    );
}
