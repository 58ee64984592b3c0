//! The list of a folder in a browser: search, order, pages, the keyboard, a small screen, and uploads whose
//! server is killed. `tests/python/files_page.py` drives it, and the server.

use std::fs::{self, File};

use crate::browser::{BROWSERS, PICTURES_VARIABLE};
use crate::file::Tree;
use crate::harness::{Needs, Noise, has_door, has_program, is_installed, program, python, skipped};

/// How long the large file is, in bytes: more than the server may lose when it is killed.
const LARGE_BYTES: usize = 48 << 20;

#[test]
fn a_browser_searches_turns_pages_and_resumes() {
    if !has_door(Needs::Plain, "the script starts the server itself") {
        return;
    }
    let Some(browser) = BROWSERS.iter().find(|name| is_installed(name)) else {
        return skipped("there is no Chromium");
    };
    if !has_program("python3") {
        return;
    }
    let tree = Tree::new();
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
    let mut args = vec![
        (*browser).to_owned(),
        here.to_string_lossy().into_owned(),
        tree.path("root").to_string_lossy().into_owned(),
        program("file-server").to_string_lossy().into_owned(),
    ];
    args.extend(std::env::var(PICTURES_VARIABLE));
    python("files_page.py", &args).expect(0);
}
