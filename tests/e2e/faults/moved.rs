//! Data files that are renamed, removed or replaced under a running server: it notices before it
//! answers OK.

use super::*;

/// The services whose data are text files.
const OF_TEXT: [Kind; 2] = [Code, History];

/// What is done to a file, which is in a folder of its own, with a path that is free.
type Act = fn(&Path, &Path) -> io::Result<()>;

/// Does something to one of the files of a server, and checks that nothing is acknowledged after
/// that, that the server ends, and says why.
#[track_caller]
fn check_noticed(kind: Kind, file: &str, act: Act, what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    if kind == Queue {
        fs::create_dir(&folder).unwrap();
    }
    let process = Process::start(kind.command(&folder));
    let mut ledger = Ledger::new(kind);
    let mut client = Client::connect(kind, &process.addrs);
    assert_eq!(ledger.put(&mut client), Done);
    act(&folder.join(file), &dir.path().join("other")).unwrap();
    let outcomes = [ledger.put(&mut client), ledger.put(&mut client)];
    for outcome in outcomes {
        assert!(
            matches!(outcome, Unknown | Lost),
            "{kind:?}, {file}: {outcome:?}"
        );
    }
    process.check_gave_up(kind);
    let log = process.log();
    assert!(log.contains(file) && log.contains(what), "{kind:?}: {log}");
}

#[test]
fn a_file_that_is_taken_away_is_noticed_before_the_next_ok() {
    let (gone, replaced) = ("was moved or removed", "was replaced by another file");
    let of_file: [(Act, &str); 3] = [
        (|path, _| fs::remove_file(path), gone),
        (
            |path, other| fs::copy(path, other).and_then(|_| fs::rename(other, path)),
            replaced,
        ),
        (
            |path, _| fs::write(path, ""),
            "was changed by another program",
        ),
    ];
    let of_folder: [(Act, &str); 2] = [
        (
            |path, other| fs::rename(path.parent().unwrap(), other),
            gone,
        ),
        (|path, _| fs::remove_dir_all(path.parent().unwrap()), gone),
    ];
    for kind in OF_TEXT {
        for file in kind.files().iter().filter(|file| !file.starts_with('.')) {
            for (act, what) in of_file {
                check_noticed(kind, file, act, what);
            }
        }
    }
    for file in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        for (act, what) in &of_file[..2] {
            check_noticed(Queue, file, *act, what);
        }
        let act: Act = |path, other| fs::rename(path, other);
        check_noticed(Queue, file, act, gone);
    }
    for kind in KINDS {
        for (act, what) in of_folder {
            check_noticed(kind, kind.files()[0], act, what);
        }
    }
    check_noticed(
        Code,
        "codes.txt",
        |path, other| fs::rename(path, other),
        gone,
    );
}

#[test]
fn a_working_directory_that_is_moved_is_noticed() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        fs::create_dir(&folder).unwrap();
        let mut command = Command::new(program(kind.name()));
        command.current_dir(&folder).args(kind.args(Path::new(".")));
        let process = Process::start(command);
        let mut ledger = Ledger::new(kind);
        let mut client = Client::connect(kind, &process.addrs);
        assert_eq!(ledger.put(&mut client), Done);
        fs::rename(&folder, dir.path().join("other")).unwrap();
        let outcome = ledger.put(&mut client);
        assert!(matches!(outcome, Unknown | Lost), "{kind:?}: {outcome:?}");
        process.check_gave_up(kind);
        let want = format!("{} was moved", folder.join(kind.files()[0]).display());
        assert!(process.log().contains(&want), "{}", process.log());
    }
}

#[test]
fn a_file_that_is_moved_and_not_made_anew_is_waited_for_but_not_for_ever() {
    // Each waits 5 s, so both do at once.
    thread::scope(|scope| {
        for (kind, file) in [(Code, "messages.log"), (History, "history.txt")] {
            let act: Act = |path, other| fs::rename(path, other);
            scope.spawn(move || check_noticed(kind, file, act, "was moved or removed"));
        }
    });
}
