//! Tidying: what `--manage` lets clients delete, rename and create, and what it does not. Nobody sees half
//! of it, a link is never followed, and without the option there is none of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::file::{Http, Reply, Tree, ask, get};
use crate::file_client::client;
use crate::harness::{Needs, Server, eventually, has_door, has_program, run_command};
use crate::resumable::{begin, head, resource_of};
use crate::roots::Mounted;

/// A request without a body.
fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// Sends `METHOD TARGET`, with further fields; the reply.
#[track_caller]
fn send(server: &Server, line: &str, fields: &[&str]) -> Reply {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    ask(server, request(line, &fields))
}

/// Checks the status, and that the sentence of the reply has this in it.
#[track_caller]
fn check(server: &Server, line: &str, fields: &[&str], status: u16, says: &str) {
    let reply = send(server, line, fields);
    assert_eq!(reply.status, status, "{line} {fields:?}: {}", reply.text());
    assert!(reply.text().contains(says), "{line}: {}", reply.text());
}

/// Renames, and checks the status.
#[track_caller]
fn check_move(server: &Server, from: &str, to: &str, fields: &[&str], status: u16) -> Reply {
    let destination = format!("Destination: {to}");
    let fields = [&[&*destination], fields].concat();
    let reply = send(server, &format!("MOVE {from}"), &fields);
    assert_eq!(
        reply.status,
        status,
        "{from} to {to} {fields:?}: {}",
        reply.text()
    );
    reply
}

const DEEP: &str = "Depth: infinity";
const REPLACE: &str = "Overwrite: T";
const KEEP: &str = "Overwrite: F";

fn start() -> (Tree, Server) {
    let tree = Tree::new();
    let server = tree.start(&["--manage"]);
    (tree, server)
}

