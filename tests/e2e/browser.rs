//! The file service in a browser: a page with what belongs to it, the listing, and uploads by form,
//! by drop and without scripts. `tests/python/browser.py` is what drives it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::file::{Tree, contents};
use crate::harness::{Noise, has_program, is_installed, python, skipped};

/// What a Chromium may be called.
pub const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where screenshots go, if anywhere.
pub const PICTURES_VARIABLE: &str = "QUARTET_PICTURES";

/// Names that mean something elsewhere: in HTML, in a URL, in a form, in a line of text.
const ODD_NAMES: [&str; 8] = [
    "<b>bold<!-- '\".txt",
    "100% %41 %2e%2e.txt",
    "a?b#c&d=e;f.txt",
    "back\\slash.txt",
    "javascript:alert(1)",
    "line\nbreak  and spaces .txt",
    "left \u{202e}txt.exe",
    "ä 日本 \u{1f980}.txt",
];

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// What stands in a folder, by the paths inside it.
fn files_in(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = contents(folder).into_iter();
    let files = files.filter(|(path, _)| path.is_file());
    let inside = |path: PathBuf| path.strip_prefix(folder).unwrap().to_owned();
    files.map(|(path, bytes)| (inside(path), bytes)).collect()
}

#[test]
fn a_browser_shows_and_uploads() {
    let Some(browser) = BROWSERS.iter().find(|name| is_installed(name)) else {
        return skipped("there is no Chromium");
    };
    if !has_program("python3") {
        return;
    }
    let tree = Tree::new();
    for (name, bytes) in [("a.txt", 300), ("b.txt", 1), ("c.txt", 20)] {
        write(tree.root("sorted").join(name), vec![b'x'; bytes]);
    }
    for number in 1..4 {
        let name = format!("there/{number}.txt");
        write(tree.root(&name), format!("old {number}"));
    }
    fs::create_dir_all(tree.root("refused/site")).unwrap();
    for folder in [
        "drop",
        "noscript",
        "password",
        "names",
        "three",
        "race",
        "phone",
        "folder",
        "folder-chosen",
        "many",
    ] {
        fs::create_dir(tree.root(folder)).unwrap();
    }
    let here = tree.path("here");
    let mut noise = Noise::new(5);
    let mut large = |bytes: usize| -> Vec<u8> { (0..bytes).map(|_| noise.next() as u8).collect() };
    for number in 0..5 {
        write(here.join(format!("large/{number}.bin")), large(600_000));
        write(
            here.join(format!("new/{number}.txt")),
            format!("new {number}"),
        );
    }
    write(here.join("too-large.bin"), large(1_000_001));
    for (name, bytes) in [
        ("small.txt", "small"),
        ("other/small.txt", "other"),
        ("name & <b>.txt", "odd"),
        ("one/image.jpg", "one"),
        ("two/image.jpg", "two"),
        ("tree/top.txt", "top"),
        ("tree/empty.txt", ""),
        ("tree/sub one/deep.txt", "deep"),
        ("site", "a file"),
        ("gone.txt", "gone"),
    ] {
        write(here.join(name), bytes);
    }
    fs::create_dir(here.join("tree/hollow")).unwrap();
    for number in 0..120 {
        write(here.join(format!("many/{number}.txt")), "x");
    }
    for name in ODD_NAMES {
        write(here.join("odd").join(name), name);
    }
    let accounts = tree.path("accounts");
    write(accounts.clone(), "ann:secret\n");
    fs::set_permissions(&accounts, Permissions::from_mode(0o600)).unwrap();
    let accounts = accounts.to_str().unwrap();
    let servers = [
        tree.start(&["--max-upload", "1000000", "--idle-exit", "0"]),
        tree.start(&["--create-only", "--idle-exit", "0"]),
        tree.start(&[
            "--auth-file",
            accounts,
            "--auth-read-free",
            "--idle-exit",
            "0",
        ]),
    ];
    let mut args = vec![(*browser).to_owned(), here.to_string_lossy().into_owned()];
    let urls = servers
        .each_ref()
        .map(|server| format!("http://{}", server.addr()));
    args.extend(urls);
    args.extend(std::env::var(PICTURES_VARIABLE));
    python("browser.py", &args).expect(0);
    for (folder, want) in [
        ("names", "odd"),
        ("folder/tree", "tree"),
        ("folder-chosen/tree", "tree"),
        ("many", "many"),
    ] {
        assert_eq!(files_in(&tree.root(folder)), files_in(&here.join(want)));
    }
    for (name, bytes) in files_in(&tree.root("three")) {
        assert!(bytes == fs::read(here.join("large").join(&name)).unwrap());
    }
    // A form says what a file is called in another way than a script does.
    let mut form = files_in(&here.join("odd"));
    let backslash = form.remove(Path::new("back\\slash.txt")).unwrap();
    let others = [
        ("slash.txt", backslash),
        ("small.txt", b"other".into()),
        ("image.jpg", b"one".into()),
        ("image (1).jpg", b"two".into()),
    ];
    form.extend(others.map(|(name, bytes)| (name.into(), bytes)));
    assert_eq!(files_in(&tree.root("noscript")), form);
    assert_eq!(tree.temporary_files(), 0);
}
