//! Who may use the file service: files of accounts that are wrong, guesses that hurt nobody else,
//! replies that no cache gives to others, and who did what in the log.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proto::http::basic;

use crate::file::{Http, Reply, Tree, ask, get};
use crate::harness::{
    Carrier, Certificates, Door, Nginx, Ran, Server, eventually, has_program, is_installed,
    program, run, run_command, skipped,
};

/// Of "sesame", as `openssl passwd -6` makes it.
const ANN: &str = "ann:$6$quartet$tOFfjOUJjT8tUEFbjfHa7RKvFURczCKqKXZOeTA7C6YVbwu73zbAF8hWAr.HmymC3dKxDWAtXaIK9CIGE/h3G/\n";

/// `ann:sesame`, for RFC 7617.
const IS_ANN: &str = "Authorization: Basic YW5uOnNlc2FtZQ==\r\n";

fn write_accounts(tree: &Tree, text: &str, mode: u32) -> String {
    let path = tree.path("accounts");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A server with an account for ann.
fn start_for_ann(tree: &Tree, options: &[&str]) -> Server {
    let accounts = write_accounts(tree, ANN, 0o600);
    tree.start(&[&["--auth-file", &accounts], options].concat())
}

/// Runs curl with these arguments and the server's address in front of the path; the status.
#[track_caller]
fn curl(server: &Server, args: &[&str], path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
    command.args(args);
    command.arg(format!("http://{}{path}", server.addr()));
    run_command(command, b"").expect(0).out()
}

#[test]
fn a_file_of_accounts_that_cannot_be_right_stops_the_start() {
    let tree = Tree::new();
    let start = |text: &str, mode: u32| -> Ran {
        let accounts = write_accounts(&tree, text, mode);
        let root = tree.root("");
        let line = [
            "0",
            "--root",
            root.to_str().unwrap(),
            "--auth-file",
            &accounts,
        ];
        run("file-server", &line, b"").expect(2)
    };
    for (text, mode, want) in [
        (
            "# Us.\nann:$5$x$!!!!\n",
            0o600,
            "line 2: this hash is not whole",
        ),
        ("ann:$6$x$!!!!\n", 0o600, "line 1: this hash is not whole"),
        (
            "ann:$1$x$y\n",
            0o600,
            "line 1: a hashed password is a SHA-crypt one",
        ),
        ("ann:plain\n", 0o644, "others can read it"),
        (
            "ann:$5$quartet$K7C2DS9Dq7yQ/l93/AD8dVYZWK6a57uqo5Az3wsic64:root\n",
            0o600,
            "line 1: a role is read, write or admin",
        ),
    ] {
        let ran = start(text, mode);
        assert!(ran.stderr.contains(want), "{text}: {}", ran.stderr);
        assert!(!ran.stderr.contains("Server started"), "{}", ran.stderr);
    }
}

#[test]
fn hashes_that_others_can_read_or_change_are_warned_of() {
    let tree = Tree::new();
    for (mode, want) in [
        (0o600, None),
        (0o640, None),
        (
            0o644,
            Some("can be read by others, who can guess at its hashes"),
        ),
        (
            0o620,
            Some("can be changed by others, who can add accounts"),
        ),
        (
            0o666,
            Some("can be changed by others, who can add accounts"),
        ),
    ] {
        let accounts = write_accounts(&tree, ANN, mode);
        let log = tree.start(&["--auth-file", &accounts]).log();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("[WARN]")).collect();
        assert_eq!(
            warnings.len(),
            usize::from(want.is_some()),
            "{mode:o}: {log}"
        );
        let says = format!(
            "{accounts} {}: chmod 600 {accounts}",
            want.unwrap_or_default()
        );
        assert!(
            warnings.iter().all(|warning| warning.ends_with(&says)),
            "{log}"
        );
    }
}

