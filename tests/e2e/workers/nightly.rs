//! A nightly job, as somebody does it who has read the page once: 200 files, three workers, and two files that
//! always fail. Next morning one command tells which, and why.

use std::fs;

use crate::harness::eventually;
use crate::work::{check, say};

use super::Place;

#[test]
fn one_command_tells_next_morning_which_files_failed_and_why() {
    const FILES: usize = 200;
    const BAD: [usize; 2] = [17, 150];
    let place = Place::new("", "");
    let mut names = String::new();
    for number in 0..FILES {
        let name = format!("photo{number}.jpg");
        fs::write(place.path(&name), "a picture").unwrap();
        names += &format!("{name}\n");
    }
    for number in BAD {
        fs::write(place.path(&format!("photo{number}.jpg")), "").unwrap();
    }
    say(
        &place.server,
        "send --queue photos --lines -",
        names.as_bytes(),
    )
    .expect(0);
    let script = "f=$(cat); test -s $f || { echo \"$f: empty file\" >&2; exit 65; }; mv $f done-$f";
    let options = "--queue photos --drain";
    let workers: Vec<_> = (0..3).map(|_| place.work(options, script)).collect();
    let mut codes: Vec<_> = workers.iter().map(|worker| worker.wait()).collect();
    codes.sort_unstable();
    // Who had a file at its last attempt says so.
    assert!(codes[2] == Some(1) && codes.iter().all(|code| matches!(code, Some(0 | 1))));
    eventually("all others are done", || {
        let done = fs::read_dir(place.folder.path()).unwrap();
        let is_done = |name: &str| name.starts_with("done-");
        let names = done.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| is_done(name)).count() == FILES - BAD.len()
    });
    let line = "peek --dead --queue photos --count 100";
    let morning = say(&place.server, line, b"").expect(0);
    let mut files: Vec<_> = morning.out().lines().map(str::to_owned).collect();
    files.sort_unstable();
    assert_eq!(files, ["photo150.jpg", "photo17.jpg"]);
    for file in files {
        let why = format!(", attempts: 5, the last: exit status: 65: {file}: empty file\n");
        assert!(morning.stderr.contains(&why), "{}", morning.stderr);
    }
    // When they are mended, they are done.
    for number in BAD {
        fs::write(place.path(&format!("photo{number}.jpg")), "a picture").unwrap();
    }
    check(&place.server, "kick photos", "", 0, "");
    assert_eq!(place.work(options, script).wait(), Some(0));
    check(&place.server, "list", "", 0, "");
}
