//! The file client: what it gets and sends, what it says, and that it leaves no half file.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use crate::file::{Tree, contents, copy_files, large_file};
use crate::harness::{
    Address, Needs, Ran, Running, Server, Then, data, door, eventually, fake_server, has_door,
    has_door_of_batches, program, run, run_command,
};

/// `file-client HOST PORT ...`, in a folder.
#[track_caller]
pub fn client(server: &Server, folder: &Path, args: &[&str]) -> Ran {
    client_with_input(server, folder, args, "")
}

#[track_caller]
fn client_with_input(server: &Server, folder: &Path, args: &[&str], input: &str) -> Ran {
    let mut command = Command::new(program("file-client"));
    command.args(server.host_and_ports()).args(args);
    command.current_dir(folder);
    run_command(command, input.as_bytes())
}

/// What a client wrote to standard error, without the times.
pub fn said(ran: &Ran) -> Vec<&str> {
    let time_bytes = |line: &str| match line.split_once(" [") {
        Some((time, _)) if time.starts_with("20") => time.len() + 1,
        _ => 0,
    };
    let lines = ran.stderr.lines();
    lines.map(|line| &line[time_bytes(line)..]).collect()
}

/// A server, and a folder for a client that has one file of its own.
pub struct Sides {
    pub tree: Tree,
    pub server: Server,
    pub here: TempDir,
}

pub fn sides(options: &[&str]) -> Sides {
    let tree = Tree::new();
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("mine.txt"), "mine\n").unwrap();
    fs::create_dir(here.path().join("folder")).unwrap();
    Sides {
        server: tree.start(options),
        tree,
        here,
    }
}

impl Sides {
    /// Runs the client at the server; its exit code, and what it says.
    #[track_caller]
    pub fn check_says(&self, args: &[&str], code: i32, says: &str) {
        client(&self.server, self.here.path(), args)
            .expect(code)
            .check_says(says);
    }

    /// The same through a proxy.
    #[track_caller]
    pub fn check_says_through(&self, proxy: u16, args: &[&str], code: i32, says: &str) {
        run_command(through_proxy(proxy, self.here.path(), args), b"")
            .expect(code)
            .check_says(says);
    }

    /// Runs the client; its exit code, what it says, and which files are new on either side.
    #[track_caller]
    fn check(&self, args: &[&str], code: i32, says: &str, new: &[(&str, &[u8])]) -> Ran {
        let before = (contents(self.here.path()), self.tree.inside());
        let ran = client(&self.server, self.here.path(), args).expect(code);
        assert_eq!(said(&ran), [says], "{args:?}");
        let (mut here, mut there) = before;
        for (name, bytes) in new {
            match name.strip_prefix("there/") {
                Some(name) => there.insert(self.tree.root(name), bytes.to_vec()),
                None => here.insert(self.here.path().join(name), bytes.to_vec()),
            };
        }
        assert!(
            contents(self.here.path()) == here,
            "{args:?}: {:?}",
            self.here
        );
        assert!(self.tree.inside() == there, "{args:?}");
        ran
    }
}