/// Whether there is anything at a path, be it a link to nothing.
fn is_there(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Checks that no hidden name is left in the root.
#[track_caller]
fn check_nothing_hidden(tree: &Tree) {
    let is_hidden = |path: &Path| path.to_string_lossy().contains(".quartet-");
    let inside = tree.inside();
    let hidden: Vec<_> = inside.keys().filter(|path| is_hidden(path)).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn what_is_deleted_is_gone() {
    let (tree, server) = start();
    check(&server, "DELETE /plain/a.txt", &[], 204, "");
    assert!(!is_there(tree.root("plain/a.txt")));
    assert_eq!(ask(&server, get("/plain/a.txt")).status, 404);
    check(&server, "DELETE /plain/a.txt", &[], 404, "no such file");
    check(&server, "DELETE /plain", &[], 204, "");
    assert!(!is_there(tree.root("plain")));
    // A full folder goes only if that is said.
    for depth in [&[][..], &["Depth: 0"]] {
        check(&server, "DELETE /site/", depth, 409, "'Depth: infinity'");
    }
    assert!(is_there(tree.root("site/index.html")));
    check(&server, "DELETE /site/", &["Depth: 1"], 400, "'infinity'");
    check(&server, "DELETE /site/?zip", &[DEEP], 400, "%3F");
    check(&server, "DELETE /site/", &[DEEP], 204, "");
    assert!(tree.inside().is_empty(), "{:?}", tree.inside().keys());
}

#[test]
fn a_folder_is_created_where_there_is_nothing() {
    let (tree, server) = start();
    let reply = send(&server, "MKCOL /new", &[]);
    assert_eq!((reply.status, reply.field("Content-Length")), (201, "0"));
    assert!(tree.root("new").is_dir());
    check(&server, "MKCOL /new/%C3%A4%20b/", &[], 201, "");
    assert!(tree.root("new/ä b").is_dir());
    for path in ["/new", "/new/", "/plain/a.txt", "/"] {
        let reply = send(&server, &format!("MKCOL {path}"), &[]);
        assert_eq!(reply.status, 405, "{path}");
        let allowed = "DELETE, GET, HEAD, MOVE, OPTIONS, POST, PUT";
        assert_eq!(reply.field("Allow"), allowed, "{path}");
        assert!(reply.text().contains("already"), "{}", reply.text());
    }
    check(&server, "MKCOL /none/new", &[], 409, "does not exist");
    check(
        &server,
        "MKCOL /plain/a.txt/new",
        &[],
        409,
        "through a file",
    );
    let with_body = head("MKCOL /body", "", 3) + "abc";
    assert_eq!(ask(&server, with_body).status, 415);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunked = request("MKCOL /body", chunked) + "0\r\n\r\n";
    assert_eq!(ask(&server, chunked).status, 415);
    check(&server, "MKCOL /body", &["If-Match: *"], 412, "condition");
    assert!(!is_there(tree.root("body")));
    check(&server, "MKCOL /body", &["Content-Length: 0"], 201, "");
}

#[test]
fn what_is_renamed_is_at_its_new_path_alone() {
    let (tree, server) = start();
    let reply = check_move(&server, "/plain/a.txt", "/b.txt", &[], 201);
    assert_eq!(reply.field("Content-Length"), "0");
    assert_eq!(fs::read(tree.root("b.txt")).unwrap(), b"a");
    assert!(!is_there(tree.root("plain/a.txt")));
    // A folder, with all that is in it; by a URL, and by a relative path.
    check_move(&server, "/site", "http://h/plain/site", &[DEEP], 201);
    assert!(is_there(tree.root("plain/site/index.html")) && !is_there(tree.root("site")));
    check_move(&server, "/plain/site/", "../../site/", &[], 201);
    assert!(is_there(tree.root("site/index.html")));
    check_move(&server, "/b.txt", "./%C3%A4%2520.txt", &[KEEP], 201);
    assert!(is_there(tree.root("ä%20.txt")));
    for (from, to, status) in [
        ("/none", "/x", 404),
        ("/plain/", "/none/x", 409),
        ("/plain", "/site/index.html/x", 409),
        ("/plain", "/plain", 403),
        ("/plain/", "/plain", 403),
        ("/plain", "/plain/x", 409),
        ("/site/index.html", "/site", 409),
        ("/site/index.html", "/new/", 409),
        ("/site/index.html/", "/new", 404),
        ("/plain", "/", 403),
        ("/", "/x", 403),
        ("/plain", "http://h:81/x", 502),
        ("/plain", "https://evil.example/x", 502),
        ("/plain", "../../x", 400),
        ("/plain", "x", 400),
        ("/plain", "/a/../x", 400),
        ("/plain", "/x?y", 400),
    ] {
        let before = tree.inside();
        check_move(&server, from, to, &[REPLACE], status);
        assert_eq!(tree.inside(), before, "{from} to {to}");
    }
    check(&server, "MOVE /plain", &[], 400, "one Destination");
    check_move(&server, "/plain", "/x", &["Overwrite: yes"], 400);
    check_move(&server, "/plain", "/x", &["Depth: 0"], 400);
}

/// What stands at the two paths, and what a rename without `Overwrite` and with `T` is answered.
const REPLACEMENTS: [(&str, &str, u16, u16); 6] = [
    ("file", "file", 204, 204),
    ("file", "empty", 409, 204),
    ("file", "full", 409, 204),
    ("full", "file", 409, 204),
    ("full", "empty", 204, 204),
    ("full", "full", 409, 204),
];

#[test]
fn what_is_replaced_is_a_file_or_empty_unless_more_is_said() {
    let (tree, server) = start();
    let make = |path: &str, kind: &str| match kind {
        "file" => fs::write(tree.root(path), path).unwrap(),
        _ => {
            fs::create_dir(tree.root(path)).unwrap();
            if kind == "full" {
                fs::create_dir(tree.root(&format!("{path}/in"))).unwrap();
                fs::write(tree.root(&format!("{path}/in/file")), path).unwrap();
            }
        }
    };
    for (from, to, unsaid, said) in REPLACEMENTS {
        for (fields, status) in [(&[KEEP][..], 412), (&[], unsaid), (&[REPLACE], said)] {
            for path in ["from", "to"] {
                let _ = fs::remove_file(tree.root(path));
                let _ = fs::remove_dir_all(tree.root(path));
            }
            make("from", from);
            make("to", to);
            let before = tree.inside();
            check_move(&server, "/from", "/to", fields, status);
            if status != 204 {
                assert_eq!(tree.inside(), before, "{from} to {to}");
                continue;
            }
            assert!(!is_there(tree.root("from")), "{from} to {to}");
            let file = if from == "file" { "to" } else { "to/in/file" };
            assert_eq!(fs::read(tree.root(file)).unwrap(), b"from");
            check_nothing_hidden(&tree);
        }
    }
    // Two names of one file become one.
    fs::write(tree.root("one"), "1").unwrap();
    fs::hard_link(tree.root("one"), tree.root("two")).unwrap();
    check_move(&server, "/one", "/two", &[], 204);
    assert!(!is_there(tree.root("one")) && is_there(tree.root("two")));
}

/// A mount gives one file a second path, and the path is no second name of it.
#[test]
fn a_file_that_is_at_two_paths_and_has_one_name_is_not_lost() {
    let (tree, server) = start();
    for folder in ["other", "kept"] {
        fs::create_dir(tree.root(folder)).unwrap();
    }
    fs::write(tree.root("kept/same"), "").unwrap();
    let bind = |from: &str, to: &str| {
        let from = tree.root(from);
        Mounted::mount(&["--bind", from.to_str().unwrap()], tree.root(to))
    };
    let Some(_folder) = bind("plain", "other") else {
        return;
    };
    let _file = bind("plain/a.txt", "kept/same");
    for (from, to, status) in [
        ("/plain/a.txt", "/kept/same", 403),
        ("/kept/same", "/plain/a.txt", 403),
        ("/plain/a.txt", "/other/a.txt", 409),
        ("/other/a.txt", "/plain/a.txt", 409),
        ("/plain", "/other", 403),
        ("/other", "/plain", 403),
    ] {
        for fields in [&[][..], &[REPLACE]] {
            check_move(&server, from, to, fields, status);
            assert_eq!(fs::read(tree.root("plain/a.txt")).unwrap(), b"a");
        }
    }
}

#[test]
fn who_deletes_a_folder_learns_what_the_server_could_not_remove() {
    let tree = Tree::new();
    let accounts = tree.path("accounts");
    fs::write(&accounts, "alice:secret\n").unwrap();
    fs::set_permissions(&accounts, fs::Permissions::from_mode(0o600)).unwrap();
    let options = ["--manage", "--auth-file", accounts.to_str().unwrap()];
    let server = tree.start(&options);
    let says = "not all that was there can be removed";
    for (line, fields) in [
        ("DELETE /full", &[DEEP][..]),
        ("MOVE /plain", &["Destination: /full", REPLACE]),
    ] {
        fs::create_dir_all(tree.root("full/in")).unwrap();
        fs::write(tree.root("full/other"), "").unwrap();
        fs::hard_link(&accounts, tree.root("full/in/key")).unwrap();
        let fields = [fields, &["Authorization: Basic YWxpY2U6c2VjcmV0"]].concat();
        check(&server, line, &fields, 500, says);
        assert!(!is_there(tree.root("full/in")));
        server.wait_for_log(|log| log.matches("stays behind").count() > 0);
    }
    assert!(is_there(tree.root("full/a.txt")));
}

#[test]
fn a_condition_is_about_the_version_that_was_seen() {
    let (tree, server) = start();
    let etag = |path: &str| ask(&server, get(path)).field("ETag").to_owned();
    let is = format!("If-Match: {}", etag("/plain/a.txt"));
    check(
        &server,
        "DELETE /plain/a.txt",
        &["If-Match: \"x\""],
        412,
        "condition",
    );
    check_move(&server, "/plain/a.txt", "/b", &["If-None-Match: *"], 412);
    check_move(&server, "/plain/a.txt", "/b", &[&is], 201);
    check(&server, "DELETE /b", &[&is], 204, "");
    // It is checked when there is something to be checked.
    check(&server, "DELETE /b", &[&is], 404, "");
    // A folder has no version, but it is there.
    check(&server, "DELETE /plain", &[&is], 412, "condition");
    check(
        &server,
        "DELETE /plain",
        &["If-None-Match: *"],
        412,
        "condition",
    );
    check(&server, "DELETE /plain", &["If-Match: *"], 204, "");
    // Of a link, that is what a download has seen.
    symlink("site/index.html", tree.root("link")).unwrap();
    let is = format!("If-Match: {}", etag("/link"));
    check(&server, "DELETE /link", &[&is], 204, "");
    assert!(is_there(tree.root("site/index.html")) && !is_there(tree.root("link")));
}

#[test]
fn a_link_is_tidied_itself_and_never_what_it_leads_to() {
    let (tree, server) = start();
    fs::create_dir(tree.path("outside")).unwrap();
    fs::write(tree.path("outside/file"), "").unwrap();
    for (link, target) in [
        ("file", "plain/a.txt"),
        ("folder", "plain"),
        ("out", "../outside"),
        ("nowhere", "gone"),
        ("site/folder", "../plain"),
        ("site/out", "../../outside"),
    ] {
        symlink(target, tree.root(link)).unwrap();
    }
    check(&server, "DELETE /file", &[], 204, "");
    check(&server, "DELETE /folder/a.txt/", &[], 404, "");
    check(&server, "DELETE /out/", &[DEEP], 404, "");
    check(&server, "DELETE /out/file", &[], 404, "");
    check_move(&server, "/plain/a.txt", "/out/a.txt", &[], 409);
    check_move(&server, "/out", "/moved", &[], 201);
    assert_eq!(
        fs::read_link(tree.root("moved")).unwrap(),
        Path::new("../outside")
    );
    check_move(&server, "/folder/", "/moved", &[REPLACE], 204);
    assert_eq!(
        fs::read_link(tree.root("moved")).unwrap(),
        Path::new("plain")
    );
    check(&server, "DELETE /moved/", &[DEEP], 204, "");
    check(&server, "DELETE /nowhere", &[], 204, "");
    check(&server, "DELETE /site", &[DEEP], 204, "");
    assert!(is_there(tree.root("plain/a.txt")) && is_there(tree.path("outside/file")));
    let inside: Vec<_> = tree.inside().into_keys().collect();
    assert_eq!(inside, [tree.root("plain"), tree.root("plain/a.txt")]);
    // On the way to a name, links are followed.
    symlink("plain", tree.root("way")).unwrap();
    check(&server, "MKCOL /way/new", &[], 201, "");
    check_move(&server, "/way/a.txt", "/plain/a.txt", &[], 403);
    check(&server, "DELETE /way/a.txt", &[], 204, "");
    assert!(tree.root("plain/new").is_dir() && !is_there(tree.root("plain/a.txt")));
}

#[test]
fn without_the_option_there_is_none_of_it() {
    let tree = Tree::new();
    for (options, allowed) in [
        (&[][..], "GET, HEAD, OPTIONS, POST, PUT"),
        (&["--read-only"], "GET, HEAD, OPTIONS"),
    ] {
        let server = tree.start(options);
        let before = tree.inside();
        for method in ["DELETE", "MKCOL", "MOVE"] {
            for target in ["/plain/a.txt", "/plain/", "/new"] {
                let fields = ["Destination: /moved", DEEP, REPLACE];
                let reply = send(&server, &format!("{method} {target}"), &fields);
                assert_eq!(reply.status, 405, "{method} {target}");
                assert_eq!(reply.field("Allow"), allowed);
            }
        }
        assert_eq!(tree.inside(), before);
    }
    let (_tree, server) = start();
    let allowed = "DELETE, GET, HEAD, MKCOL, MOVE, OPTIONS, POST, PUT";
    let reply = send(&server, "OPTIONS /plain", &[]);
    assert_eq!((reply.status, reply.field("Allow")), (204, allowed));
    let reply = send(&server, "TRACE /plain", &[]);
    assert_eq!((reply.status, reply.field("Allow")), (405, allowed));
}

#[test]
fn what_only_grows_loses_nothing() {
    let tree = Tree::new();
    let server = tree.start(&["--manage", "--create-only"]);
    let before = tree.inside();
    let says = "--create-only";
    check(&server, "DELETE /plain/a.txt", &[], 403, says);
    check(&server, "DELETE /plain", &[DEEP], 403, says);
    let refused = check_move(&server, "/plain/a.txt", "/site/index.html", &[REPLACE], 403);
    assert!(refused.text().contains(says), "{}", refused.text());
    assert_eq!(tree.inside(), before);
    check_move(&server, "/plain/a.txt", "/b", &[], 201);
    check(&server, "MKCOL /new", &[], 201, "");
    let allowed = "GET, HEAD, MKCOL, MOVE, OPTIONS, POST, PUT";
    assert_eq!(send(&server, "OPTIONS *", &[]).field("Allow"), allowed);
}

#[test]
fn what_is_write_protected_or_reserved_stays() {
    let (tree, server) = start();
    let file = tree.root("plain/a.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let says = "write-protected";
    check(&server, "DELETE /plain/a.txt", &[], 403, says);
    let refused = check_move(&server, "/site/index.html", "/plain/a.txt", &[REPLACE], 403);
    assert!(refused.text().contains(says), "{}", refused.text());
    check_move(&server, "/plain/a.txt", "/plain/b.txt", &[], 201);
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for name in [
        ".quartet-upload-x".to_owned(),
        format!(".quartet-deleted-{id}"),
        format!("plain/.quartet-deleted-{id}/x"),
    ] {
        let before = tree.inside();
        check(
            &server,
            &format!("DELETE /{name}"),
            &[DEEP],
            403,
            "reserved",
        );
        check(&server, &format!("MKCOL /{name}"), &[], 403, "reserved");
        check_move(&server, &format!("/{name}"), "/x", &[], 403);
        check_move(&server, "/plain/b.txt", &format!("/{name}"), &[], 403);
        assert_eq!(tree.inside(), before);
    }
    for line in ["DELETE /", "DELETE //"] {
        check(&server, line, &[DEEP], 403, "is served");
    }
}

#[test]
fn an_unfinished_upload_is_cancelled_as_without_the_option() {
    let (tree, server) = start();
    let resource = resource_of(&ask(&server, begin("/plain/new", "", "abc")));
    // The folder looks empty, but it is not.
    fs::remove_file(tree.root("plain/a.txt")).unwrap();
    check(
        &server,
        "DELETE /plain",
        &[],
        409,
        "an upload to it is unfinished",
    );
    check(&server, &format!("DELETE {resource}"), &[], 204, "");
    check(&server, "DELETE /plain", &[], 204, "");
    // Or it goes with its folder.
    let resource = resource_of(&ask(&server, begin("/site/new", "", "abc")));
    check(&server, "DELETE /site", &[DEEP], 204, "");
    check(&server, &format!("DELETE {resource}"), &[], 404, "");
    assert!(tree.inside().is_empty(), "{:?}", tree.inside().keys());
}

#[test]
fn what_is_left_of_an_upload_whose_folder_was_renamed_goes_when_its_time_is_over() {
    let tree = Tree::new();
    let server = tree.start(&["--manage", "--resume-keep", "1"]);
    let _ = resource_of(&ask(&server, begin("/plain/new", "", "abc")));
    check_move(&server, "/plain", "/moved", &[], 201);
    eventually("it is removed", || tree.temporary_files() == 0);
}

#[test]
fn an_upload_whose_folder_goes_is_not_taken_for_stored() {
    let (tree, server) = start();
    for (change, fields) in [
        ("DELETE /plain", &[DEEP][..]),
        ("MOVE /plain", &["Destination: /moved"]),
    ] {
        let _ = fs::create_dir(tree.root("plain"));
        let mut http = Http::to(&server);
        http.send(head("PUT /plain/new", "", 3) + "ab");
        eventually("it arrives", || tree.temporary_files() == 1);
        let reply = send(&server, change, fields);
        assert!(matches!(reply.status, 201 | 204), "{}", reply.text());
        http.send("c");
        let reply = http.reply();
        assert_eq!(reply.status, 503, "{change}: {}", reply.text());
        check_nothing_hidden(&tree);
        assert!(!is_there(tree.root("plain")) && !is_there(tree.root("moved/new")));
    }
}

#[test]
fn a_page_of_another_site_tidies_nothing() {
    let (tree, server) = start();
    let before = tree.inside();
    for field in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        for line in ["DELETE /plain/a.txt", "MKCOL /new", "MOVE /plain/a.txt"] {
            check(&server, line, &[field, "Destination: /b"], 403, "");
        }
    }
    assert_eq!(tree.inside(), before);
    check(
        &server,
        "DELETE /plain/a.txt",
        &["Origin: http://h"],
        204,
        "",
    );
}

/// Asks for the files of a folder in any order, while the folder is deleted: from the first that is not
/// there on, none is.
#[test]
fn nobody_sees_half_of_a_deleted_folder() {
    const FILES: usize = 3000;
    const ROUNDS: usize = 5;
    let (tree, server) = start();
    let mut halves = Vec::new();
    for _ in 0..ROUNDS {
        fs::create_dir(tree.root("many")).unwrap();
        for file in 0..FILES {
            fs::write(tree.root(&format!("many/{file}")), "").unwrap();
        }
        let is_deleted = AtomicBool::new(false);
        let asked = AtomicUsize::new(0);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut http = Http::to(&server);
                let mut statuses = Vec::new();
                for file in (0..FILES).step_by(7).cycle() {
                    http.send(get(&format!("/many/{file}")));
                    statuses.push(http.reply().status);
                    asked.fetch_add(1, Ordering::Relaxed);
                    if is_deleted.load(Ordering::Relaxed) && statuses.last() == Some(&404) {
                        return statuses;
                    }
                }
                statuses
            });
            eventually("it reads", || asked.load(Ordering::Relaxed) > 10);
            check(&server, "DELETE /many", &[DEEP], 204, "");
            is_deleted.store(true, Ordering::Relaxed);
            let statuses = reader.join().unwrap();
            let first_gone = statuses.iter().position(|status| *status == 404);
            let gone = &statuses[first_gone.unwrap()..];
            halves.push(gone.iter().filter(|status| **status != 404).count());
        });
    }
    assert_eq!(halves, [0; ROUNDS]);
    check_nothing_hidden(&tree);
}

