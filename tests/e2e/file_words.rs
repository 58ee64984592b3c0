//! What a person types to the file client, and meets: folders, dashes, addresses in brackets, names
//! with spaces.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::file_client::{Sides, client, names, said, sides};
use crate::harness::{
    Needs, Server, has_door, has_door_of_batches, program, run, run_command, skipped,
};

impl Sides {
    /// Runs the client with something on its standard input; what it says.
    #[track_caller]
    fn ask(&self, args: &[&str], input: &str, code: i32) -> Vec<String> {
        let mut command = Command::new(program("file-client"));
        command.args(self.server.host_and_ports()).args(args);
        command.current_dir(self.here.path());
        let ran = run_command(command, input.as_bytes()).expect(code);
        assert_eq!(ran.out(), "");
        said(&ran).into_iter().map(str::to_owned).collect()
    }

    fn there(&self, name: &str) -> String {
        fs::read_to_string(self.tree.root(name)).unwrap()
    }
}

#[test]
fn a_folder_is_no_file() {
    let sides = sides(&[]);
    let before = names(sides.here.path());
    fs::create_dir(sides.tree.root("plain/two words")).unwrap();
    let says = |path: &str| {
        let name = path.trim_end_matches('/');
        format!(
            "{path} is a folder on the server; 'file-client get {name}/' gets all of it, list shows what is in it"
        )
    };
    for (path, output) in [
        ("", None),
        ("plain", None),
        ("/plain/two words", None),
        ("plain", Some("page.html")),
        ("plain", Some("-")),
    ] {
        for resume in [&["--resume"][..], &[]] {
            let mut args = vec!["get", path];
            args.extend(output.iter().flat_map(|output| ["-o", output]));
            if output != Some("-") {
                args.extend(resume);
            }
            let says = format!("file-client: {}", says(path));
            assert_eq!(sides.ask(&args, "", 1), [says]);
            assert_eq!(names(sides.here.path()), before);
        }
    }
    let head = format!("file-client: {}", says("plain"));
    assert_eq!(sides.ask(&["head", "plain"], "", 1), [head]);
    let said = sides.ask(&["--quiet"], "GET plain\nGET plain/\n", 0);
    let says = |path| format!("[ERROR] [main] {}", says(path));
    assert_eq!(said, [says("plain"), says("plain/")]);
    // A folder's own page is a file, and the prompt gets files.
    let page = fs::read(sides.tree.root("site/index.html")).unwrap();
    sides.ask(&["--quiet"], "GET site/\n", 0);
    assert_eq!(
        fs::read(sides.here.path().join("index.html")).unwrap(),
        page
    );
}

#[test]
fn a_folder_with_a_page_can_be_listed() {
    let sides = sides(&[]);
    for path in ["site", "site/", "/site"] {
        let ran = client(&sides.server, sides.here.path(), &["list", path]).expect(0);
        assert!(ran.out().contains("index.html\t3185\t"), "{}", ran.out());
        assert!(ran.out().contains("style.css\t"), "{}", ran.out());
    }
    if !has_door(Needs::Plain, "the script knows plain TCP alone") {
        return;
    }
    let url = format!("http://{}/site/", sides.server.addr());
    let python = "import sys, urllib.request as r
for query in sys.argv[2:]:
    print(r.urlopen(sys.argv[1] + query).headers['Content-Type'])";
    // Again and again: it is not mistaken for the page that is kept ready.
    let queries = ["", "?json", "", "?json", "?sort=size"];
    let mut command = Command::new("python3");
    command.args(["-c", python, &url]).args(queries);
    let kinds = run_command(command, b"").expect(0).out();
    let kinds: Vec<_> = kinds
        .lines()
        .map(|kind| kind.split(';').next().unwrap())
        .collect();
    let (page, list) = ("text/html", "application/json");
    assert_eq!(kinds, [page, list, page, list, page]);
}

#[test]
fn a_folder_that_does_not_show_what_is_in_it_is_not_listed() {
    let sides = sides(&["--no-listing"]);
    sides.ask(&["list", "site"], "", 1);
    sides.ask(&["list", "plain"], "", 1);
}

#[test]
fn a_path_that_ends_in_a_slash_gets_the_name_of_the_file() {
    let sides = sides(&[]);
    let sent = "[INFO] [main] Sent mine.txt: 5 bytes, File received and saved";
    for (path, there) in [
        ("folder/", "folder/mine.txt"),
        ("/new/deep/", "new/deep/mine.txt"),
        ("/", "mine.txt"),
    ] {
        assert_eq!(sides.ask(&["put", "./mine.txt", path], "", 0), [sent]);
        assert_eq!(sides.there(there), "mine\n");
    }
    let args = ["post", "mine.txt", "resumed/", "--resume", "--create-only"];
    assert_eq!(sides.ask(&args, "", 0), [sent]);
    assert_eq!(sides.there("resumed/mine.txt"), "mine\n");
}

#[test]
fn a_dash_is_standard_input() {
    if !has_door_of_batches() {
        return;
    }
    let sides = sides(&[]);
    sides.ask(&["put", "-", "a/b.txt"], "typed", 0);
    assert_eq!(sides.there("a/b.txt"), "typed");
    let said = sides.ask(&["put", "-", "a/"], "typed", 2);
    let says = "file-client: standard input has no name to send it under; say a PATH \
                (see file-client --help)";
    assert_eq!(said, [says]);
    let port = sides.server.addr().port();
    let lines = format!("client_post mine.txt 127.0.0.1\nclient_get plain/a.txt localhost {port}");
    sides.ask(&["batch", "-", "--quiet"], &lines, 0);
    assert_eq!(sides.there("mine.txt"), "mine\n");
    assert_eq!(names(sides.here.path()), ["a.txt", "folder", "mine.txt"]);
    // Where standard input has the commands, a dash is a name like any other.
    fs::write(sides.here.path().join("-"), "dash").unwrap();
    sides.ask(&["--quiet"], "POST -\n", 0);
    assert_eq!(sides.there("-"), "dash");
}