#[test]
fn a_plain_password_that_ends_like_a_role_is_warned_of() {
    let tree = Tree::new();
    let accounts = write_accounts(&tree, "ann:sesame:admin\nbob:sesame\n", 0o600);
    let server = tree.start(&["--auth-file", &accounts]);
    let warning = |user: &str| {
        format!("{accounts}: '{user}' may write, because a plain password is the rest of its line")
    };
    let log = server.log();
    assert!(log.contains(&warning("ann")), "{log}");
    assert!(!log.contains(&warning("bob")), "{log}");
    for (password, want) in [("sesame", 401), ("sesame:admin", 201)] {
        let who = basic::authorization("ann", password);
        let request = put(&format!("Authorization: {who}\r\n"));
        assert_eq!(ask(&server, request).status, want);
    }
    write_accounts(&tree, "bob:sesame:read\n", 0o600);
    server.signal("HUP");
    server.wait_for_log(|log| log.contains(&warning("bob")));
    assert!(!server.log().contains("sesame"), "{}", server.log());
}

/// A file server that has read two secrets, which are beside its root.
struct WithSecrets {
    tree: Tree,
    key: String,
    accounts: String,
    server: Server,
}

impl WithSecrets {
    fn start() -> Self {
        let tree = Tree::new();
        let accounts = write_accounts(&tree, ANN, 0o600);
        let authority = &Certificates::get().authority;
        let pair = authority.server(&tree.path(""), "server");
        let root = tree.root("");
        let [cert, key, root] = [&pair.cert, &pair.key, &root].map(|path| path.to_str().unwrap());
        let mut options = vec!["--root", root, "--manage", "--auth-file", &accounts];
        options.extend(["--tls-cert", cert, "--tls-key", key]);
        // It has a key, and yet a test can speak to it as it is.
        let door = Door {
            carrier: Carrier::Unix,
            has_accounts: false,
        };
        let server = Server::start_behind(door, "file-server", &options);
        Self {
            key: key.to_owned(),
            tree,
            accounts,
            server,
        }
    }

    fn get(&self, target: &str) -> Reply {
        self.ask(&format!("GET /{target}"), "")
    }

    fn ask(&self, line: &str, fields: &str) -> Reply {
        let mut stream = self.server.connect();
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{IS_ANN}{fields}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        Http::over(stream).reply()
    }

    /// Checks that this name in the root is neither served nor listed.
    #[track_caller]
    fn check_withheld(&self, name: &str) {
        assert!(self.tree.root(name).exists(), "{name}");
        assert_eq!(self.get(name).status, 404, "{name}");
        for list in ["", "?json", "?sort=size", "?json&sort=time"] {
            let list = self.get(list).text();
            let has = |name: &str| list.contains(&format!("\"./{name}\""));
            assert!(has("plain/") && !has(name), "{name}: {list}");
        }
    }
}

/// What is checked at the start is checked again, and what was read before stays in use.
#[test]
fn a_secret_in_the_root_is_neither_read_again_nor_served() {
    let with = WithSecrets::start();
    let WithSecrets { tree, server, .. } = &with;
    assert_eq!(with.get("plain/a.txt").status, 200);
    fs::hard_link(&with.key, tree.root("linked")).unwrap();
    with.check_withheld("linked");
    for (secret, kept) in [
        (&with.key, "The certificate and the key stay as they were"),
        (&with.accounts, "The accounts stay as they were"),
    ] {
        fs::rename(secret, tree.root("moved")).unwrap();
        with.check_withheld("moved");
        symlink(tree.root("moved"), secret).unwrap();
        with.check_withheld("moved");
        server.signal("HUP");
        let says = format!("{kept}: {secret} is in the folder that is served");
        server.wait_for_log(|log| log.contains(&says));
    }
}