#[test]
fn the_client_gets() {
    let sides = sides(&[]);
    let photo = &*fs::read(sides.tree.root("site/photoServer.jpg")).unwrap();
    let page = &*fs::read(sides.tree.root("site/index.html")).unwrap();
    fs::write(sides.tree.root("site/two words ä%?.txt"), "odd").unwrap();
    let check =
        |args: &[&str], code, says: &str, new: &[(&str, &[u8])]| sides.check(args, code, says, new);
    let saved = |name, bytes: &[u8]| format!("[INFO] [main] Saved {name}: {} bytes", bytes.len());
    let name = "photoServer.jpg";
    let ran = check(
        &["get", "site/photoServer.jpg"],
        0,
        &saved(name, photo),
        &[(name, photo)],
    );
    assert_eq!(ran.out(), "");
    let args = ["get", "/site/index.html", "-o", "folder/page"];
    check(
        &args,
        0,
        &saved("folder/page", page),
        &[("folder/page", page)],
    );
    check(
        &["get", "site/index.html"],
        0,
        &saved("index.html", page),
        &[("index.html", page)],
    );
    // What was there is replaced.
    let args = ["get", "plain/a.txt", "--output", "index.html"];
    check(
        &args,
        0,
        &saved("index.html", b"a"),
        &[("index.html", b"a")],
    );
    let name = "two words ä%?.txt";
    check(
        &["get", &format!("site/{name}")],
        0,
        &saved(name, b"odd"),
        &[(name, b"odd")],
    );
    let says = format!(
        "[INFO] [main] Received site/photoServer.jpg: {} bytes",
        photo.len()
    );
    let ran = check(&["get", "site/photoServer.jpg", "-o", "-"], 0, &says, &[]);
    assert!(ran.stdout == photo);

    let refused = "the server refused: 404 Not Found, there is no such file";
    for args in [
        &["get", "gone.txt"][..],
        &["get", "gone.txt", "-o", "-"],
        &["get", "gone.txt", "-o", "mine.txt"],
    ] {
        let ran = check(args, 1, &format!("file-client: gone.txt: {refused}"), &[]);
        assert_eq!(ran.out(), "");
    }
    let says = "file-client: cannot write nowhere/x: No such file or directory (os error 2)";
    check(&["get", "plain/a.txt", "-o", "nowhere/x"], 2, says, &[]);
    let says = "file-client: cannot write folder: is a directory";
    check(&["get", "plain/a.txt", "-o", "folder"], 2, says, &[]);
}

#[test]
fn the_client_posts() {
    let sides = sides(&["--max-upload", "5"]);
    let check = |args: &[&str], code, says: &str, new: &[(&str, &[u8])]| {
        sides.check(args, code, says, new);
    };
    let mine = &b"mine\n"[..];
    let says = "[INFO] [main] Sent mine.txt: 5 bytes, File received and saved";
    check(&["post", "mine.txt"], 0, says, &[("there/mine.txt", mine)]);
    let deep = [("there/new", &b""[..]), ("there/new/name.txt", mine)];
    check(&["post", "./mine.txt", "new/name.txt"], 0, says, &deep);
    let refused = "file-client: plain: the server refused: 409 Conflict, \
                   the path of an upload names a file, not a folder";
    check(&["post", "mine.txt", "plain"], 1, refused, &[]);
    let says = "file-client: cannot read gone.txt: No such file or directory (os error 2)";
    check(&["post", "gone.txt"], 2, says, &[]);
    check(
        &["post", "/dev/null"],
        2,
        "file-client: /dev/null is not a regular file",
        &[],
    );
    // So much that the server refuses long before all of it is sent.
    fs::write(sides.here.path().join("large"), vec![b'x'; 20_000_000]).unwrap();
    let says = "file-client: large: the server refused: 413 Content Too Large, \
                the upload exceeds 5 bytes";
    check(&["post", "large"], 1, says, &[]);
}

#[test]
fn an_upload_to_a_read_only_server_exits_1() {
    let sides = sides(&["--read-only"]);
    let says = "file-client: mine.txt: the server refused: 403 Forbidden, \
                this server accepts no uploads";
    sides.check(&["post", "mine.txt"], 1, says, &[]);
}

#[test]
fn a_client_whose_reader_goes_away_ends_quietly() {
    let sides = sides(&[]);
    large_file(&sides.tree.root("large.bin"));
    let mut command = Command::new(program("file-client"));
    command.args(sides.server.host_and_ports());
    command.args(["get", "large.bin", "-o", "-"]);
    let (client, mut stdout) = Running::start_unread(command);
    let mut start = [0; 5];
    stdout.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"start");
    drop(stdout);
    let code = client.wait();
    assert_eq!((code, client.stderr.text().as_str()), (Some(0), ""));
}

