//! The folder that the file service serves: it may become another under a running server, another
//! server may serve it too, and what stands in it may be in the way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::file::{Http, Tree, ask, get};
use crate::harness::{
    Needs, Server, data, eventually, has_door, has_program, program, run_command, skipped,
};

fn put(target: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("PUT {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
}

#[track_caller]
fn check(server: &Server, request: &str, status: u16, text: &str) {
    let reply = ask(server, request);
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (status, text),
        "{request}"
    );
}

const SAVED: &str = crate::file::SAVED;
const GONE: &str = "the folder that is served is gone; try again later\n";

#[test]
fn a_root_that_is_made_again_is_the_one_that_is_served() {
    let tree = Tree::new();
    // By a path that would always lead to the folder that the server was started in.
    let mut command = Command::new(program("file-server"));
    command
        .args(["0", "--root", "."])
        .current_dir(tree.path("root"));
    let server = Server::spawn(command);
    fs::write(tree.root("a.txt"), "old").unwrap();
    check(&server, &get("/a.txt"), 200, "old");
    for round in 0..3 {
        fs::remove_dir_all(tree.path("root")).unwrap();
        if round == 1 {
            check(&server, &get("/a.txt"), 503, GONE);
            check(&server, &get("/"), 503, GONE);
            check(&server, &put("/a.txt", "", "x"), 503, GONE);
        }
        fs::create_dir(tree.path("root")).unwrap();
        let reply = ask(&server, get("/a.txt"));
        assert_eq!(reply.status, 404);
        check(&server, &put("/a.txt", "", "new"), 201, SAVED);
        assert_eq!(fs::read(tree.root("a.txt")).unwrap(), b"new");
    }
    server.wait_for_log(|log| log.matches("is another folder now").count() == 2);
    let log = server.log();
    assert_eq!(log.matches("is gone: ").count(), 1, "{log}");
    assert_eq!(log.matches("is there again").count(), 1, "{log}");
}

#[test]
fn a_link_to_the_root_may_be_switched() {
    let tree = Tree::new();
    for version in ["one", "two"] {
        fs::create_dir(tree.path(version)).unwrap();
        fs::write(tree.path(version).join("version"), version).unwrap();
    }
    symlink("one", tree.path("link")).unwrap();
    let link = tree.path("link");
    let server = Server::start("file-server", &["0", "--root", link.to_str().unwrap()]);
    check(&server, &get("/version"), 200, "one");
    // One upload is under way meanwhile.
    let mut http = Http::to(&server);
    http.send("PUT /new HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx");
    let names = |folder: &str| fs::read_dir(tree.path(folder)).unwrap().count();
    eventually("it has begun", || names("one") == 2);
    symlink("two", tree.path("next")).unwrap();
    fs::rename(tree.path("next"), &link).unwrap();
    check(&server, &get("/version"), 200, "two");
    http.send("y");
    assert_eq!(http.reply().status, 503);
    eventually("nothing is left of it", || names("one") == 1);
    check(&server, &put("/new", "", "x"), 201, SAVED);
    assert_eq!((names("one"), names("two")), (1, 2));
}

#[test]
fn what_is_kept_ready_is_of_the_folder_that_is_served() {
    let top = tempfile::tempdir().unwrap();
    let link = top.path().join("root");
    // What has just been changed would not be kept.
    symlink(data("server"), &link).unwrap();
    let server = Server::start(
        "file-server",
        &["0", "--root", link.to_str().unwrap(), "--read-only"],
    );
    for _ in 0..3 {
        assert_eq!(ask(&server, get("/style.css")).status, 200);
    }
    fs::remove_file(&link).unwrap();
    check(&server, &get("/style.css"), 503, GONE);
    fs::create_dir(&link).unwrap();
    fs::write(link.join("style.css"), "another").unwrap();
    check(&server, &get("/style.css"), 200, "another");
}

