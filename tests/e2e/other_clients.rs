//! Other people's clients of the file service: wget, and the requests package of Python. curl is
//! with the file service's own tests.

use std::fs;
use std::process::Command;

use crate::file::Tree;
use crate::harness::{Needs, Noise, has_door, has_program, python, run_command, skipped};

/// The exit code of a Python script that lacks what it needs.
const NO_PACKAGE: Option<i32> = Some(77);

#[test]
fn requests_uploads_and_downloads() {
    if !has_door(Needs::Plain, "the script knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&[]);
    let ran = python("requests_client.py", &[format!("http://{}", server.addr())]);
    if ran.code == NO_PACKAGE {
        return skipped("there is no requests package");
    }
    assert_eq!(ran.expect(0).out(), "requests works\n");
    assert_eq!(fs::read(tree.root("new/f2")).unwrap(), b"2");
}

#[test]
fn wget_downloads_resumes_and_mirrors() {
    if !has_door(Needs::Plain, "wget is told of no door") {
        return;
    }
    if !has_program("wget") {
        return;
    }
    let tree = Tree::new();
    let mut noise = Noise::new(7);
    let large: Vec<u8> = (0..300_000).map(|_| noise.next() as u8).collect();
    fs::write(tree.root("large"), &large).unwrap();
    fs::create_dir_all(tree.root("plain/deep/ä & b")).unwrap();
    fs::write(tree.root("plain/deep/ä & b/c#d?.txt"), "odd").unwrap();
    let server = tree.start(&[]);
    let here = tempfile::tempdir().unwrap();
    let wget = |args: &[&str], path: &str| {
        let mut command = Command::new("wget");
        command
            .current_dir(here.path())
            .args(["--no-verbose", "--no-proxy", "--tries=1"]);
        command
            .args(args)
            .arg(format!("http://{}{path}", server.addr()));
        run_command(command, b"").expect(0);
    };
    fs::write(here.path().join("large"), &large[..100_000]).unwrap();
    wget(&["--continue"], "/large");
    assert_eq!(fs::read(here.path().join("large")).unwrap(), large);
    wget(
        &["--mirror", "--no-host-directories", "--no-parent"],
        "/plain/",
    );
    assert_eq!(fs::read(here.path().join("plain/a.txt")).unwrap(), b"a");
    let odd = fs::read(here.path().join("plain/deep/ä & b/c#d?.txt"));
    assert_eq!(odd.unwrap(), b"odd");
    // What has not changed is not sent again.
    wget(&["--timestamping"], "/large");
    assert_eq!(fs::read(here.path().join("large")).unwrap(), large);
}