#[test]
fn a_secret_in_the_root_is_neither_deleted_nor_renamed() {
    let with = WithSecrets::start();
    let tree = &with.tree;
    for secret in [&with.key, &with.accounts] {
        fs::create_dir(tree.root("full")).unwrap();
        fs::write(tree.root("full/other"), "").unwrap();
        let there = tree.root("full/secret");
        fs::hard_link(secret, &there).unwrap();
        for (line, fields) in [
            ("DELETE /full/secret", ""),
            ("MOVE /full/secret", "Destination: /moved\r\n"),
            (
                "MOVE /plain/a.txt",
                "Destination: /full/secret\r\nOverwrite: T\r\n",
            ),
        ] {
            let reply = with.ask(line, fields);
            assert_eq!(reply.status, 403, "{line}: {}", reply.text());
            assert!(there.exists() && tree.root("plain/a.txt").exists());
        }
        // It outlives its folder, under a name that is not served.
        let links = || fs::metadata(secret).unwrap().nlink();
        let reply = with.ask("DELETE /full", "Depth: infinity\r\n");
        assert_eq!(reply.status, 500, "{}", reply.text());
        assert!(!tree.root("full").exists());
        assert_eq!(links(), 2);
        with.server
            .wait_for_log(|log| log.contains(" stays behind: "));
    }
}

#[test]
fn a_secret_that_was_renewed_or_moved_is_still_withheld() {
    let with = WithSecrets::start();
    let WithSecrets { tree, server, .. } = &with;
    for secret in [&with.key, &with.accounts] {
        for name in ["old", "new"] {
            let _ = fs::remove_file(tree.root(name));
        }
        fs::hard_link(secret, tree.root("old")).unwrap();
        let renewed = tree.path("renewed");
        fs::copy(secret, &renewed).unwrap();
        fs::rename(&renewed, secret).unwrap();
        with.check_withheld("old");
        fs::hard_link(secret, tree.root("new")).unwrap();
        // The second signal is handled when the first one has been, wholly.
        for _ in 0..2 {
            let count = |log: &str| {
                log.matches("Read the certificate and the key again")
                    .count()
            };
            let before = count(&server.log());
            server.signal("HUP");
            server.wait_for_log(|log| count(log) > before);
        }
        fs::rename(secret, tree.root("moved")).unwrap();
        for name in ["old", "new", "moved"] {
            with.check_withheld(name);
        }
        fs::rename(tree.root("moved"), secret).unwrap();
    }
}

/// `ann` and a wrong password of this length.
fn wrong(bytes: usize) -> String {
    let mut credentials = Command::new("base64");
    credentials.arg("-w0");
    let text = format!("ann:{}", "x".repeat(bytes));
    let encoded = run_command(credentials, text.as_bytes()).expect(0).out();
    format!("Authorization: Basic {encoded}\r\n")
}

fn put(fields: &str) -> String {
    format!("PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n{fields}\r\nx")
}

/// From one address come wrong passwords over many connections, short ones and such as fill a head;
/// from another one somebody who has not been there before.
#[test]
fn guesses_from_one_address_keep_nobody_else_out() {
    const GUESSERS: usize = 64;
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let server = start_for_ann(&tree, &[]);
    let stop = AtomicBool::new(false);
    let guess = |guess: &str| {
        let mut statuses = [0; 2];
        while !stop.load(Ordering::Relaxed) {
            let reply = ask(&server, guess);
            match reply.status {
                401 => statuses[0] += 1,
                429 => {
                    let secs: u64 = reply.field("Retry-After").parse().unwrap();
                    assert!((1..=60).contains(&secs), "{secs}");
                    statuses[1] += 1;
                }
                other => panic!("{other}: {}", reply.text()),
            }
        }
        statuses
    };
    let (short, long) = (put(&wrong(256)), put(&wrong(11_000)));
    thread::scope(|scope| {
        let guessers: Vec<_> = (0..GUESSERS)
            .map(|n| {
                let (guess, request) = (&guess, if n % 2 == 0 { &short } else { &long });
                scope.spawn(move || guess(request))
            })
            .collect();
        let _stop = Stop(&stop);
        eventually("they have to wait", || {
            let mut http = Http::to(&server);
            http.send(put(&wrong(3)));
            http.reply().status == 429
        });
        for path in ["/a", "/b", "/c"] {
            let from_there = [
                "--interface",
                "127.0.0.2",
                "-u",
                "ann:sesame",
                "-T",
                "/etc/hostname",
            ];
            assert_eq!(curl(&server, &from_there, path), "201");
        }
        // Also from where they are, now that it is proven.
        assert_eq!(ask(&server, put(IS_ANN)).status, 201);
        stop.store(true, Ordering::Relaxed);
        let statuses = guessers.into_iter().map(|guesser| guesser.join().unwrap());
        let total = statuses.fold([0, 0], |all, of| [all[0] + of[0], all[1] + of[1]]);
        assert!(total[0] > 0 && total[1] > 0, "{total:?}");
    });
}