/// Replaces one folder by another, again and again, while others look: one of the two is always there.
#[test]
fn nobody_misses_a_folder_that_is_replaced() {
    const ROUNDS: usize = 100;
    let (tree, server) = start();
    let make = |folder: &str, round: usize| {
        fs::create_dir(tree.root(folder)).unwrap();
        fs::write(tree.root(&format!("{folder}/file")), round.to_string()).unwrap();
    };
    make("to", 0);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut http = Http::to(&server);
            let mut seen = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                http.send(get("/to/file"));
                let reply = http.reply();
                seen.push(reply.text().parse::<usize>().map_err(|_| reply.status));
            }
            seen
        });
        for round in 1..=ROUNDS {
            make("from", round);
            check_move(&server, "/from", "/to", &[REPLACE], 204);
        }
        is_done.store(true, Ordering::Relaxed);
        let seen = reader.join().unwrap();
        assert!(seen.iter().all(Result::is_ok), "{seen:?}");
        assert!(seen.is_sorted(), "{seen:?}");
    });
    check_nothing_hidden(&tree);
}

/// At one server, and at two that serve one root.
#[test]
fn of_two_that_rename_to_one_name_one_wins() {
    const ROUNDS: usize = 100;
    let (tree, server) = start();
    let other = tree.start(&["--manage"]);
    for servers in [[&server, &server], [&server, &other]] {
        for round in 0..ROUNDS {
            for name in ["one", "two"] {
                fs::write(tree.root(name), name).unwrap();
            }
            let to = format!("Destination: /to-{round}");
            let statuses: Vec<_> = thread::scope(|scope| {
                let rename = |(server, name)| {
                    let (line, to) = (format!("MOVE /{name}"), &to);
                    scope.spawn(move || send(server, &line, &[to, KEEP]).status)
                };
                let names = servers.into_iter().zip(["one", "two"]);
                let renames: Vec<_> = names.map(rename).collect();
                renames
                    .into_iter()
                    .map(|rename| rename.join().unwrap())
                    .collect()
            });
            let (loser, won) = match statuses.as_slice() {
                [201, 412] => ("two", "one"),
                [412, 201] => ("one", "two"),
                _ => panic!("{statuses:?}"),
            };
            let there = tree.root(&format!("to-{round}"));
            assert_eq!(fs::read_to_string(&there).unwrap(), won);
            assert_eq!(fs::read_to_string(tree.root(loser)).unwrap(), loser);
            assert!(!is_there(tree.root(won)));
            fs::remove_file(there).unwrap();
        }
    }
}

