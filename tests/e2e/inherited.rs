//! Listening sockets that a parent passes to a server (`LISTEN_FDS`), and holds while it restarts.

use std::path::Path;
use std::process::Command;

use crate::harness::{Ran, Running, listening, program, root, run_command};
use crate::limits::GOOD;

/// How often a server is restarted under load.
const RESTARTS: usize = 10;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What each server is asked, and how its answer begins.
fn asked(name: &str) -> (Vec<u8>, &'static [u8]) {
    let good = GOOD.iter().find(|(of, ..)| *of == name);
    let (_, request, answer) = good.unwrap();
    let request = String::from_utf8_lossy(request);
    let request = request.replace(": h\r\n", ": h\r\nConnection: close\r\n");
    (request.into_bytes(), answer)
}

/// The options of a server on sockets that are passed to it.
fn options(name: &str, folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let options = match name {
        "code-server" => vec!["--host", "h", "--data-dir", folder],
        "history-server" => vec!["--data-dir", folder],
        "file-server" => vec!["--host", "h", "--root", folder],
        _ => vec![],
    };
    options.into_iter().map(str::to_owned).collect()
}

#[test]
fn a_restart_refuses_nobody_and_loses_no_request() {
    for (name, ..) in GOOD {
        for is_unix in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("hello.txt"), "hello\n").unwrap();
            let sockets = ["first", "second"].map(|path| match is_unix {
                true => format!("unix:{}", dir.path().join(path).display()),
                false => "tcp".to_owned(),
            });
            let sockets = match name {
                "code-server" => sockets.join(","),
                _ => sockets[0].clone(),
            };
            let (request, answer) = asked(name);
            let mut command = Command::new("python3");
            command
                .arg(root().join("tests/python/restart_under_load.py"))
                .args([sockets, hex(&request), hex(answer), RESTARTS.to_string()])
                .arg(program(name))
                .args(options(name, dir.path()));
            let ran = run_command(command, b"").expect(0);
            let said = ran.out();
            assert!(said.ends_with(" answers, 0 failures\n"), "{name}: {said}");
            assert_eq!(
                ran.stderr.matches("Server started on").count() % (RESTARTS + 1),
                0
            );
            // The parent's files stay.
            assert_eq!(dir.path().join("first").exists(), is_unix, "{name}");
        }
    }
}

fn pass(sockets: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(root().join("tests/python/pass_sockets.py"))
        .args(sockets)
        .arg("--")
        .arg(program(words[0]))
        .args(&words[1..]);
    command
}

#[test]
fn sockets_that_do_not_fit_are_refused() {
    #[track_caller]
    fn check(sockets: &[&str], words: &[&str], want: &str) {
        let Ran { stderr, .. } = run_command(pass(sockets, words), b"").expect(2);
        assert!(stderr.contains(want), "{sockets:?} {words:?}: {stderr}");
    }
    let queue = ["queue-server"];
    let no_stream = "descriptor 3 (LISTEN_FDS) is not a TCP socket or a Unix stream socket";
    check(&["udp"], &queue, no_stream);
    check(&["file"], &queue, no_stream);
    check(
        &["idle"],
        &queue,
        "descriptor 3 (LISTEN_FDS) does not listen",
    );
    check(&["tcp", "udp"], &queue, "descriptor 4 (LISTEN_FDS) is not");
    let place = "LISTEN_FDS says where to listen, so --bind and a port cannot";
    check(&["tcp"], &["queue-server", "--bind", "127.0.0.1"], place);
    check(&["tcp"], &["queue-server", "5555"], place);
    let udp = "UDP sockets cannot be; use TCP";
    check(&["tcp"], &["queue-server", "0", "BOTH"], udp);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let code = ["code-server", "--data-dir", folder];
    let count = "1 sockets were passed (LISTEN_FDS), and the server's 2 ports need as many each";
    check(&["tcp"], &code, count);
}

#[test]
fn the_code_server_takes_half_for_codes_and_half_for_messages() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("unix:{}", dir.path().join(name).display());
    let sockets = ["tcp", &path("a"), "tcp", &path("b")];
    let folder = dir.path().to_str().unwrap();
    let command = pass(&sockets, &["code-server", "--data-dir", folder]);
    let server = Running::start(command);
    server.wait_for_stderr(|log| listening(log) == 4);
    let log = server.stderr.text();
    let notes = log.lines().filter_map(|line| line.rsplit_once(" ("));
    let notes: Vec<_> = notes.map(|(_, note)| note).collect();
    assert_eq!(
        notes,
        ["codes)", "codes)", "messages)", "messages)"],
        "{log}"
    );
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(dir.path().join("a").exists());
}

#[test]
fn a_history_on_a_passed_socket_that_others_reach_needs_users() {
    // Only loopback is passed here, which needs none.
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let server = Running::start(pass(&["tcp"], &["history-server", "--data-dir", folder]));
    server.wait_for_stderr(|log| listening(log) == 1);
    let out = run_command(
        pass(&["all"], &["history-server", "--data-dir", folder]),
        b"",
    );
    let out = out.expect(2);
    assert!(
        out.stderr.contains("can be reached from other machines"),
        "{}",
        out.stderr
    );
}