/// A file system of its own, mounted at a folder. Dropping it unmounts it.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: PathBuf) -> Option<Self> {
        Self::mount(&["-t", "tmpfs", "-o", "size=4m", "quartet-test"], folder)
    }

    pub(crate) fn mount(what: &[&str], folder: PathBuf) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mounted = mount.args(what).arg(&folder).stderr(Stdio::null()).status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        if !is_mounted {
            skipped("no file system may be mounted here");
        }
        is_mounted.then(|| Self(folder))
    }

    #[track_caller]
    fn unmount(self) {
        let mut unmount = Command::new("umount");
        assert!(unmount.arg(&self.0).status().unwrap().success());
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_mounted_on_the_root_is_the_one_that_is_served() {
    let tree = Tree::new();
    let server = tree.start(&["--keep-free", "0"]);
    check(&server, &get("/plain/a.txt"), 200, "a");
    let Some(disk) = Mounted::at(tree.path("root")) else {
        return;
    };
    assert_eq!(ask(&server, get("/plain/a.txt")).status, 404);
    check(&server, &put("/on-disk", "", "x"), 201, SAVED);
    assert_eq!(fs::read(tree.root("on-disk")).unwrap(), b"x");
    drop(disk);
    check(&server, &get("/plain/a.txt"), 200, "a");
    assert_eq!(ask(&server, get("/on-disk")).status, 404);
}

#[test]
fn the_free_space_is_that_of_the_disk_that_the_file_is_to_be_on() {
    let tree = Tree::new();
    fs::create_dir(tree.root("disk")).unwrap();
    let Some(disk) = Mounted::at(tree.root("disk")) else {
        return;
    };
    let server = tree.start(&["--keep-free", "8M"]);
    assert_eq!(ask(&server, put("/disk/new", "", "x")).status, 507);
    check(&server, &put("/new", "", "x"), 201, SAVED);
    // The other way round, and as the bytes come.
    disk.unmount();
    let small = tree.root("");
    let disk = Mounted::at(small);
    assert!(disk.is_some());
    fs::create_dir(tree.root("disk")).unwrap();
    assert_eq!(ask(&server, put("/disk/new", "", "x")).status, 507);
}

#[test]
fn two_servers_of_one_root_let_one_create_a_file() {
    const ROUNDS: usize = 100;
    let tree = Tree::new();
    let servers = [tree.start(&[]), tree.start(&[])];
    let start = Barrier::new(2);
    let create = |server: &Server| -> Vec<u16> {
        let one = |round: usize| {
            let mut http = Http::to(server);
            let request = put(&format!("/new/{round}"), "If-None-Match: *\r\n", "x");
            let (head, rest) = request.split_at(request.len() - 1);
            http.send(head);
            start.wait();
            http.send(rest);
            http.reply_to("PUT").unwrap().status
        };
        (0..ROUNDS).map(one).collect()
    };
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| create(&servers[0]));
        let other = create(&servers[1]);
        (one.join().unwrap(), other)
    });
    for (round, mut both) in one.into_iter().zip(other).map(|(a, b)| [a, b]).enumerate() {
        both.sort_unstable();
        assert_eq!(both, [201, 412], "{round}");
    }
}

#[test]
fn a_server_that_starts_takes_no_upload_of_another_for_left_over() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let is_over = AtomicBool::new(false);
    let statuses = thread::scope(|scope| {
        let uploads = [0, 1, 2].map(|client| {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let mut statuses = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let target = format!("/plain/{client}");
                    statuses.push(ask(server, put(&target, "", "x")).status);
                }
                statuses
            })
        });
        for _ in 0..20 {
            drop(tree.start(&[]));
        }
        is_over.store(true, Ordering::Relaxed);
        uploads.map(|upload| upload.join().unwrap()).concat()
    });
    assert!(statuses.len() > 20);
    let failed = statuses
        .iter()
        .filter(|status| !matches!(status, 200 | 201));
    assert_eq!(failed.count(), 0, "of {}", statuses.len());
}

#[test]
fn a_server_that_only_creates_overwrites_nothing() {
    let tree = Tree::new();
    let server = tree.start(&["--create-only"]);
    check(&server, &put("/new", "", "first"), 201, SAVED);
    let sentence = "the file exists, and this server overwrites none\n";
    check(&server, &put("/new", "", "second"), 409, sentence);
    check(
        &server,
        &String::from_utf8(crate::file::post("/new", "x")).unwrap(),
        409,
        sentence,
    );
    let part = |name: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=f; filename={name}\r\n\r\nx\r\n")
    };
    let send = |names: [&str; 2]| {
        let form = format!("{}{}--b--\r\n", part(names[0]), part(names[1]));
        let length = form.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        ask(&server, head + &form).status
    };
    assert_eq!(send(["unheard-of", "new"]), 409);
    assert_eq!(fs::read(tree.root("new")).unwrap(), b"first");
    // Two of one name do not overwrite each other anyway.
    assert_eq!(send(["twice", "twice"]), 303);
    assert!(tree.root("twice (1)").exists());
    if has_program("curl") {
        let mut curl = server.curl("/new");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-T", "-"]);
        let ran = run_command(curl, b"third");
        assert_eq!(ran.out(), "409");
        assert_eq!(fs::read(tree.root("new")).unwrap(), b"first");
    }
}

#[test]
fn what_is_in_the_way_of_an_upload_is_said() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    fs::set_permissions(tree.root("plain/a.txt"), fs::Permissions::from_mode(0o444)).unwrap();
    let sentence = "the file there is write-protected\n";
    check(&server, &put("/plain/a.txt", "", "x"), 403, sentence);
    symlink("/etc/hostname", tree.root("out")).unwrap();
    check(
        &server,
        &put("/out", "", "x"),
        409,
        "the path names something that is not a regular file\n",
    );
}

/// As containers are given their configuration.
#[test]
fn a_file_that_is_mounted_is_not_replaced() {
    let tree = Tree::new();
    let file = tree.path("outside.txt");
    fs::write(&file, "of the machine").unwrap();
    let what = ["--bind", file.to_str().unwrap()];
    let Some(_mounted) = Mounted::mount(&what, tree.root("plain/a.txt")) else {
        return;
    };
    let server = tree.start(&[]);
    let sentence = "the server has no permission for that file\n";
    check(&server, &put("/plain/a.txt", "", "x"), 403, sentence);
    check(&server, &get("/plain/a.txt"), 200, "of the machine");
}