/// Renames cross each other, and none waits for ever.
#[test]
fn two_that_rename_in_both_directions_do_not_lock_each_other() {
    const ROUNDS: usize = 100;
    // Some wait for both names, so that they go on at the same moment.
    const EACH: usize = 4;
    let (tree, server) = start();
    fs::write(tree.root("one"), "1").unwrap();
    thread::scope(|scope| {
        for (from, to) in [("one", "two"), ("two", "one")].repeat(EACH) {
            let mut http = Http::to(&server);
            let destination = format!("Destination: /{to}\r\n");
            let rename = request(&format!("MOVE /{from}"), &destination);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    http.send(&rename);
                    let status = http.reply().status;
                    assert!(matches!(status, 201 | 404), "{status}");
                }
            });
        }
    });
    assert!(is_there(tree.root("one")) != is_there(tree.root("two")));
}

#[test]
fn a_root_that_was_exchanged_is_the_one_that_is_tidied() {
    let (tree, server) = start();
    fs::create_dir_all(tree.path("other/plain")).unwrap();
    fs::rename(tree.path("root"), tree.path("old")).unwrap();
    check(&server, "DELETE /plain", &[DEEP], 503, "is gone");
    fs::rename(tree.path("other"), tree.path("root")).unwrap();
    check(&server, "MKCOL /new", &[], 201, "");
    check_move(&server, "/new", "/plain/new", &[], 201);
    check(&server, "DELETE /plain", &[DEEP], 204, "");
    assert!(tree.inside().is_empty());
    assert!(is_there(tree.path("old/plain/a.txt")));
    // Nobody has asked while there was none.
    fs::create_dir(tree.path("other")).unwrap();
    fs::rename(tree.path("root"), tree.path("before")).unwrap();
    fs::rename(tree.path("other"), tree.path("root")).unwrap();
    check(&server, "MKCOL /new", &[], 201, "");
    assert!(is_there(tree.root("new")) && !is_there(tree.path("before/new")));
}

