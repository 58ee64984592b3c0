//! Our clients at servers that are not ours: openssl and Python for TLS, and a few bytes for logins.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use crate::harness::{
    Certificates, PATIENCE, Ran, Running, Then, eventually, fake_server, program, root,
    run_command, skipped,
};

/// Runs a client in a folder, with standard input at its end.
#[track_caller]
fn client<S: AsRef<OsStr>>(name: &str, folder: &Path, args: &[S]) -> Ran {
    let mut command = Command::new(program(name));
    command.args(args).current_dir(folder);
    run_command(command, b"")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `openssl s_server`, which serves the files of its folder; and its port.
fn openssl(folder: &Path, options: &[&str]) -> (Running, String) {
    let made = Certificates::get();
    let mut command = Command::new("openssl");
    command.current_dir(folder);
    command.args(["s_server", "-accept", "127.0.0.1:0", "-WWW"]);
    command.arg("-cert").arg(&made.server.cert);
    command.arg("-key").arg(&made.server.key).args(options);
    let server = Running::start(command);
    let port = || {
        let said = server.stdout_text();
        let line = said.lines().find(|line| line.starts_with("ACCEPT"))?;
        line.rsplit(':').next().map(str::to_owned)
    };
    eventually("openssl listens", || port().is_some());
    let port = port().unwrap();
    (server, port)
}

#[test]
fn files_come_from_openssl_in_both_versions() {
    // openssl 3.0 knows no `--version`.
    if Command::new("openssl").arg("version").output().is_err() {
        return skipped("there is no openssl");
    }
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
    fs::write(there.path().join("file"), &file).unwrap();
    let made = Certificates::get();
    let ca = text(&made.authority.cert);
    let get = ["get", "file", "-q", "--tls", "--tls-ca", ca];
    for version in ["-tls1_2", "-tls1_3"] {
        let (_server, port) = openssl(there.path(), &[version]);
        for host in ["localhost", "127.0.0.1"] {
            client(
                "file-client",
                here.path(),
                &[&[host, &port], &get[..]].concat(),
            )
            .expect(0);
            let got = fs::read(here.path().join("file")).unwrap();
            assert!(got == file, "{version} {host}");
        }
        let strange = ["localhost", &port, "get", "file", "--tls"];
        let refused = client("file-client", here.path(), &strange).expect(3);
        assert_eq!(
            refused.stderr,
            "file-client: nobody who is trusted here has signed the server's certificate; --tls-ca \
             FILE trusts those in FILE\n"
        );
        let plain = client(
            "file-client",
            here.path(),
            &["localhost", &port, "get", "file"],
        );
        assert_eq!(plain.code, Some(3), "{}", plain.stderr);

        let asks = [
            "-Verify",
            "1",
            "-verify_return_error",
            "-CAfile",
            ca,
            version,
        ];
        let (_server, port) = openssl(there.path(), &asks);
        let get = [&["localhost", &port], &get[..]].concat();
        let refused = client("file-client", here.path(), &get).expect(3);
        assert!(refused.stderr.contains("asks for a client certificate"));
        let (cert, key) = (text(&made.client.cert), text(&made.client.key));
        let shown = ["--tls-cert", cert, "--tls-key", key];
        client("file-client", here.path(), &[&get[..], &shown].concat()).expect(0);
    }
}

#[test]
fn a_reply_that_is_cut_off_is_not_taken_for_whole() {
    let here = tempfile::tempdir().unwrap();
    let made = Certificates::get();
    let mut command = Command::new("python3");
    command.arg(root().join("tests/python/tls_cut.py"));
    command.arg(&made.server.cert).arg(&made.server.key);
    let server = Running::start(command);
    server.wait_for_stderr(|port| port.ends_with('\n'));
    let port = server.stderr.text().trim().to_owned();
    let ca = text(&made.authority.cert);
    let get = ["localhost", &port, "get", "story", "--tls", "--tls-ca", ca];
    let lost = client("file-client", here.path(), &get).expect(3);
    assert!(
        lost.stderr
            .contains("the connection to the server was lost")
    );
    assert!(!here.path().join("story").exists());
}

/// A file with an account that its owner alone may read.
fn account(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("account");
    fs::write(&path, "alice:secret\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// A server that reads a piece of each of its connections and replies these bytes. Returns its port, and
/// what it has read of each when all have come.
fn scripted(replies: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let serve = move |reply: Vec<u8>| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut piece = vec![0; 4096];
        let bytes = stream.read(&mut piece).unwrap();
        piece.truncate(bytes);
        stream.write_all(&reply).unwrap();
        piece
    };
    let thread = thread::spawn(move || replies.into_iter().map(serve).collect());
    (port, thread)
}

const LOGIN: &[u8] = b"\0\0\0\x0d\x30\x05alicesecret";
const LOGGED_IN: &[u8] = b"\0\0\0\x01\x70";

#[test]
fn a_login_goes_with_the_first_request_of_each_connection() {
    let here = tempfile::tempdir().unwrap();
    let auth = account(&here);
    let empty = b"\0\0\0\x01\x44";
    let shutting_down = b"\0\0\0\x06\x7f\x0adown";
    // The first one has to be tried again.
    let replies = [
        [LOGGED_IN, shutting_down].concat(),
        [LOGGED_IN, empty, empty].concat(),
    ];
    let (port, server) = scripted(replies.into());
    let wait = ["--wait-for-server", "60", "--auth-file", text(&auth)];
    let purge = [&["127.0.0.1", &port, "peek"], &wait[..]].concat();
    client("queue-client", here.path(), &purge);
    for sent in server.join().unwrap() {
        assert!(
            sent.starts_with(LOGIN) && sent.len() > LOGIN.len(),
            "{sent:?}"
        );
    }

    let (port, server) = scripted(vec![[LOGGED_IN, b"\0\0\0\x01\x63"].concat()]);
    let hello = [
        "127.0.0.1",
        &port,
        "hello",
        "alice",
        "--auth-file",
        text(&auth),
    ];
    client("history-client", here.path(), &hello).expect(0);
    let hello = b"\0\0\0\x07\x20\x05alice";
    assert_eq!(server.join().unwrap(), [[LOGIN, hello].concat()]);
}

#[test]
fn a_refused_login_is_said_and_is_no_trouble_with_the_network() {
    let here = tempfile::tempdir().unwrap();
    let auth = account(&here);
    let refused = b"\0\0\0\x16\x7f\x0cwrong user or pass.\n".to_vec();
    for (name, words, says) in [
        (
            "queue-client",
            &["list"][..],
            "the server refused: wrong user",
        ),
        ("history-client", &["get", "alice"], "wrong user"),
    ] {
        let port = fake_server(refused.clone(), Then::Close).to_string();
        let auth = ["--auth-file", text(&auth)];
        let args = [&["127.0.0.1", &port], words, &auth].concat();
        let ran = client(name, here.path(), &args).expect(1);
        assert!(
            ran.stderr.starts_with(&format!("{name}: {says}")),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.ends_with("; --auth-file FILE says who asks\n"));
        assert!(!ran.stderr.contains("secret"));
    }
}

#[test]
fn a_variable_names_the_server() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
            stream.write_all(reply).unwrap();
        }
    });
    let unix = format!("unix:{}", text(&path));
    let get = |words: &[&str], variable: &str| {
        let mut command = Command::new(program("file-client"));
        command.args(words).args(["get", "file", "-o", "-", "-q"]);
        command
            .current_dir(here.path())
            .env("QUARTET_FILE", variable);
        run_command(command, b"")
    };
    assert_eq!(get(&[], &unix).expect(0).stdout, b"hi");
    // What the command line says comes first.
    assert_eq!(get(&[&unix], "h:1").expect(0).stdout, b"hi");
    server.join().unwrap();
    let wrong = get(&[], "nowhere").expect(2).stderr;
    let says = "file-client: $QUARTET_FILE must be HOST PORT or unix:/path, not 'nowhere'";
    assert!(wrong.starts_with(says), "{wrong}");
}
