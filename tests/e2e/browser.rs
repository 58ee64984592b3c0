//! The file service in a browser: a page with what belongs to it, the listing, and uploads by form,
//! by drop and without scripts. `tests/python/browser.py` is what drives it.

use std::fs;

use crate::file::Tree;
use crate::harness::{Noise, has_program, is_installed, python, skipped};

/// What a Chromium may be called.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where screenshots go, if anywhere.
const PICTURES_VARIABLE: &str = "QUARTET_PICTURES";

#[test]
fn a_browser_shows_and_uploads() {
    let Some(browser) = BROWSERS.iter().find(|name| is_installed(name)) else {
        return skipped("there is no Chromium");
    };
    if !has_program("python3") {
        return;
    }
    let tree = Tree::new();
    for (name, bytes) in [
        ("sorted/a.txt", 300),
        ("sorted/b.txt", 1),
        ("sorted/c.txt", 20),
    ] {
        let path = tree.root(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; bytes]).unwrap();
    }
    for folder in ["drop", "noscript"] {
        fs::create_dir(tree.root(folder)).unwrap();
    }
    let mut noise = Noise::new(5);
    let large: Vec<u8> = (0..4_000_000).map(|_| noise.next() as u8).collect();
    let files = [
        ("small.txt", &b"small"[..]),
        ("name & <b>.txt", b"odd"),
        ("large.bin", &large),
    ];
    fs::create_dir(tree.path("here")).unwrap();
    for (name, bytes) in files {
        fs::write(tree.path("here").join(name), bytes).unwrap();
    }
    let server = tree.start(&[]);
    let url = format!("http://{}", server.addr());
    let files_folder = tree.path("here").to_string_lossy().into_owned();
    let pictures = std::env::var(PICTURES_VARIABLE);
    let mut args = vec![*browser, &url, &files_folder];
    args.extend(pictures.as_deref());
    python("browser.py", &args).expect(0);
    for (name, bytes) in files {
        assert_eq!(
            fs::read(tree.root("drop").join(name)).unwrap(),
            bytes,
            "{name}"
        );
    }
    assert_eq!(fs::read(tree.root("noscript/small.txt")).unwrap(), b"small");
    assert_eq!(tree.temporary_files(), 0);
}
