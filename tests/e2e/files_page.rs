//! The list of a folder in a browser: search, order, pages, the keyboard, a small screen, and uploads whose
//! server is killed; and a folder that is tidied there. `tests/python/files_page.py` and `manage_page.py` drive
//! it, and the server.

use std::fs::{self, File};

use crate::browser::{BROWSERS, PICTURES_VARIABLE};
use crate::file::Tree;
use crate::harness::{Needs, Noise, has_door, has_program, is_installed, program, python, skipped};

/// How long the large file is, in bytes: more than the server may lose when it is killed.
const LARGE_BYTES: usize = 48 << 20;

/// The command line of a script: the browser, what is uploaded, what is served, and the server.
fn arguments(tree: &Tree) -> Option<Vec<String>> {
    if !has_door(Needs::Plain, "the script starts the server itself") {
        return None;
    }
    let Some(browser) = BROWSERS.iter().find(|name| is_installed(name)) else {
        skipped("there is no Chromium");
        return None;
    };
    if !has_program("python3") {
        return None;
    }
    let mut args = vec![
        (*browser).to_owned(),
        tree.path("here").to_string_lossy().into_owned(),
        tree.path("root").to_string_lossy().into_owned(),
        program("file-server").to_string_lossy().into_owned(),
    ];
    args.extend(std::env::var(PICTURES_VARIABLE));
    Some(args)
}

#[test]
fn a_browser_tidies() {
    let tree = Tree::new();
    let Some(args) = arguments(&tree) else {
        return;
    };
    let folders = [
        "root/managed/empty",
        "root/managed/full",
        "here/tree/hollow/deep",
    ];
    for folder in folders {
        fs::create_dir_all(tree.path(folder)).unwrap();
    }
    let names = [
        "root/managed/full/a.txt",
        "root/managed/old name.tar.gz",
        "root/managed/other.txt",
        "here/tree/a.txt",
    ];
    for name in names {
        fs::write(tree.path(name), name).unwrap();
    }
    python("manage_page.py", &args).expect(0);
}

#[test]
fn a_browser_searches_turns_pages_and_resumes() {
    let tree = Tree::new();
    let Some(args) = arguments(&tree) else {
        return;
    };
    for folder in [
        "long",
        "tidy/a full folder",
        "kinds/folder",
        "resumed",
        "reloaded",
        "cancelled",
    ] {
        fs::create_dir_all(tree.root(folder)).unwrap();
    }
    for number in 0..2050 {
        File::create(tree.root(&format!("long/file {number:04}"))).unwrap();
    }
    let names = [
        "long/1 & <1>.txt",
        "long/1 & <2>.txt",
        "tidy/a.txt",
        "tidy/b.txt",
        "tidy/a full folder/c.txt",
        "kinds/a.zip",
        "kinds/b.mp3",
        "kinds/c.rs",
        "kinds/d",
        "kinds/e.png",
        "kinds/f.csv",
        "kinds/g.pdf",
        "kinds/h.mp4",
    ];
    for name in names {
        fs::write(tree.root(name), name).unwrap();
    }
    let here = tree.path("here");
    fs::create_dir(&here).unwrap();
    for name in ["another.txt", "other.txt"] {
        fs::write(here.join(name), name).unwrap();
    }
    let mut noise = Noise::new(7);
    let large: Vec<u8> = std::iter::repeat_with(|| noise.next().to_ne_bytes())
        .flatten()
        .take(LARGE_BYTES)
        .collect();
    fs::write(here.join("large.bin"), large).unwrap();
    python("files_page.py", &args).expect(0);
}