/// A download that fails with exit code 3 leaves what was there, and nothing else.
#[track_caller]
fn check_lost(reply: &str, then: Then, says: &str) {
    let port = fake_server(reply.as_bytes().to_vec(), then).to_string();
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("old.txt"), "old").unwrap();
    let before = contents(here.path());
    for to in ["old.txt", "new.txt"] {
        let mut command = Command::new(program("file-client"));
        command.args(["127.0.0.1", &port, "get", "x", "-o", to]);
        command.args(then.timeout());
        command.current_dir(here.path());
        let ran = run_command(command, b"").expect(3);
        assert!(ran.stderr.contains(says), "{reply:?}: {}", ran.stderr);
        assert_eq!(contents(here.path()), before, "{reply:?}");
    }
}

#[test]
fn a_download_that_is_cut_short_leaves_nothing() {
    let lost = "file-client: x: the connection to the server was lost";
    let slow = "file-client: x: the server did not answer in time";
    let ok = "HTTP/1.1 200 OK\r\n";
    check_lost("", Then::Close, lost);
    check_lost(ok, Then::Close, lost);
    check_lost(
        &format!("{ok}Content-Length: 10\r\n\r\n"),
        Then::Close,
        lost,
    );
    check_lost(
        &format!("{ok}Content-Length: 10\r\n\r\nonly nine"),
        Then::Close,
        lost,
    );
    check_lost(
        &format!("{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        Then::Close,
        lost,
    );
    check_lost("", Then::Wait, slow);
    check_lost(
        &format!("{ok}Content-Length: 10\r\n\r\nonly nine"),
        Then::Wait,
        slow,
    );
    check_lost(
        "{'success': True}\r\n\r\n",
        Then::Close,
        "file-client: x: the server's reply is malformed: the reply is not HTTP",
    );
    check_lost(
        &format!("{ok}Content-Length: x\r\n\r\n"),
        Then::Close,
        "Content-Length",
    );
    let empty = "HTTP/1.1 204 No Content\r\n\r\n";
    check_lost(
        empty,
        Then::Close,
        "x: the server's reply, 204, does not match the request",
    );
}

/// Nothing stands under the final name before the download is whole, nor when the client is killed.
#[test]
fn a_killed_client_leaves_no_half_file_under_its_name() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let port = fake_server(half.to_vec(), Then::Wait).to_string();
    let here = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("file-client"));
    command
        .args(["127.0.0.1", &port, "get", "x.txt"])
        .current_dir(here.path());
    let client = Running::start(command);
    let is_half_there = || contents(here.path()).values().any(|bytes| bytes == b"half");
    eventually("half of it has arrived", is_half_there);
    assert!(!here.path().join("x.txt").exists());
    client.kill();
    assert!(!here.path().join("x.txt").exists());
}

/// A folder laid out as the repository is, for `data/batch.txt` and the prompt.
fn repository() -> TempDir {
    let here = tempfile::tempdir().unwrap();
    let folder = here.path().join("data/client");
    fs::create_dir_all(&folder).unwrap();
    copy_files(&data("client"), &folder);
    here
}

/// A server of a copy of `data/`.
fn start_of_data(tree: &Tree, options: &[&str]) -> Server {
    fs::create_dir(tree.root("server")).unwrap();
    copy_files(&data("server"), &tree.root("server"));
    tree.start(options)
}