/// As on some network file systems.
#[test]
fn a_disk_that_cannot_sync_folders_takes_uploads() {
    let Some(strace) = strace("fsync:error=EINVAL") else {
        return;
    };
    let tree = Tree::new();
    let server = serve(strace, &tree);
    check(&server, &put("/new", "", "x"), 201, SAVED);
    check(&server, &put("/new", "", "y"), 200, SAVED);
}

#[test]
fn a_disk_that_refuses_a_name_is_not_said_to_have_failed() {
    let Some(strace) = strace("renameat2,linkat:error=EINVAL") else {
        return;
    };
    let tree = Tree::new();
    let server = serve(strace, &tree);
    let before = tree.inside();
    let sentence = "the server's disk refuses this name\n";
    check(&server, &put("/a:b", "", "x"), 400, sentence);
    assert_eq!(tree.inside(), before);
}

/// Some file systems have a limit, and so can a process.
#[test]
fn a_file_that_the_disk_cannot_hold_is_refused_as_too_large() {
    let tree = Tree::new();
    let mut sh = Command::new("sh");
    sh.args(["-c", "ulimit -f 1; exec \"$@\"", "sh"]);
    sh.arg(program("file-server")).args(["0", "--root"]);
    sh.arg(tree.path("root"));
    let server = Server::spawn(sh);
    let before = tree.inside();
    let sentence = "the server's disk refuses a file of this size\n";
    check(
        &server,
        &put("/large", "", &"x".repeat(2048)),
        413,
        sentence,
    );
    assert_eq!(tree.inside(), before);
    check(&server, &put("/small", "", "x"), 201, SAVED);
}

/// A user who is nobody's.
const OTHER: u32 = 65534;

/// What is in it then could not be synced.
#[test]
fn nothing_is_put_in_a_folder_that_cannot_be_read() {
    if !has_door(
        Needs::Plain,
        "the user of its server cannot read the files of the door",
    ) {
        return;
    }
    let tree = Tree::new();
    let root = tree.path("root");
    let folder = tree.root("drop");
    fs::create_dir(&folder).unwrap();
    for open in [root.parent().unwrap(), &root, &folder] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o733)).unwrap();
    }
    let mut command = Command::new(program("file-server"));
    command.arg("0").arg("--root").arg(&root);
    if rustix::process::geteuid().is_root() {
        // Which reads everything.
        command.uid(OTHER).gid(OTHER);
    } else {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o300)).unwrap();
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::spawn(command);
    let sentence = "the server has no permission for that file\n";
    check(&server, &put("/drop/x", "", "x"), 403, sentence);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

/// Each folder takes the disk longer than it takes to answer many requests.
#[test]
fn a_server_listens_and_stops_while_it_looks_for_what_is_left() {
    let Some(strace) = strace("openat2:delay_enter=300000") else {
        return;
    };
    let tree = Tree::new();
    // They come one after the other, and there is nothing in them.
    for number in 0..300 {
        fs::create_dir_all(tree.root("many").join(number.to_string())).unwrap();
    }
    let server = serve(strace, &tree);
    check(&server, &get("/plain/a.txt"), 200, "a");
    // Each of these opens something too; so it is among the many then.
    for _ in 0..10 {
        assert_eq!(ask(&server, get("/missing")).status, 404);
    }
    server.signal("TERM");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn an_upload_that_makes_many_folders_holds_up_no_other() {
    let Some(strace) = strace("fsync:delay_enter=30000") else {
        return;
    };
    let tree = Tree::new();
    let server = serve(strace, &tree);
    let is_answered = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            check(&server, &put(&"/d".repeat(150), "", "x"), 201, SAVED);
            is_answered.store(true, Ordering::Relaxed);
        });
        eventually("the first folders are made", || tree.root("d/d").exists());
        // One alone could be answered in the moment in which the first is, too.
        check(&server, &put("/new", "", "x"), 201, SAVED);
        check(&server, &put("/other", "", "x"), 201, SAVED);
        assert!(
            !is_answered.load(Ordering::Relaxed),
            "it takes the disk seconds"
        );
    });
}

/// `strace` that does this to the calls of a server, if it works here.
fn strace(inject: &str) -> Option<Command> {
    let mut works = Command::new("strace");
    works.args(["-D", "-f", "-qq", "-o", "/dev/null", "true"]);
    if !works
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        skipped("there is no strace that works");
        return None;
    }
    let call = inject.split(':').next().unwrap();
    let mut strace = Command::new("strace");
    strace.args([
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
    ]);
    strace.args(["-e", &format!("inject={inject}")]);
    Some(strace)
}

fn serve(mut strace: Command, tree: &Tree) -> Server {
    strace
        .arg(program("file-server"))
        .arg("0")
        .arg("--root")
        .arg(tree.path("root"));
    Server::spawn(strace)
}