#[test]
fn the_client_tidies() {
    let (tree, server) = start();
    let here = tempfile::tempdir().unwrap();
    let check = |args: &[&str], code: i32, says: &str| {
        client(&server, here.path(), args)
            .expect(code)
            .check_says(says);
    };
    check(&["mkdir", "a b"], 0, "Created a b\n");
    check(
        &["mkdir", "a b/"],
        1,
        "405 Method Not Allowed, something is there already\n",
    );
    check(
        &["mkdir", "none/x"],
        1,
        "409 Conflict, the folder that it would stand in does not exist\n",
    );
    check(
        &["mv", "plain/a.txt", "a b/"],
        0,
        "Renamed plain/a.txt to a b/a.txt\n",
    );
    assert!(is_there(tree.root("a b/a.txt")));
    check(
        &["mv", "site/index.html", "a b"],
        1,
        "a folder is there, or a file where a folder is to be",
    );
    check(
        &["mv", "site/index.html", "a b/a.txt", "--create-only"],
        1,
        "412 Precondition Failed, something is there already\n",
    );
    check(&["mv", "site/index.html", "a b/a.txt"], 0, "Renamed");
    check(
        &["mv", "none", "x"],
        1,
        "none: the server refused: 404 Not Found, there is no such file\n",
    );
    check(
        &["rm", "a b"],
        1,
        "'Depth: infinity' deletes it with all that is in it, as rm -r does\n",
    );
    check(
        &["rm", "a b", "none", "plain/"],
        1,
        "file-client: 2 of 3 requests failed\n",
    );
    assert!(!is_there(tree.root("plain")));
    check(&["rm", "-r", "a b", "/site/"], 0, "Deleted /site/\n");
    assert!(tree.inside().is_empty());
    check(
        &["rm", "-r", "/"],
        1,
        "403 Forbidden, the folder that is served stays where it is\n",
    );
    // A dash is a name, on the server.
    fs::write(tree.root("-"), "").unwrap();
    check(&["mv", "-", "x"], 0, "Renamed - to x\n");
    check(&["mkdir", "-"], 0, "Created -\n");
    check(&["rm", "-", "x", "-q"], 0, "");
    assert!(tree.inside().is_empty());
    let quiet = client(&server, here.path(), &["-q", "mkdir", "x"]).expect(0);
    assert_eq!((quiet.out(), quiet.stderr), (String::new(), String::new()));
    // A name that no other program can spell.
    let odd = "\u{1b}[31m%20?#\n";
    check(&["mkdir", odd], 0, "Created \\u{1b}[31m%20?#\\n\n");
    check(&["mv", odd, "y"], 0, "Renamed");
    assert!(tree.root("y").is_dir());
}