/// Both sides of each sample are the same.
#[track_caller]
fn check_samples(here: &Path, tree: &Tree) {
    for name in ["testServer.txt", "photoServer.jpg", "index.html"] {
        let got = fs::read(here.join(name)).expect(name);
        assert!(
            got == fs::read(data("server").join(name)).unwrap(),
            "{name}"
        );
    }
    for name in ["testClient.txt", "photoClient.jpg"] {
        let sent = fs::read(tree.root(name)).expect(name);
        assert!(
            sent == fs::read(data("client").join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn the_batch_file_of_the_repository_works() {
    if !has_door_of_batches() {
        return;
    }
    let tree = Tree::new();
    let server = start_of_data(&tree, &["--verbose"]);
    let here = repository();
    let port = server.addr().port().to_string();
    let batch = fs::read_to_string(data("batch.txt")).unwrap();
    assert!(batch.contains(" localhost 8080\n") && batch.contains(" localhost\n"));
    // Lines without a port have that of the command line.
    let batch = batch.replace(" 8080\n", &format!(" {port}\n"));
    fs::write(here.path().join("batch.txt"), batch).unwrap();
    let ran = client(&server, here.path(), &["batch", "batch.txt"]).expect(0);
    assert_eq!(ran.out(), "");
    check_samples(here.path(), &tree);
    for name in ["style.css", "diagram.png"] {
        let got = fs::read(here.path().join(name)).unwrap();
        assert!(
            got == fs::read(data("server").join(name)).unwrap(),
            "{name}"
        );
    }
    assert_eq!(said(&ran).len(), 7, "{}", ran.stderr);
    assert_eq!(
        server.end().matches("] Connected\n").count(),
        1,
        "one connection"
    );
}

#[track_caller]
fn check_batch(lines: &str, code: i32, says: &[&str]) {
    let sides = sides(&[]);
    let port = sides.server.addr().port().to_string();
    // A port that nobody listens on: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let lines = lines.replace("PORT", &port);
    let lines = lines.replace("FREE", &free.port().to_string());
    fs::write(sides.here.path().join("batch"), &lines).unwrap();
    let ran = client(&sides.server, sides.here.path(), &["batch", "batch"]).expect(code);
    let said = said(&ran);
    assert_eq!(said.len(), says.len(), "{}", ran.stderr);
    for (said, says) in said.iter().zip(says) {
        assert!(said.starts_with(says), "{}", ran.stderr);
    }
}

#[test]
fn a_batch_goes_on_after_a_failure_and_ends_with_the_highest_code() {
    if !has_door(Needs::Tcp, "a batch names a host and a port") {
        return;
    }
    let saved = "[INFO] [main] Saved a.txt: 1 bytes";
    let sent = "[INFO] [main] Sent mine.txt: 5 bytes, File received and saved";
    check_batch(
        "# comment\n\nclient_get plain/a.txt 127.0.0.1 PORT\nclient_post mine.txt 127.0.0.1\n",
        0,
        &[saved, sent],
    );
    check_batch("", 0, &[]);
    check_batch(
        "client_get gone 127.0.0.1 PORT\nclient_get plain/a.txt 127.0.0.1 PORT\n",
        1,
        &[
            "[ERROR] [main] Line 1: gone: the server refused: 404 Not Found",
            saved,
            "file-client: 1 of 2 requests failed",
        ],
    );
    check_batch(
        "client_get gone 127.0.0.1\nclient_post gone 127.0.0.1\nclient_get plain/a.txt 127.0.0.1\n",
        2,
        &[
            "[ERROR] [main] Line 1: gone: the server refused: 404 Not Found",
            "[ERROR] [main] Line 2: cannot read gone: ",
            saved,
            "file-client: 2 of 3 requests failed",
        ],
    );
    check_batch(
        "client_get x 127.0.0.1 FREE\nclient_post gone 127.0.0.1\nclient_post mine.txt 127.0.0.1\n",
        3,
        &[
            "[ERROR] [main] Line 1: cannot connect to 127.0.0.1:",
            "[ERROR] [main] Line 2: cannot read gone: ",
            sent,
            "file-client: 2 of 3 requests failed",
        ],
    );
    check_batch(
        "client_get plain/a.txt 127.0.0.1\nclient_put x 127.0.0.1\nclient_post mine.txt 127.0.0.1\n",
        2,
        &[
            saved,
            "[ERROR] [main] Line 2: a line is client_get PATH HOST [PORT] or ",
            sent,
            "file-client: 1 of 3 requests failed",
        ],
    );
}

#[test]
fn the_prompt_does_one_command_after_another() {
    let tree = Tree::new();
    let server = start_of_data(&tree, &["--verbose"]);
    let here = repository();
    let commands = "GET server/testServer.txt\nPOST data/client/testClient.txt\n\
                    get server/photoServer.jpg\nwhat?\nPost data/client/photoClient.jpg\n\
                    GET server/gone.txt\nPOST gone.txt\n\nGET server/index.html\n";
    for end in ["", "exit\n", "EXIT\nGET server/style.css\n"] {
        let input = format!("{commands}{end}");
        let ran = client_with_input(&server, here.path(), &[], &input).expect(0);
        assert_eq!(ran.out(), "");
        let prompt = "Enter command (GET/POST file_path): ";
        let asked = commands.lines().count() + 1;
        assert_eq!(ran.stderr.matches(prompt).count(), asked, "{}", ran.stderr);
        for part in [
            "[INFO] [main] Saved testServer.txt: 396 bytes\n",
            "[INFO] [main] Sent photoClient.jpg: 37469 bytes, File received and saved\n",
            "[ERROR] [main] server/gone.txt: the server refused: 404 Not Found, there is",
            "[ERROR] [main] cannot read gone.txt: No such file or directory",
            "[ERROR] [main] a command is GET PATH, POST FILE or exit\n",
        ] {
            assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
        }
        check_samples(here.path(), &tree);
        assert!(!here.path().join("style.css").exists());
    }
    let connections = server.end().matches("] Connected\n").count();
    assert_eq!(connections, 3, "one for each client");
}

/// A server that promises to keep the connection, and does not.
#[test]
fn a_client_connects_again_when_the_server_has_closed() {
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let port = fake_server(reply.to_vec(), Then::Close).to_string();
    let here = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("file-client"));
    command.args(["127.0.0.1", &port]).current_dir(here.path());
    let input = b"GET a\nGET b\nGET c\n";
    run_command(command, input).expect(0);
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read(here.path().join(name)).unwrap(), b"hi", "{name}");
    }
}

/// Passes plain connections on to a server, through the door of the run, and cuts the reply to each
/// after a number of bytes, as often as is said. Returns the port.
pub fn cutting_proxy(server: Address, cuts: Vec<u64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for cut in cuts {
            let (client, _) = listener.accept().unwrap();
            let upstream = door().connect(server).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    // Ends when either side does.
                    let _ = std::io::copy(&mut &client, &mut &upstream);
                });
                let _ = std::io::copy(&mut (&upstream).take(cut), &mut &client);
                let _ = client.shutdown(Shutdown::Both);
                let _ = upstream.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

#[test]
fn a_download_that_loses_its_connection_goes_on_by_itself() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let whole = fs::read(tree.root("site/photoServer.jpg")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("photo");
    let get = |cuts: &[u64]| {
        let port = cutting_proxy(server.addr(), cuts.to_vec());
        let line = ["get", "site/photoServer.jpg", "-o", saved.to_str().unwrap()];
        run_command(through_proxy(port, dir.path(), &line), b"")
    };
    let ran = get(&[20_000, 0, 1000, 30_000, u64::MAX]).expect(0);
    assert_eq!(
        ran.stderr.matches("; continuing after").count(),
        4,
        "{}",
        ran.stderr
    );
    assert!(fs::read(&saved).unwrap() == whole);
    // Five tries, and then no more; nothing is left of it.
    fs::remove_file(&saved).unwrap();
    get(&[1000; 5]).expect(3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_download_that_is_not_what_was_sent_is_not_saved() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        let digest = "RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=";
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nRepr-Digest: sha-256=:{digest}:\r\n\r\nother"
        );
        client.write_all(reply.as_bytes()).unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("a").display().to_string();
    let line = ["127.0.0.1", &port, "get", "a", "-o", &saved];
    let ran = run("file-client", &line, b"").expect(3);
    let want = "a: the file does not match the server's digest";
    assert!(ran.stderr.contains(want), "{}", ran.stderr);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_client_shows_what_there_is() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let say = |line: &str| {
        let mut args = server.host_and_ports();
        args.extend(line.split_whitespace().map(str::to_owned));
        run("file-client", &args, b"")
    };
    let listed = say("list plain").expect(0).out();
    assert!(listed.starts_with("a.txt\t1\t"), "{listed}");
    let listed = say("list").expect(0).out();
    assert!(listed.contains("plain/\t\t"), "{listed}");
    let head = say("head plain/a.txt").expect(0).out();
    assert!(head.contains("\nContent-Length: 1\n"), "{head}");
    for refused in ["list nowhere", "head nowhere", "list plain/a.txt"] {
        let ran = say(refused).expect(1);
        assert_eq!(ran.out(), "", "{refused}");
    }
    say("head").expect(2);
    say("list a b").expect(2);
    say("get plain/a.txt --create-only").expect(2);
    let quiet = say("get plain/a.txt -o - --quiet").expect(0);
    assert_eq!((quiet.out().as_str(), quiet.stderr.as_str()), ("a", ""));
}

#[test]
fn the_client_overwrites_nothing_when_it_is_told_so() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let file = data("client/testClient.txt");
    let mut line = server.host_and_ports();
    line.extend([
        "put".to_owned(),
        file.display().to_string(),
        "new/a".to_owned(),
    ]);
    line.push("--create-only".to_owned());
    run("file-client", &line, b"").expect(0);
    let ran = run("file-client", &line, b"").expect(1);
    assert!(
        ran.stderr.contains("412 Precondition Failed"),
        "{}",
        ran.stderr
    );
    line.pop();
    run("file-client", &line, b"").expect(0);
    assert_eq!(
        fs::read(tree.root("new/a")).unwrap(),
        fs::read(file).unwrap()
    );
}