/// Dropping it ends what others do, so that a test that fails ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_needs_a_password_is_for_no_shared_cache() {
    let tree = Tree::new();
    let requests = |who: &str| {
        let request = |line: &str, fields: &str| {
            format!("{line} HTTP/1.1\r\nHost: localhost\r\n{who}{fields}\r\n")
        };
        [
            (200, request("GET /plain/a.txt", "")),
            // One that is kept ready.
            (200, request("GET /plain/a.txt", "")),
            (200, request("HEAD /plain/a.txt", "")),
            (206, request("GET /plain/a.txt", "Range: bytes=0-0\r\n")),
            (304, request("GET /plain/a.txt", "If-None-Match: *\r\n")),
            (412, request("GET /plain/a.txt", "If-Match: \"x\"\r\n")),
            (416, request("GET /plain/a.txt", "Range: bytes=9-\r\n")),
            (200, request("GET /plain/", "")),
            (200, request("GET /plain/?json", "")),
            (301, request("GET /plain", "")),
            (404, request("GET /nothing", "")),
            (405, request("DELETE /plain/a.txt", "")),
            (400, request("GET /../x", "")),
            (204, request("OPTIONS /", "")),
        ]
    };
    let server = start_for_ann(&tree, &[]);
    for (who, is_in) in [("", false), (IS_ANN, true)] {
        for (status, request) in requests(who) {
            let reply = ask(&server, &request);
            let want = if is_in { status } else { 401 };
            assert_eq!(reply.status, want, "{request}");
            assert!(
                reply.field("Cache-Control").contains("private"),
                "{request}"
            );
            assert!(reply.field("Vary").contains("Authorization"), "{request}");
        }
    }
    // Where all may read, all may keep, but lists: a page offers what its user may do.
    let server = start_for_ann(&tree, &["--auth-read-free"]);
    for (_, request) in requests(IS_ANN) {
        let head = ask(&server, &request).head;
        let is_list = request.starts_with("GET /plain/ ") || request.contains("?json");
        for word in ["private", "Authorization"] {
            assert_eq!(head.contains(word), is_list, "{request}{head}");
        }
    }
}

#[test]
fn a_page_offers_a_reader_no_changes() {
    let tree = Tree::new();
    let line = ANN.trim_end().strip_prefix("ann").unwrap();
    let accounts = write_accounts(&tree, &format!("{ANN}bob{line}:read\n"), 0o600);
    let server = tree.start(&["--auth-file", &accounts, "--manage"]);
    for (user, may_write) in [("ann", true), ("bob", false)] {
        let who = basic::authorization(user, "sesame");
        let head = format!("Host: localhost\r\nAccept: text/html\r\nAuthorization: {who}");
        let page = ask(&server, format!("GET / HTTP/1.1\r\n{head}\r\n\r\n"));
        let page = String::from_utf8(page.body).unwrap();
        assert!(page.contains("id=\"archives\""), "{user}: {page}");
        for change in ["id=\"upload\"", "id=\"new-folder\"", "<dialog"] {
            assert_eq!(page.contains(change), may_write, "{user}: {change}");
        }
    }
}