#[test]
fn the_client_says_what_the_server_lacks() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let before = tree.inside();
    let here = tempfile::tempdir().unwrap();
    for args in [
        &["rm", "plain/a.txt"][..],
        &["mkdir", "new"],
        &["mv", "plain/a.txt", "b"],
    ] {
        let ran = client(&server, here.path(), args).expect(1);
        let says = "the server deletes nothing, renames nothing and creates no folders: 405; \
                    file-server does with --manage\n";
        ran.check_says(&format!("file-client: {}: {says}", args[1]));
    }
    assert_eq!(tree.inside(), before);
}

#[test]
fn curl_tidies() {
    if !(has_program("curl") && has_door(Needs::Plain, "curl is told none of it")) {
        return;
    }
    let (tree, server) = start();
    let check = |args: &[&str], target: &str, status: u16| {
        assert_eq!(server.ask(args, target).0, status, "{target} {args:?}");
    };
    let destination = |path: &str| format!("Destination: {}{path}", server.url());
    check(&["-X", "MKCOL"], "/new/", 201);
    check(
        &["-X", "MOVE", "-H", &destination("/new/a.txt")],
        "/plain/a.txt",
        201,
    );
    check(
        &["-X", "MOVE", "-H", "Destination: /new/b.txt"],
        "/new/a.txt",
        201,
    );
    check(&["-X", "DELETE"], "/new/", 409);
    check(&["-X", "DELETE", "-H", DEEP], "/new/", 204);
    assert!(!is_there(tree.root("new")));
}