/// `file-client 127.0.0.1 PORT ...` in a folder.
pub fn command(port: u16, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program("file-client"));
    command.args(["127.0.0.1", &port.to_string()]).args(args);
    command.current_dir(folder).env_remove("RUST_LOG");
    command
}

/// The same at a proxy, which opens the door itself; what is left is to log in.
pub fn through_proxy(port: u16, folder: &Path, args: &[&str]) -> Command {
    let mut command = command(port, folder, args);
    command.args(door().login_options());
    command
}

/// Runs the client to its end; its exit code, and what it says.
#[track_caller]
pub fn check_says(port: u16, folder: &Path, args: &[&str], code: i32, says: &str) {
    let ran = run_command(command(port, folder, args), b"").expect(code);
    ran.check_says(says);
}

/// The names in a folder, in order.
pub fn names(folder: &Path) -> Vec<String> {
    let paths = contents(folder).into_keys();
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.map(name).collect()
}

/// A server that answers only when this many clients wait. Returns its port.
fn patient_server(clients: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let waiting: Vec<_> = listener
            .incoming()
            .take(clients)
            .map(Result::unwrap)
            .collect();
        for mut stream in waiting {
            read_request(&mut stream).unwrap();
            let reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
            stream.write_all(reply).unwrap();
        }
    });
    port
}