#[test]
fn a_reader_tidies_nothing() {
    let tree = Tree::new();
    let line = ANN.trim_end().strip_prefix("ann").unwrap();
    let accounts = write_accounts(&tree, &format!("{ANN}bob{line}:read\n"), 0o600);
    let server = tree.start(&["--auth-file", &accounts, "--manage"]);
    let before = tree.inside();
    let who = basic::authorization("bob", "sesame");
    let sentence = "this needs the role write, and the user 'bob' has the role read";
    for line in ["DELETE /plain/a.txt", "MKCOL /new", "MOVE /plain/a.txt"] {
        let fields = format!("Host: localhost\r\nDestination: /b\r\nAuthorization: {who}");
        let reply = ask(&server, format!("{line} HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(reply.status, 403, "{line}: {}", reply.text());
        assert!(reply.text().contains(sentence), "{}", reply.text());
    }
    let auth = tree.path("bob");
    fs::write(&auth, "bob:sesame\n").unwrap();
    fs::set_permissions(&auth, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(tree.path("folder")).unwrap();
    fs::write(tree.path("folder/file"), "").unwrap();
    let folder = tree.path("folder");
    for words in [
        &["rm", "plain/a.txt"][..],
        &["rm", "-r", "plain"],
        &["mkdir", "new"],
        &["mv", "plain/a.txt", "b"],
        &["put", folder.to_str().unwrap()],
    ] {
        let mut line = server.host_and_ports();
        line.extend(words.iter().map(|word| (*word).to_owned()));
        line.extend(["--auth-file".to_owned(), auth.display().to_string()]);
        let ran = run("file-client", &line, b"").expect(1);
        let says = format!("the server refused: 403 Forbidden, {sentence}");
        assert!(ran.stderr.contains(&says), "{words:?}: {}", ran.stderr);
    }
    assert_eq!(tree.inside(), before);
}

/// An nginx that keeps for an hour what it may.
fn caching_proxy(server: &Server) -> Option<Nginx> {
    let location = format!(
        "location / {{ proxy_pass http://{}; proxy_cache all; proxy_cache_valid any 1h; }}",
        server.addr()
    );
    Nginx::start("proxy_cache_path cache keys_zone=all:1m;", &location)
}

#[test]
fn a_caching_proxy_gives_nothing_to_who_has_no_password() {
    let tree = Tree::new();
    let server = start_for_ann(&tree, &[]);
    let Some(proxy) = caching_proxy(&server) else {
        return;
    };
    let ask = |who: &str, path: &str| {
        let mut http = Http::over(proxy.connect());
        http.send(format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{who}\r\n"
        ));
        http.reply()
    };
    for path in ["/plain/a.txt", "/site/", "/plain/?json"] {
        for _ in 0..2 {
            assert_eq!(ask(IS_ANN, path).status, 200, "{path}");
            let reply = ask("", path);
            assert_eq!(reply.status, 401, "{path}: {}", reply.head);
        }
    }
}

#[test]
fn the_access_log_says_who_it_was() {
    if !is_installed("curl") {
        return skipped("there is no curl");
    }
    let tree = Tree::new();
    let log = tree.path("access.log");
    let accounts = write_accounts(&tree, ANN, 0o600);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" > {}", log.display())]);
    command
        .arg(program("file-server"))
        .args(["0", "--access-log", "--auth-read-free", "--auth-file"])
        .args([&accounts, "--root"])
        .arg(tree.root(""));
    let server = Server::spawn(command);
    let requests: &[(&[&str], &str)] = &[
        (&["-T", "/dev/null"], "- PUT 401"),
        (&["-T", "/dev/null", "-u", "ann:guess"], "ann PUT 401"),
        (&["-T", "/dev/null", "-u", "a\" b:x"], "a\\\"\\x20b PUT 401"),
        // Nobody has looked at the password of who only reads.
        (&["-u", "ann:sesame"], "- GET 404"),
        (&["-T", "/dev/null", "-u", "ann:sesame"], "ann PUT 201"),
        (&["-u", "ann:sesame"], "ann GET 200"),
        (&["-u", "ann:guess"], "- GET 200"),
        (&["-u", "bob:sesame"], "- GET 200"),
    ];
    let lines = || fs::read_to_string(&log).unwrap();
    for (before, (args, want)) in requests.iter().enumerate() {
        curl(&server, args, "/new");
        eventually("it is logged", || lines().lines().count() == before + 1);
        let lines = lines();
        let line = lines.lines().last().unwrap();
        let fields: Vec<_> = line.split(' ').collect();
        let short = [fields[2], fields[5].trim_matches('"'), fields[8]].join(" ");
        assert_eq!(short, *want, "{args:?}: {line}");
    }
    let _ = ask(&server, get("/plain/a.txt"));
    assert!(!server.log().contains("sesame") && !lines().contains("sesame"));
}