/// The cases of litmus, the suite for servers of WebDAV, that use these methods alone. Others want `COPY` or a
/// class of WebDAV; `put_no_parent` wants, in its newer versions, that no upload creates its folder.
const LITMUS: [(&str, &[&str]); 2] = [
    (
        "basic",
        &[
            "begin",
            "put_get",
            "put_get_utf8_segment",
            "mkcol_over_plain",
            "delete",
            "delete_null",
            "delete_fragment",
            "mkcol",
            "mkcol_again",
            "delete_coll",
            "mkcol_no_parent",
            "mkcol_with_body",
        ],
    ),
    (
        "copymove",
        &["begin", "copy_init", "copy_cleanup", "move", "move_cleanup"],
    ),
];

#[test]
fn litmus_passes_what_it_asks_of_these_methods() {
    if !(has_program("litmus") && has_door(Needs::Plain, "litmus is told none of it")) {
        return;
    }
    for (suite, cases) in LITMUS {
        let (_tree, server) = start();
        let here = tempfile::tempdir().unwrap();
        let mut litmus = Command::new("litmus");
        litmus.env("TESTS", suite).arg(server.url() + "/");
        litmus.current_dir(here.path());
        let said = run_command(litmus, b"").out();
        for case in cases {
            let is_pass = |line: &str| {
                let mut words = line.split_whitespace();
                words.any(|word| word.trim_matches('.') == *case) && line.contains("pass")
            };
            let warned = format!("WARNING: {case}");
            assert!(
                said.lines().any(is_pass) && !said.contains(&warned),
                "{suite} {case}:\n{said}"
            );
        }
    }
}
