//! What a start leaves behind, and who may read what it makes.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// The services whose data are text files.
const OF_TEXT: [Kind; 2] = [Code, History];

/// The names in a folder.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_data_file_that_is_none_is_refused_and_nothing_is_left() {
    for kind in KINDS {
        let files = kind.files().iter();
        for file in files.filter(|file| !file.starts_with('.') && **file != "queue.db-wal") {
            let makes: [fn(&Path); 3] = [
                |path| fs::create_dir(path).unwrap(),
                |path| {
                    // To open one the usual way waits until somebody writes to it.
                    let made = Command::new("mkfifo").arg(path).status().unwrap();
                    assert!(made.success());
                },
                // A link to a device that is looked at, and not even opened.
                |path| std::os::unix::fs::symlink("/dev/null", path).unwrap(),
            ];
            for make in makes {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join(file);
                make(&path);
                let ran = run_command(kind.command(dir.path()), b"").expect(2);
                let want = format!("{} is not a regular file", path.display());
                assert_eq!(ran.stderr, format!("{}: {want}\n", kind.name()));
                assert_eq!(names(dir.path()), [*file]);
            }
        }
    }
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for kind in OF_TEXT {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let mut command = Command::new(program(kind.name()));
        if kind == Code {
            command.arg("0");
        }
        command.arg(&port).arg("--data-dir").arg(&data);
        run_command(command, b"").expect(3);
        assert_eq!(names(dir.path()), [""; 0]);
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let mut command = Command::new(program("queue-server"));
    command.args([port.as_str(), "--data"]).arg(&data);
    run_command(command, b"").expect(3);
    assert_eq!(names(dir.path()), [""; 0]);
    // A file that was there stays, and what it is not is left as it is.
    let other = rusqlite::Connection::open(&data).unwrap();
    let made = "PRAGMA journal_mode = WAL; CREATE TABLE theirs (x)";
    other.execute_batch(made).unwrap();
    drop(other);
    let ran = run_command(Queue.command(dir.path()), b"").expect(2);
    assert!(
        ran.stderr.contains("is not a queue's database"),
        "{}",
        ran.stderr
    );
    assert_eq!(names(dir.path()), ["queue.db"]);
    // Nor one that fails at the second file.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("messages.log")).unwrap();
    run_command(Code.command(dir.path()), b"").expect(2);
    assert_eq!(names(dir.path()), ["messages.log"]);
}

#[test]
fn new_files_are_their_owners_alone_and_there_is_no_lock_file() {
    for kind in KINDS {
        let (dir, _) = some_records(kind);
        let files: &[_] = match kind {
            Code => kind.files(),
            History => &["history.txt", "sequence.txt", "users.txt"],
            Queue => &["queue.db", "queue.db-shm", "queue.db-wal"],
        };
        let files: Vec<_> = files.iter().filter(|file| !file.starts_with('.')).collect();
        assert!(names(dir.path()).iter().eq(files.iter().copied()));
        for file in files {
            let path = dir.path().join(file);
            assert_eq!(mode(&path), 0o600, "{file}");
            // What is there keeps its mode.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let server = Server::spawn(kind.command(dir.path()));
        let mut client = Client::connect(kind, &server.addrs);
        let mut ledger = Ledger::new(kind);
        assert_eq!(ledger.put(&mut client), Done);
        assert_eq!(ledger.take(&mut client), Done);
        for file in kind.files().iter().filter(|file| !file.starts_with('.')) {
            assert_eq!(mode(&dir.path().join(file)), 0o640, "{file}");
        }
    }
}

#[test]
fn a_copy_made_under_load_is_a_backup() {
    for kind in OF_TEXT {
        let (dir, mut ledger) = some_records(kind);
        let server = Server::spawn(kind.command(dir.path()));
        let mut client = Client::connect(kind, &server.addrs);
        let backup = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            let put = scope.spawn(|| (0..50).map(|_| ledger.put(&mut client)).collect::<Vec<_>>());
            let mut copy = Command::new("cp");
            // The codes last, for there are messages of none that has no code.
            let files = kind
                .files()
                .iter()
                .rev()
                .filter(|file| !file.starts_with('.'));
            copy.args(files.map(|file| dir.path().join(file)))
                .arg(backup.path());
            assert!(copy.status().unwrap().success());
            assert!(put.join().unwrap().iter().all(|outcome| *outcome == Done));
        });
        drop(server);
        // Restored in the place of what was lost.
        let restored = tempfile::tempdir().unwrap();
        for name in names(backup.path()) {
            fs::copy(backup.path().join(&name), restored.path().join(&name)).unwrap();
        }
        let first = Ledger::new(kind).contents(restored.path());
        let sent = ledger.records.iter().map(|(record, _)| record);
        assert!(first.len() >= 6, "{first:?}");
        assert!(sent.take(first.len()).eq(&first), "{first:?}");
    }
}