#[test]
fn an_address_may_stand_in_brackets() {
    if !has_door(Needs::Plain, "it is about addresses of the Internet") {
        return;
    }
    if TcpListener::bind("[::1]:0").is_err() {
        return skipped("there is no IPv6");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "a").unwrap();
    let root = dir.path().to_str().unwrap();
    let server = Server::start("file-server", &["0", "--bind", "::1", "--root", root]);
    let port = server.addr().port().to_string();
    for host in ["[::1]", "::1"] {
        let ran = run("file-client", &[host, &port, "get", "a", "-o", "-"], b"").expect(0);
        assert_eq!(ran.out(), "a");
        let line = format!("client_get gone {host} {port}\n");
        let ran = run("file-client", &["batch", "-"], line.as_bytes()).expect(1);
        assert!(ran.stderr.contains("404 Not Found"), "{}", ran.stderr);
    }
    let queue = Server::start("queue-server", &["0", "tcp", "--bind", "::1"]);
    let port = queue.addr().port().to_string();
    run("queue-client", &["[::1]", &port, "send", "-"], b"hi").expect(0);
    drop(queue);
    let ran = run("queue-client", &["[::1]", &port, "receive"], b"").expect(3);
    let says = format!("cannot connect to [::1]:{port}: ");
    assert!(ran.stderr.contains(&says), "{}", ran.stderr);
    let ran = run("queue-client", &["[::1]"], b"").expect(2);
    assert!(ran.stderr.contains("PORT is missing"), "{}", ran.stderr);
}

/// Names that a batch could not say, or that have a meaning in a shell.
const NAMES: [&str; 8] = [
    "two words",
    " in front and behind ",
    "it's",
    "say \"hi\" to #1",
    "back\\slash",
    "$HOME `id` *",
    "tab\there",
    "\u{e4} \u{1f600}",
];

#[test]
fn names_in_a_batch_are_quoted_as_in_a_shell() {
    if !has_door(Needs::Tcp, "a batch names a host and a port") {
        return;
    }
    let sides = sides(&[]);
    fs::create_dir(sides.tree.root("a folder")).unwrap();
    for name in NAMES {
        fs::write(sides.tree.root(&format!("a folder/{name}")), name).unwrap();
    }
    // By somebody else's idea of quoting.
    let quote = "import shlex, sys
for name in sys.argv[1:]:
    print('client_get', shlex.quote('a folder/' + name), '127.0.0.1')
    print('client_post', shlex.quote(name), '127.0.0.1')";
    let mut python = Command::new("python3");
    python.args(["-c", quote]).args(NAMES);
    let lines = run_command(python, b"").expect(0).out();
    sides.ask(&["batch", "-", "--quiet"], &lines, 0);
    for name in NAMES {
        assert_eq!(
            fs::read_to_string(sides.here.path().join(name)).unwrap(),
            name
        );
        assert_eq!(sides.there(name), name);
    }
    let escaped = "client_get a\\ folder/two\\ words 127.0.0.1\n\
                   client_get \"a folder/say \\\"hi\\\" to #1\" 127.0.0.1\r\n";
    sides.ask(&["batch", "-", "--quiet"], escaped, 0);
}

#[test]
fn a_bad_line_of_a_batch_fails_alone() {
    if !has_door(Needs::Tcp, "a batch names a host and a port") {
        return;
    }
    let sides = sides(&[]);
    let bytes = b"client_get plain/a.txt 127.0.0.1\nwhat?\nclient_get 'plain 127.0.0.1\n\
                  client_get \xff\xfe 127.0.0.1\nclient_get a \xff 1\nclient_post mine.txt 127.0.0.1\n";
    fs::write(sides.here.path().join("batch"), bytes).unwrap();
    for jobs in ["1", "4"] {
        let mut said = sides.ask(&["batch", "batch", "-j", jobs], "", 2);
        for line in &mut said {
            *line = line
                .replace(['1', '2', '3', '4'], "N")
                .replace("[job-N]", "[main]");
        }
        said.sort();
        let shape = "a line is client_get PATH HOST [PORT] or client_post FILE HOST [PORT], with \
                     quotes around what holds a space";
        let mut want = [
            "[INFO] [main] Saved a.txt: N bytes".to_owned(),
            format!("[ERROR] [main] Line N: {shape}"),
            "[ERROR] [main] Line N: a quote has no end".to_owned(),
            r"[ERROR] [main] Line N: \xff\xfe: the server refused: N0N Not Found, there is no such file"
                .to_owned(),
            "[ERROR] [main] Line 5: the host is not UTF-8".to_owned(),
            "[INFO] [main] Sent mine.txt: 5 bytes, File received and saved".to_owned(),
            "file-client: N of 6 requests failed".to_owned(),
        ];
        want.sort();
        assert_eq!(said, want, "-j {jobs}");
        fs::remove_file(sides.here.path().join("a.txt")).unwrap();
        fs::remove_file(sides.tree.root("mine.txt")).unwrap();
    }
}