#[test]
fn a_batch_does_several_lines_at_once() {
    const JOBS: usize = 8;
    let here = tempfile::tempdir().unwrap();
    let port = patient_server(JOBS);
    let line = |n| format!("client_get file-{n} 127.0.0.1\n");
    let lines: String = (0..JOBS).map(line).collect();
    fs::write(here.path().join("batch"), lines).unwrap();
    let args = ["batch", "batch", "-j", &JOBS.to_string()];
    let ran = run_command(command(port, here.path(), &args), b"").expect(0);
    for n in 0..JOBS {
        let saved = format!("] Saved file-{n}: 2 bytes\n");
        assert!(ran.stderr.contains(&saved), "{}", ran.stderr);
        let got = fs::read(here.path().join(format!("file-{n}"))).unwrap();
        assert_eq!(got, b"hi");
    }
}

#[test]
fn a_batch_of_many_lines_says_which_failed() {
    if !has_door(Needs::Tcp, "a batch names a host and a port") {
        return;
    }
    const LINES: usize = 60;
    let sides = sides(&[]);
    let line = |n| match n % 3 {
        0 => format!("client_get gone-{n} 127.0.0.1\n"),
        1 => format!("client_post file-{n} 127.0.0.1\n"),
        _ => "client_get plain/a.txt 127.0.0.1\n".to_owned(),
    };
    let lines: String = (0..LINES).map(line).collect();
    fs::write(sides.here.path().join("batch"), lines).unwrap();
    for n in 0..LINES {
        fs::write(sides.here.path().join(format!("file-{n}")), n.to_string()).unwrap();
    }
    for jobs in ["1", "4", "64"] {
        let args = ["batch", "batch", "--jobs", jobs];
        let ran = client(&sides.server, sides.here.path(), &args).expect(1);
        for n in (0..LINES).step_by(3) {
            let says = format!("] Line {}: gone-{n}: the server refused: 404 ", n + 1);
            assert_eq!(ran.stderr.matches(&says).count(), 1, "{}", ran.stderr);
        }
        assert!(
            ran.stderr
                .ends_with("file-client: 20 of 60 requests failed\n")
        );
        for n in (1..LINES).step_by(3) {
            let path = sides.tree.root(&format!("file-{n}"));
            assert_eq!(fs::read_to_string(&path).unwrap(), n.to_string());
            fs::remove_file(path).unwrap();
        }
        assert_eq!(fs::read(sides.here.path().join("a.txt")).unwrap(), b"a");
    }
}

/// A request, as a server reads it.
pub struct Asked {
    /// The method and the target.
    pub line: String,
    fields: HashMap<String, String>,
}

impl Asked {
    /// The value of a field, empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Reads the head of a request, and nothing behind it; `None` at the end of the connection.
pub fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, fields) = head.split_once("\r\n").unwrap();
    let field = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    };
    Some(Asked {
        line: line.strip_suffix(" HTTP/1.1").unwrap().to_owned(),
        fields: fields.lines().filter_map(field).collect(),
    })
}

/// A server that wants to know who asks. Returns its port, and what it is told each time.
fn guarded_server(want: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(asked) = read_request(&mut stream) else {
                continue;
            };
            let who = asked.field("authorization");
            let reply = match who == want {
                true => "200 OK",
                false => "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"files\"",
            };
            tell.lock().unwrap().push(who.to_owned());
            let end = "Connection: close\r\nContent-Length: 2\r\n\r\nhi";
            // The client may have gone.
            let _ = write!(stream, "HTTP/1.1 {reply}\r\n{end}");
        }
    });
    (port, told)
}

#[test]
fn a_server_is_told_who_asks_and_no_other_is() {
    let here = tempfile::tempdir().unwrap();
    let auth = here.path().join("auth");
    fs::write(&auth, "me:open sesame\n").unwrap();
    let mode = |mode| fs::set_permissions(&auth, fs::Permissions::from_mode(mode)).unwrap();
    let (port, told) = guarded_server("Basic bWU6b3BlbiBzZXNhbWU=");
    let get = ["get", "a"];
    let get_as = ["get", "a", "--auth-file", "auth", "-v"];
    let says = "file-client: a: the server refused: 401 Unauthorized, hi; --auth-file FILE says";
    check_says(port, here.path(), &get, 1, says);
    mode(0o644);
    let says = "file-client: auth holds a password and others can read it; chmod 600 auth ends";
    check_says(port, here.path(), &get_as, 2, says);
    mode(0o600);
    let ran = run_command(command(port, here.path(), &get_as), b"").expect(0);
    assert!(!ran.stderr.contains("sesame") && !ran.stderr.contains("bWU6"));

    let (other, told_other) = guarded_server("");
    let lines = format!("client_get b 127.0.0.1 {other}\nclient_get c 127.0.0.1\n");
    fs::write(here.path().join("batch"), lines).unwrap();
    let batch = ["batch", "batch", "--auth-file", "auth"];
    check_says(port, here.path(), &batch, 0, "Saved c: 2 bytes");
    let (told, told_other) = (told.lock().unwrap(), told_other.lock().unwrap());
    assert_eq!((&told[0], told.len()), (&String::new(), 3));
    assert_eq!(told_other.as_slice(), [""]);

    let (stranger, _) = guarded_server("Basic bWU6b3BlbiBzZXNhbWU=");
    let line = format!("client_get d 127.0.0.1 {stranger}\n");
    fs::write(here.path().join("batch"), line).unwrap();
    let says = format!("; --auth-file FILE says who asks, to 127.0.0.1:{port} alone\n");
    check_says(port, here.path(), &batch, 1, &says);

    fs::write(&auth, "nobody").unwrap();
    let says = "file-client: the first line of auth is not USER:PASSWORD\n";
    check_says(port, here.path(), &get_as, 2, says);
}
